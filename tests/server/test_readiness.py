"""A server's life as decisions: ready or not, how it ended, what mends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.engine.failures import engine_error
from tasks.errors import ServerError
from tasks.server import client
from tasks.server.readiness import Readiness, StartupSample, startup_state
from tasks.system import processes
from tasks.system.exit_status import ProcessExit, status_text

LIMIT_S = 60.0
PORT = 8080  # what it is told to take
OURS, NONE, NEXT = frozenset({PORT}), frozenset[int](), frozenset({PORT + 1})  # on which it listens


def look(
    exited: int | None = None,
    health: int | None = None,
    ports: frozenset[int] | None = None,
    elapsed_s: float = 1,
) -> StartupSample:
    return StartupSample(exited, health, PORT, ports, elapsed_s)


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
        pytest.param(look(health=200, ports=NEXT), Readiness.PORT_TAKEN, id="another program says yes"),
        pytest.param(
            look(health=200, ports=NONE), Readiness.PORT_TAKEN, id="the same, while ours still loads"
        ),
        pytest.param(look(health=503, ports=NONE), Readiness.WAIT, id="another program says no, ours loads"),
        pytest.param(
            look(health=503, ports=NEXT), Readiness.WRONG_PORT, id="another says no, and ours has hopped"
        ),
        pytest.param(look(ports=NEXT), Readiness.WRONG_PORT, id="another says nothing, and ours has hopped"),
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
        pytest.param(look(elapsed_s=60.0), Readiness.TIMED_OUT, id="at the deadline"),
        pytest.param(look(None, 503, OURS, 61), Readiness.TIMED_OUT, id="still loading after it"),
        pytest.param(look(None, 200, OURS, 61), Readiness.READY, id="ready in the last moment is ready"),
        pytest.param(
            look(None, 200, NONE, 61), Readiness.PORT_TAKEN, id="a stranger explains more than the time"
        ),
        pytest.param(
            look(None, None, NEXT, 61), Readiness.WRONG_PORT, id="another port explains more than the time"
        ),
    ],
)
def test_a_look_at_a_starting_server(seen: StartupSample, verdict: Readiness) -> None:
    """R27: a race of three, the endpoint, the process and the deadline; and then, is it ours?"""
    assert startup_state(seen, LIMIT_S) is verdict


_STATUS = st.none() | st.integers(-64, 2**32)
_PORTS = st.none() | st.frozensets(st.integers(PORT - 1, PORT + 1))


@given(st.builds(look, _STATUS, st.none() | st.integers(100, 599) | st.just(200), _PORTS, st.floats(0, 1e6)))
def test_no_look_lets_it_wait_for_ever(seen: StartupSample) -> None:
    """R27: only a live process before the deadline is waited for; only a 200 that may be ours is ready."""
    verdict = startup_state(seen, LIMIT_S)
    if verdict is Readiness.WAIT:
        assert seen.exited is None
        assert seen.elapsed_s < LIMIT_S
        assert not seen.ports or PORT in seen.ports
    if verdict is Readiness.READY:
        assert (seen.exited, seen.health) == (None, 200)
        assert seen.ports is None or PORT in seen.ports
    if verdict is Readiness.WRONG_PORT:
        assert seen.exited is None
        assert seen.ports
        assert PORT not in seen.ports


@pytest.mark.parametrize(
    ("status", "platform", "text"),
    [
        pytest.param(None, "linux", "still running", id="none"),
        pytest.param(0, "linux", "exit status 0", id="no error"),
        pytest.param(127, "linux", "exit status 127", id="an error"),
        pytest.param(-9, "linux", "signal 9 (SIGKILL)", id="a signal with a name"),
        pytest.param(-7, "linux", "signal 7 (SIGBUS)", id="another"),
        pytest.param(-31, "linux", "signal 31 (SIGSYS)", id="seccomp's"),
        pytest.param(-10, "linux", "signal 10", id="one that is nobody's business"),
        pytest.param(-10, "darwin", "signal 10 (SIGBUS)", id="and means something on macOS"),
        pytest.param(-64, "linux", "signal 64", id="a signal without a name"),
        pytest.param(1, "win32", "exit status 1", id="an error on Windows"),
        pytest.param(256, "win32", "exit status 1", id="an APE's error on Windows"),
        pytest.param(77 << 8, "win32", "exit status 77", id="another"),
        pytest.param(256, "linux", "exit status 256", id="no APE's"),
        pytest.param(
            3221225501, "win32", "exit status 0xC000001D (STATUS_ILLEGAL_INSTRUCTION)", id="an exception"
        ),
        pytest.param(
            -1073741515, "win32", "exit status 0xC0000135 (STATUS_DLL_NOT_FOUND)", id="the same, signed"
        ),
        pytest.param(0xC0000022, "win32", "exit status 0xC0000022", id="an exception without a name"),
    ],
)
def test_status_in_words(status: int | None, platform: str, text: str) -> None:
    """R28: exit status or signal; the exceptions of Windows as everybody writes them."""
    assert status_text(status, platform) == text


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        pytest.param(
            ProcessExit(["/bin/sh", "/my models/x", "--port", "1"], 1, "loading\ncouldn't bind\n", "/log"),
            "it failed\n"
            "  command: /bin/sh '/my models/x' --port 1\n"
            "  ended: exit status 1\n"
            "  output:\n      loading\n      couldn't bind\n"
            "  log: /log\n"
            "  fix: another program uses the port: use --port 0 for a free one",
            id="everything is known",
        ),
        pytest.param(
            ProcessExit(["x"], None, ""),
            "it failed\n  command: x\n  output: (it printed nothing)",
            id="nothing is known, and it still runs",
        ),
        pytest.param(
            ProcessExit(["x"], -11, "one line"),
            "it failed\n  command: x\n  ended: signal 11 (SIGSEGV)\n  output: one line\n"
            "  fix: the engine crashed: check the limits (ulimit -a) and the free memory; on a machine with "
            "a GPU, try --gpu disable",
            id="a crash",
        ),
    ],
)
def test_failure_is_explained(ending: ProcessExit, message: str) -> None:
    """R26, R28: command, exit status or signal, last lines, log, likely remedy."""
    error = engine_error("it failed", ending, "linux")
    assert isinstance(error, ServerError)
    assert str(error) == message


def test_every_step_of_a_stop_has_an_end() -> None:
    """R27: interrupt, terminate, kill; llamafile 0.10 sleeps a second in its own handler."""
    steps = (processes.INTERRUPT_S, processes.TERMINATE_S, processes.KILL_S)
    assert all(1 < step <= 30 for step in steps)
    assert client.POLL_S < 1
