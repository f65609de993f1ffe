"""Tokens per second from the timings of answers: tables of answers and reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tasks.errors import RecipeError
from tasks.server.rates import (
    Measurement,
    Timing,
    differences,
    measurement,
    parse_earlier,
    parse_timing,
    ratios,
)

pytestmark = pytest.mark.once
WHOLE = {"prompt_n": 9, "prompt_ms": 2.5, "predicted_n": 8, "predicted_ms": 20}

ANSWERS: tuple[tuple[str, object, Timing | None], ...] = (
    ("an answer", {"timings": WHOLE}, Timing(9, 2.5, 8, 20)),
    ("all from the cache", {"timings": {**WHOLE, "prompt_n": 0, "prompt_ms": 0}}, Timing(0, 0, 8, 20)),
    ("further keys", {"content": "x", "timings": {**WHOLE, "cache_n": 3}}, Timing(9, 2.5, 8, 20)),
    ("no timings", {"content": "x"}, None),
    ("a number is missing", {"timings": {"prompt_n": 9}}, None),
    ("null", {"timings": None}, None),
    ("a list", [], None),
    ("text", {"timings": {**WHOLE, "prompt_n": "9"}}, None),
    ("a boolean", {"timings": {**WHOLE, "predicted_n": True}}, None),
    ("a fraction of a token", {"timings": {**WHOLE, "predicted_n": 1.5}}, None),
    ("negative", {"timings": {**WHOLE, "prompt_ms": -1}}, None),
    ("not a number", {"timings": {**WHOLE, "prompt_ms": float("nan")}}, None),
    ("infinite", {"timings": {**WHOLE, "predicted_ms": float("inf")}}, None),
)


@pytest.mark.parametrize(("answer", "timing"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_timings_of_an_answer(answer: object, timing: Timing | None) -> None:
    """Issue 15.9: what another program sent is checked."""
    assert parse_timing(json.dumps(answer).encode()) == timing


def test_an_answer_that_is_not_json() -> None:
    """It has no timings."""
    assert parse_timing(b"<html>") is None


SUMS = (
    # requests at once, timings, seconds → prompt, generation and all, tokens per second
    (1, [Timing(100, 500, 10, 1000)], 2.0, (200.0, 10.0, 5.0)),
    (1, [Timing(100, 500, 10, 1000), Timing(100, 1500, 10, 3000)], 6.0, (100.0, 5.0, 20 / 6)),
    (2, [Timing(50, 500, 10, 1000)] * 2, 1.0, (100.0, 10.0, 20.0)),
    (1, [Timing(0, 0, 10, 1000)], 1.0, (None, 10.0, 10.0)),
    (1, [Timing(5, 10, 0, 0)], 1.0, (500.0, None, None)),
)


@pytest.mark.parametrize(("parallel", "timings", "seconds", "rates"), SUMS)
def test_rates(parallel: int, timings: list[Timing], seconds: float, rates: tuple[float | None, ...]) -> None:
    """Issue 15.9: of one request by the server's clock, of all by ours."""
    found = measurement(parallel, timings, seconds)
    assert (found.parallel, found.requests) == (parallel, len(timings))
    assert found[4:] == (*(rate and pytest.approx(rate) for rate in rates), seconds)


def test_a_measurement_in_json() -> None:
    """Issue 15.9: four digits; what is unknown is null."""
    data = Measurement(2, 4, 400, 40, 123.4567, None, 9.87654, 1.23456).as_json()
    assert data == {
        "parallel": 2, "requests": 4, "prompt_tokens": 400, "predicted_tokens": 40,
        "prompt_per_second": 123.5, "predicted_per_second": None, "total_per_second": 9.877, "seconds": 1.235,
    }  # fmt: skip


def row(parallel: int, *rates: float | None) -> dict[str, Any]:
    names = ("prompt_per_second", "predicted_per_second", "total_per_second")
    return {"parallel": parallel, **dict(zip(names, rates, strict=True))}


RATIOS = (
    ("twice as fast", row(1, 20.0, 4.0, 1.0), [row(1, 10.0, 2.0, 2.0)], [2.0, 2.0, 0.5]),
    ("of the same level", row(2, 20.0, 4.0, 1.0), [row(1, 1.0, 1.0, 1.0), row(2, 20.0, 4.0, 1.0)], [1.0] * 3),
    ("no such level", row(4, 20.0, 4.0, 1.0), [row(1, 10.0, 2.0, 2.0)], [None] * 3),
    ("unknown now or then", row(1, None, 4.0, 1.0), [row(1, 10.0, None, 0.0)], [None] * 3),
)


@pytest.mark.parametrize(
    ("now", "then", "wanted"), [one[1:] for one in RATIOS], ids=[one[0] for one in RATIOS]
)
def test_ratios(now: dict[str, Any], then: list[dict[str, Any]], wanted: list[float | None]) -> None:
    """Issue 15.9: for each level and rate."""
    assert list(ratios(now, then).values()) == wanted


NO_REPORTS = ("", "x", "[]", "null", "{}", '{"rows": 1}', '{"rows": [1]}', '{"rows": [{"parallel": "1"}]}',
              '{"rows": [{"parallel": 1, "prompt_per_second": "9"}]}', "[" * 10_000)  # fmt: skip


@pytest.mark.parametrize("text", NO_REPORTS)
def test_it_is_no_report(text: str) -> None:
    """Issue 15.9: the fix makes one, and overwrites no file of the user's."""
    with pytest.raises(RecipeError) as caught:
        parse_earlier(text, "old.json")
    assert caught.value.what == "old.json is not a report of `doit bench --json`"
    assert caught.value.fix == "name a file that `doit bench --json > NEW.json` has written"


def test_what_differs() -> None:
    """Issue 15.9: another engine, or another machine, may be the cause of a ratio."""
    now = dict.fromkeys(("model", "sha256", "engine", "settings", "cpu", "cpus", "gpus", "n_predict"), "x")
    assert differences(now, now) == []
    assert differences(now, {**now, "engine": "old", "rows": []}) == ["engine: old → x"]
    old = {**now, "settings": {"--threads": "1", "--ctx-size": "4096"}, "gpus": []}
    new = {**now, "settings": {"--threads": "2", "--ctx-size": "4096", "--ngl": "9"}, "gpus": ["A", "B"]}
    assert differences(new, old) == ["--threads: 1 → 2", "--ngl: none → 9", "gpus: none → A, B"]
