"""A server's life as decisions: ready or not, how it ended, what mends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import lifecycle
from tasks.core.errors import ServerError
from tasks.core.explain import remedy
from tasks.core.lifecycle import Ending, Look, Readiness, failure, judge_start, status_text

LIMIT_S = 60.0
PORT = 8080  # what it is told to take
OURS, NONE, NEXT = frozenset({PORT}), frozenset[int](), frozenset({PORT + 1})  # on which it listens


def look(
    exited: int | None = None,
    health: int | None = None,
    ports: frozenset[int] | None = None,
    elapsed_s: float = 1,
) -> Look:
    return Look(exited, health, PORT, ports, elapsed_s)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        pytest.param(look(), Readiness.WAIT, id="nothing answers yet: 0.9 loads before it binds"),
        pytest.param(look(ports=NONE), Readiness.WAIT, id="the same, and the system says so"),
        pytest.param(look(health=503, ports=OURS), Readiness.WAIT, id="it is loading: 0.10 binds first"),
        pytest.param(look(health=503), Readiness.WAIT, id="it is loading, and nobody has looked whose it is"),
        pytest.param(look(ports=OURS), Readiness.WAIT, id="it listens and does not answer"),
        pytest.param(look(health=404, ports=OURS), Readiness.WAIT, id="another answer is not yes"),
        pytest.param(look(health=200, ports=OURS), Readiness.READY, id="it says yes, and is ours"),
        pytest.param(look(health=200, ports=OURS | NEXT), Readiness.READY, id="it listens on others, too"),
        pytest.param(look(health=200), Readiness.READY, id="it says yes, and the system does not tell whose"),
        # mozilla-ai/llamafile#54: old versions hop to the next port without a word
        pytest.param(look(health=200, ports=NEXT), Readiness.STRANGER, id="another program says yes"),
        pytest.param(look(health=200, ports=NONE), Readiness.STRANGER, id="the same, while ours still loads"),
        pytest.param(look(health=503, ports=NONE), Readiness.WAIT, id="another program says no, ours loads"),
        pytest.param(
            look(health=503, ports=NEXT), Readiness.HOPPED, id="another says no, and ours has hopped"
        ),
        pytest.param(look(ports=NEXT), Readiness.HOPPED, id="another says nothing, and ours has hopped"),
        # llama-swap#100: a dead child is not waited for
        pytest.param(look(1), Readiness.DIED, id="it has ended"),
        pytest.param(look(0), Readiness.DIED, id="it has ended without an error: no server either"),
        pytest.param(look(-9), Readiness.DIED, id="it was killed"),
        pytest.param(look(1, 200, OURS), Readiness.DIED, id="it has ended, whoever still answers"),
        pytest.param(
            look(1, 200, NONE, 99), Readiness.DIED, id="its end explains more than a stranger or the time"
        ),
        pytest.param(look(1, None, NEXT), Readiness.DIED, id="its end explains more than another port"),
        pytest.param(look(elapsed_s=59.9), Readiness.WAIT, id="just before the deadline"),
        pytest.param(look(elapsed_s=60.0), Readiness.LATE, id="at the deadline"),
        pytest.param(look(None, 503, OURS, 61), Readiness.LATE, id="still loading after it"),
        pytest.param(look(None, 200, OURS, 61), Readiness.READY, id="ready in the last moment is ready"),
        pytest.param(
            look(None, 200, NONE, 61), Readiness.STRANGER, id="a stranger explains more than the time"
        ),
        pytest.param(
            look(None, None, NEXT, 61), Readiness.HOPPED, id="another port explains more than the time"
        ),
    ],
)
def test_a_look_at_a_starting_server(seen: Look, verdict: Readiness) -> None:
    """R27: a race of three, the endpoint, the process and the deadline; and then, is it ours?"""
    assert judge_start(seen, LIMIT_S) is verdict


_STATUS = st.none() | st.integers(-64, 2**32)
_PORTS = st.none() | st.frozensets(st.integers(PORT - 1, PORT + 1))


@given(st.builds(look, _STATUS, st.none() | st.integers(100, 599) | st.just(200), _PORTS, st.floats(0, 1e6)))
def test_no_look_lets_it_wait_for_ever(seen: Look) -> None:
    """R27: only a live process before the deadline is waited for; only a 200 that may be ours is ready."""
    verdict = judge_start(seen, LIMIT_S)
    if verdict is Readiness.WAIT:
        assert seen.exited is None
        assert seen.elapsed_s < LIMIT_S
        assert not seen.ports or PORT in seen.ports
    if verdict is Readiness.READY:
        assert (seen.exited, seen.health) == (None, 200)
        assert seen.ports is None or PORT in seen.ports
    if verdict is Readiness.HOPPED:
        assert seen.exited is None
        assert seen.ports
        assert PORT not in seen.ports


# (exit status, what it printed, platform, words of the remedy); a row for each of the remedies
REMEDIES = [
    pytest.param(
        1, "error: unknown argument: --nobrowser", "linux", "no such option", id="955: an option too new"
    ),
    pytest.param(
        1,
        "couldn't bind to server socket: hostname=127.0.0.1 port=8080",
        "linux",
        "--port 0",
        id="port, up to 0.9",
    ),
    pytest.param(1, "couldn't bind HTTP server socket, port: 80", "linux", "--port 0", id="port, since 0.10"),
    pytest.param(1, "OSError: [Errno 98] Address already in use", "linux", "--port 0", id="port, in Python"),
    pytest.param(1, "fatal: this program requires AVX", "linux", "lacks AVX", id="CPU without AVX"),
    pytest.param(
        1, "AVX2 is not supported by this CPU", "linux", "lacks AVX", id="CPU without AVX, otherwise"
    ),
    pytest.param(
        127,
        "ape error: /x: prog mmap failed w/ errno 1",
        "linux",
        "noexec",
        id="15, 106, 108: a noexec mount",
    ),
    pytest.param(127, "prog mmap failed w/ errno 1", "darwin", "Privacy & Security", id="106: or Gatekeeper"),
    pytest.param(
        1, "please run: xcode-select --install", "darwin", "xcode-select --install", id="a Mac without cc"
    ),
    pytest.param(1, "please run: xcode-select --install", "linux", "", id="which is for Macs"),
    pytest.param(1, "gzip: stdin: unexpected end of file", "linux", "truncated", id="a truncated file"),
    pytest.param(
        1,
        "run-detectors: unable to find an interpreter",
        "linux",
        "binfmt_misc",
        id="47, 513: another loader has it",
    ),
    pytest.param(
        1, "APE is running on WIN32 inside WSL", "linux", "WSLInterop", id="100: WSL runs it as Windows"
    ),
    pytest.param(
        1, "multiple .gguf files found in zip", "linux", "several models", id="two models in one file"
    ),
    pytest.param(
        1,
        "support for --gpu nvidia was explicitly requested, but it wasn't available",
        "linux",
        "--gpu auto",
        id="no such GPU",
    ),
    pytest.param(1, "ggml_metal: error: Out Of Memory", "darwin", "memory is short", id="memory, any case"),
    pytest.param(1, "failed to allocate buffer", "linux", "smaller --ctx-size", id="memory for the context"),
    pytest.param(-6, "terminate called: std::bad_alloc", "linux", "memory is short", id="memory, in C++"),
    pytest.param(
        1, "mmap: Cannot allocate memory", "linux", "memory is short", id="memory, the system's words"
    ),
    pytest.param(
        1,
        "the engine is the optional package xllamacpp",
        "linux",
        "pip install",
        id="the package is not installed",
    ),
    pytest.param(
        1, "llama_load: error loading model: x", "linux", "`doit verify`", id="a file it does not read"
    ),
    pytest.param(1, "failed to load model /x.gguf", "win32", "does not read", id="the same, otherwise"),
    pytest.param(-9, "", "linux", "killed it, most often because memory is short", id="SIGKILL"),
    pytest.param(
        137, "", "linux", "killed it, most often because memory is short", id="SIGKILL, said by a shell"
    ),
    pytest.param(-4, "", "linux", "instruction", id="SIGILL"),
    pytest.param(-11, "", "linux", "--gpu disable", id="988: SIGSEGV"),
    pytest.param(-7, "", "linux", "truncated", id="SIGBUS"),
    pytest.param(126, "sh: Permission denied", "linux", "noexec", id="a TMPDIR that is noexec"),
    # what it printed explains more than how it ended
    pytest.param(-9, "failed to load model", "linux", "does not read", id="output before status"),
    pytest.param(None, "couldn't bind", "linux", "--port 0", id="while it still runs"),
    # nothing is known
    pytest.param(1, "", "linux", "", id="nothing printed"),
    pytest.param(1, "something new", "linux", "", id="something new"),
    pytest.param(0, "", "linux", "", id="no error"),
    pytest.param(-15, "", "linux", "", id="SIGTERM"),
    pytest.param(None, "", "linux", "", id="still running"),
]


@pytest.mark.parametrize(("status", "output", "platform", "words"), REMEDIES)
def test_remedy(status: int | None, output: str, platform: str, words: str) -> None:
    """R28: the likely remedy, where one is known; nothing where none is."""
    found = remedy(status, output, platform)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param(None, "still running", id="none"),
        pytest.param(0, "exit status 0", id="no error"),
        pytest.param(127, "exit status 127", id="an error"),
        pytest.param(3221225501, "status 0xC000001D", id="an exception of Windows"),
        pytest.param(-9, "signal 9 (SIGKILL)", id="a signal with a name"),
        pytest.param(-7, "signal 7 (SIGBUS)", id="another"),
        pytest.param(-64, "signal 64", id="a signal without one"),
    ],
)
def test_status_in_words(status: int | None, text: str) -> None:
    """R28: exit status or signal."""
    assert status_text(status) == text


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        pytest.param(
            Ending(["/bin/sh", "/my models/x", "--port", "1"], 1, "loading\ncouldn't bind\n", "/log"),
            "it failed\n"
            "  command: /bin/sh '/my models/x' --port 1\n"
            "  ended: exit status 1\n"
            "  output:\n      loading\n      couldn't bind\n"
            "  log: /log\n"
            "  fix: another program has the port: --port 0 takes a free one",
            id="everything is known",
        ),
        pytest.param(
            Ending(["x"], None, ""),
            "it failed\n  command: x\n  output: (it printed nothing)",
            id="nothing is known, and it still runs",
        ),
        pytest.param(
            Ending(["x"], -11, "one line"),
            "it failed\n  command: x\n  ended: signal 11 (SIGSEGV)\n  output: one line\n"
            "  fix: the engine crashed; --gpu disable tells whether the GPU is the cause",
            id="a crash",
        ),
    ],
)
def test_failure_is_explained(ending: Ending, message: str) -> None:
    """R26, R28: command, exit status or signal, last lines, log, likely remedy."""
    error = failure("it failed", ending, "linux")
    assert isinstance(error, ServerError)
    assert str(error) == message


def test_every_step_of_a_stop_has_an_end() -> None:
    """R27: interrupt, terminate, kill; llamafile 0.10 sleeps a second in its own handler."""
    steps = (lifecycle.INTERRUPT_S, lifecycle.TERMINATE_S, lifecycle.KILL_S)
    assert all(1 < step <= 30 for step in steps)
    assert lifecycle.POLL_S < 1
