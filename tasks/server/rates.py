"""Compute tokens per second from what a server's answers say, and compare. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tasks.errors import RecipeError
from tasks.network.answers import parse_json

# of a measurement: its name in JSON, and which facts must be equal to compare it
RATES = ("prompt_per_second", "predicted_per_second", "total_per_second")
FACTS = (
    *("model", "sha256", "file", "engine", "settings"),
    *("cpu", "cpus", "gpus", "n_predict"),
)
_MAX_TOKENS = 10**9
_MAX_MS = 10**9


class Timing(NamedTuple):
    """What the `timings` of one answer say."""

    prompt_n: int  # tokens
    prompt_ms: float
    predicted_n: int  # tokens
    predicted_ms: float


class Measurement(NamedTuple):
    """The rates of some requests, of which several were sent at once."""

    parallel: int  # requests at once
    requests: int
    prompt_tokens: int
    predicted_tokens: int
    prompt_per_second: float | None  # of one request; None if it took no time
    predicted_per_second: float | None
    total_per_second: float | None  # generated tokens of all requests
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON, rounded to what a measurement can tell."""
        data = self._asdict()
        for name in (*RATES, "seconds"):
            value = data[name]
            data[name] = None if value is None else float(f"{value:.4g}")
        return data


def parse_timing(body: bytes) -> Timing | None:
    """Return the timings of an answer of /completion; None if it has none."""
    try:
        timings = parse_json(body)["timings"]
        found = Timing(
            timings["prompt_n"],
            timings["prompt_ms"],
            timings["predicted_n"],
            timings["predicted_ms"],
        )
    except (ValueError, KeyError, TypeError):
        return None
    tokens = (found.prompt_n, found.predicted_n)
    times = (found.prompt_ms, found.predicted_ms)
    if not all(type(count) is int and 0 <= count <= _MAX_TOKENS for count in tokens):
        return None
    if not all(_is_number(value, _MAX_MS) for value in times):
        return None
    return found


def _is_number(value: object, most: float) -> bool:
    if type(value) not in (int, float):
        return False
    return 0 <= value <= most  # type: ignore[operator]  # false for a NaN


def measurement(
    parallel: int, timings: Sequence[Timing], seconds: float
) -> Measurement:
    """Sum up the answers of one level.

    Args:
        parallel: requests at once.
        seconds: from the first request to the last answer.
    """
    prompt = sum(timing.prompt_n for timing in timings)
    predicted = sum(timing.predicted_n for timing in timings)
    prompt_s = sum(timing.prompt_ms for timing in timings) / 1000
    predicted_s = sum(timing.predicted_ms for timing in timings) / 1000
    return Measurement(
        parallel=parallel,
        requests=len(timings),
        prompt_tokens=prompt,
        predicted_tokens=predicted,
        prompt_per_second=_rate(prompt, prompt_s),
        predicted_per_second=_rate(predicted, predicted_s),
        total_per_second=_rate(predicted, seconds),
        seconds=seconds,
    )


def _rate(tokens: int, seconds: float) -> float | None:
    if not tokens or not seconds:
        return None
    return tokens / seconds


def parse_earlier(text: str, where: str) -> dict[str, Any]:
    """Return the report that `doit bench --json` has printed.

    Args:
        where: the file, for messages.

    Raises:
        RecipeError: it is something else.
    """
    try:
        report = parse_json(text)
    except ValueError:
        report = None
    rows = report.get("rows") if isinstance(report, dict) else None
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        what = f"{where} is not a report of `doit bench --json`"
        fix = "name a file that `doit bench --json > NEW.json` has written"
        raise RecipeError(what, fix=fix)
    return dict(report)


def _is_row(row: object) -> bool:
    if not isinstance(row, dict) or type(row.get("parallel")) is not int:
        return False
    values = [row.get(name) for name in RATES]
    return all(value is None or _is_number(value, math.inf) for value in values)


def ratios(
    row: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Return for each rate how many times the earlier one it is; None if unknown."""
    found = (other for other in earlier if other["parallel"] == row["parallel"])
    before = next(found, {})
    return {name: _ratio(row[name], before.get(name)) for name in RATES}


def _ratio(now: float | None, before: float | None) -> float | None:
    if not now or not before:
        return None
    return float(f"{now / before:.4g}")


def differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Return the facts that differ, so that the ratio may have another cause."""
    lines = []
    for name in FACTS:
        lines += _difference(name, now.get(name), before.get(name))
    return lines


def _difference(name: str, now: object, before: object) -> list[str]:
    """Return a line if a fact differs; of settings, one for each that does."""
    if isinstance(now, dict) and isinstance(before, dict):
        lines = []
        for key in dict.fromkeys([*before, *now]):
            lines += _difference(key, now.get(key), before.get(key))
        return lines
    if now == before:
        return []
    return [f"{name}: {_words(before)} → {_words(now)}"]


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "none"
    return str(value)
