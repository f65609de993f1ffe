"""Sizes, durations, rates, progress and addresses as text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks import urls
from tasks.catalogue.types import Model
from tasks.console import formatting
from tasks.server import messages
from tasks.server.server_record import Mode, ServerRecord


@pytest.mark.parametrize(
    ("count", "text"),
    [
        pytest.param(None, "?", id="nobody knows"),
        pytest.param(0, "0 B", id="nothing"),
        pytest.param(999, "999 B", id="bytes"),
        pytest.param(1000, "1.00 kB", id="from 1000 on: powers of ten"),
        pytest.param(195552, "195.6 kB", id="kB"),
        pytest.param(999_499, "999.5 kB", id="just below a megabyte"),
        pytest.param(999_950, "1.00 MB", id="never 1000.0 kB"),
        pytest.param(2_422_618_366, "2.42 GB", id="gigabytes below 10: two digits"),
        pytest.param(5160777905, "5.16 GB", id="R7: the default model, as its page says"),
        pytest.param(33_258_944_693, "33.3 GB", id="gigabytes above 10: one digit"),
    ],
)
def test_size(count: int | None, text: str) -> None:
    """R7: MB and GB, as the pages of models say it."""
    assert formatting.format_size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(0, "0 ms", id="nothing"),
        pytest.param(0.0404, "40 ms", id="milliseconds"),
        pytest.param(0.9996, "1.0 s", id="never 1000 ms"),
        pytest.param(2.54, "2.5 s", id="seconds below 10"),
        pytest.param(63.4, "63 s", id="seconds"),
        pytest.param(119.7, "2 min 0 s", id="just below two minutes"),
        pytest.param(725, "12 min 5 s", id="minutes"),
        pytest.param(3599.7, "1 h 0 min", id="never 60 min"),
        pytest.param(7380, "2 h 3 min", id="hours"),
        pytest.param(360000, "100 h 0 min", id="days are hours"),
    ],
)
def test_duration(value: float, text: str) -> None:
    """R25: how long a step took, as people say it."""
    assert formatting.format_duration(value) == text


@pytest.mark.parametrize(
    ("count", "elapsed", "text"),
    [
        pytest.param(82_000_000, 1, "82.0 MB/s", id="a second"),
        pytest.param(3_000_000, 2, "1.50 MB/s", id="two seconds"),
        pytest.param(10, 0, "-", id="no time yet"),
        pytest.param(0, 5, "0 B/s", id="nothing came"),
    ],
)
def test_rate(count: float, elapsed: float, text: str) -> None:
    """R7: bytes a second."""
    assert formatting.format_rate(count, elapsed) == text


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "gained", "line"),
    [
        pytest.param(
            430_000_000,
            1_000_000_000,
            10.0,
            430_000_000,
            "43 %, 430.0 MB of 1.00 GB, 43.0 MB/s, 13 s left",
            id="R7: percent, done/total, rate, time left",
        ),
        pytest.param(
            430_000_000,
            1_000_000_000,
            10.0,
            30_000_000,
            "43 %, 430.0 MB of 1.00 GB, 3.00 MB/s, 3 min 10 s left",
            id="what was here already is not in the rate",
        ),
        pytest.param(430_000_000, None, 10.0, 430_000_000, "430.0 MB, 43.0 MB/s", id="R7: an unknown size"),
        pytest.param(0, 1000, 0.0, 0, "0 %, 0 B of 1.00 kB, -", id="before the first byte"),
        pytest.param(10, 100, 0.0, 10, "10 %, 10 B of 100 B, -", id="before any time has passed"),
        pytest.param(400, 1000, 9.0, 0, "40 %, 400 B of 1.00 kB, 0 B/s", id="a stall promises no time"),
        pytest.param(0, None, 0.0, 0, "0 B, -", id="nothing is known"),
        pytest.param(
            999, 1000, 1.0, 999, "99 %, 999 B of 1.00 kB, 999 B/s, 1 ms left", id="before the last byte"
        ),
        pytest.param(
            1000, 1000, 1.0, 1000, "100 %, 1.00 kB of 1.00 kB, 1.00 kB/s, 0 ms left", id="the last byte"
        ),
    ],
)
def test_progress(done: int, total: int | None, elapsed: float, gained: int, line: str) -> None:
    """R7: a download in one line."""
    assert formatting.format_progress(done, total, elapsed, gained) == line


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "gained", "note", "line"),
    [
        pytest.param(
            43,
            100,
            1.0,
            43,
            "4 connections",
            "43 %, 43 B of 100 B, 43 B/s, 1.3 s left, 4 connections",
            id="issue 3: connections, at the end",
        ),
        pytest.param(
            100,
            100,
            1.0,
            0,
            "verifying, 30 %",
            "100 %, 100 B of 100 B, 0 B/s, verifying, 30 %",
            id="all is here, and not all is proven",
        ),
        pytest.param(0, None, 0.0, 0, "4 connections", "0 B, -, 4 connections", id="nothing else is known"),
        pytest.param(10, 100, 0.0, 10, "", "10 %, 10 B of 100 B, -", id="no note, no comma"),
    ],
)
def test_progress_with_a_note(
    done: int, total: int | None, elapsed: float, gained: int, note: str, line: str
) -> None:
    """R7, issue 3: the note about a download follows its numbers."""
    assert formatting.format_progress(done, total, elapsed, gained, note) == line


@given(st.integers(1, 10**14), st.data())
def test_never_100_percent_before_the_last_byte(total: int, data: st.DataObject) -> None:
    """ollama#1736: what says 100 % is done."""
    done = data.draw(st.integers(0, total))
    assert (formatting.format_percent(done, total) == "100 %") == (done == total)
    assert re.fullmatch(r"\d{1,3} %", formatting.format_percent(done, total))


_NEAR = st.sampled_from([1.0, 10.0, 60.0, 120.0, 3600.0])  # where a unit ends


@given(
    st.integers(0, 10**12 - 10**9) | st.integers(1, 11).map(lambda n: 10**n - 1),
    st.floats(0, 1e6) | st.tuples(_NEAR, st.floats(-0.6, 0.6)).map(sum),
)
def test_numbers_are_short(count: int, value: float) -> None:
    """Four digits at most before a unit, and no unit is used beyond its end."""
    assert re.fullmatch(r"\d{1,3} B|(\d\.\d\d|\d{2,3}\.\d) [kMG]B", formatting.format_size(count))
    assert re.fullmatch(
        r"\d{1,3} ms|\d\.\d s|(\d\d|1[01]\d) s|[1-5]?\d min [1-5]?\d s|\d+ h [1-5]?\d min",
        formatting.format_duration(value),
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        pytest.param("127.0.0.1", "http://127.0.0.1:80", id="an address"),
        pytest.param("localhost", "http://localhost:80", id="a name"),
        pytest.param("0.0.0.0", "http://127.0.0.1:80", id="every address: this machine's"),
        pytest.param("::", "http://[::1]:80", id="every address of IPv6"),
        pytest.param("::1", "http://[::1]:80", id="IPv6 in brackets"),
        pytest.param("fe80::2", "http://[fe80::2]:80", id="another"),
    ],
)
def test_address_for_clients(host: str, url: str) -> None:
    """R10: where a client on this machine reaches the server."""
    assert urls.base_url(host, 80) == url


def a_run(host: str = "h", key: str = "") -> ServerRecord:
    return ServerRecord("mine", Mode.SERVE, host, 1, {}, [], "/run/mine.log", "mark", key)


def test_what_is_said_when_the_server_is_ready() -> None:
    """Which model and licence (R33), how to call it, where the log is, how to stop it."""
    model = Model("My Model 7B", "MIT", "https://h/m.gguf")
    assert messages.ready_message(model, a_run(), "Ctrl-C") == (
        "  model    My Model 7B, licence MIT\n"
        "  try it   curl http://h:1/v1/chat/completions -H 'Content-Type: application/json' "
        """-d '{"messages":[{"role":"user","content":"Hello"}]}'\n"""
        "  clients  OPENAI_BASE_URL=http://h:1/v1  OPENAI_API_KEY=none\n"
        "  log      /run/mine.log\n"
        "  stop     Ctrl-C"
    )


def test_what_is_said_of_a_server_with_a_key() -> None:
    """R30: how to pass the key, by the name of its variable; the key itself is nowhere."""
    text = messages.ready_message(
        Model("M", "MIT", "u"), a_run("0.0.0.0", "sk-secret"), "doit stop --model mine"
    )
    assert "curl http://127.0.0.1:1/v1/chat/completions" in text
    assert " -H 'Authorization: Bearer '$LLAMA_API_KEY -d " in text
    assert "OPENAI_BASE_URL=http://127.0.0.1:1/v1  OPENAI_API_KEY=$LLAMA_API_KEY\n" in text
    assert text.endswith("  stop     doit stop --model mine")
    assert "sk-secret" not in text


def test_what_is_said_of_a_server_for_everybody() -> None:
    """R30: the warning names model and host, and says how to ask for a key."""
    text = messages.open_access_warning("mine", "0.0.0.0")
    assert text.startswith("warning: mine listens on 0.0.0.0 without an API key")
    assert "fix: set LLAMA_API_KEY, or use --api-key KEY, or remove --host" in text


@pytest.mark.parametrize(
    ("size", "line"),
    [
        pytest.param(817_576_034, "Tiny, 817.6 MB", id="with its size"),
        pytest.param(None, "Tiny", id="nobody knows the size"),
    ],
)
def test_line_of_a_model(size: int | None, line: str) -> None:
    """A line of `doit list --all`."""
    assert formatting.task_line("Tiny", size) == line
