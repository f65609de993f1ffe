"""Run programs with time limits, stop whole groups, keep the end of their output."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tasks.system import processes
from tasks.system.processes import TAIL_BYTES, TAIL_LINES, EngineProcess, last_lines, run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="speaks of POSIX signals and groups")

ENV = {"PATH": os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1"}
Shell = Callable[[str], EngineProcess]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def until(done: Callable[[], object], what: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_run_keeps_both_streams_in_order(tmp_path: Path) -> None:
    """R26: stdout and stderr as they came; directory and environment are those that were given."""
    code = "import os, sys; print(os.getcwd()); print('oops', file=sys.stderr); sys.exit(os.environ['X'])"
    ending = run(python(code), env={**ENV, "X": "seen"}, cwd=str(tmp_path))
    assert (ending.status, ending.output) == (1, f"{tmp_path}\noops\nseen")
    assert list(ending.command) == python(code)


def test_run_gives_no_input(tmp_path: Path) -> None:
    """R27: a program that reads its input sees the end of it; it cannot wait for a terminal."""
    ending = run(
        python("import sys; print(repr(sys.stdin.read()))"), env=ENV, cwd=str(tmp_path), timeout_s=10
    )
    assert (ending.status, ending.output) == (0, "''")


def test_run_names_the_signal(tmp_path: Path) -> None:
    """R28: death by a signal is a negative status."""
    ending = run(["/bin/sh", "-c", "echo before; kill -SEGV $$"], env=ENV, cwd=str(tmp_path))
    assert (ending.status, ending.output) == (-signal.SIGSEGV, "before")


def test_run_ends_what_hangs(tmp_path: Path) -> None:
    """R27: at the limit the whole group is killed, deaf or not; what was printed is kept."""
    pids = tmp_path / "pids"
    script = (
        f"trap '' INT TERM; echo started; sleep 600 & echo $$ $! > {shlex.quote(str(pids))}; wait; sleep 600"
    )
    start = time.monotonic()
    ending = run(["/bin/sh", "-c", script], env=ENV, cwd=str(tmp_path), timeout_s=0.7)
    assert 0.7 <= time.monotonic() - start < 300
    assert (ending.status, ending.output) == (None, "started")
    for pid in map(int, pids.read_text().split()):
        until(lambda pid=pid: not lives(pid), f"{pid} lives")  # type: ignore[misc]


@pytest.mark.parametrize("what", ["exec yes", "yes & exec >&- 2>&-; sleep 60", "exec >&- 2>&-; sleep 60"])
def test_run_ends_what_prints_without_end(tmp_path: Path, what: str) -> None:
    """Finding 17: it is ended at its time limit, and a few kilobytes of what it printed are kept."""
    tracemalloc.start()
    try:
        ending = run(["/bin/sh", "-c", what], env=ENV, cwd=str(tmp_path), timeout_s=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ending.status is None
    assert set(ending.output) <= {"y", "\n"}
    assert peak < 64 * TAIL_BYTES  # in a second `yes` prints gigabytes
    assert list(tmp_path.iterdir()) == []


def test_run_keeps_the_end(tmp_path: Path) -> None:
    """Finding 17: of a long output the last lines."""
    ending = run(["/bin/sh", "-c", "seq 1 200000"], env=ENV, cwd=str(tmp_path))
    assert ending.status == 0
    assert ending.output.splitlines() == [str(n) for n in range(200001 - TAIL_LINES, 200001)]


def test_run_does_not_wait_for_what_has_left(tmp_path: Path) -> None:
    """Finding 17: a process that has left the group and holds the output costs the time limit, no more."""
    code = (
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(600)"
    )
    ending = run(python(code), env=ENV, cwd=str(tmp_path), timeout_s=1)
    os.kill(int(ending.output), signal.SIGKILL)
    assert ending.status is None


def test_run_of_what_is_no_program(tmp_path: Path) -> None:
    """R28: the system's own word reaches the caller."""
    file = tmp_path / "file"
    file.write_text("no program")
    with pytest.raises(PermissionError):
        run([str(file)], env=ENV, cwd=str(tmp_path))
    with pytest.raises(FileNotFoundError):
        run([str(tmp_path / "gone")], env=ENV, cwd=str(tmp_path))


def test_run_ends_the_program_with_itself(tmp_path: Path) -> None:
    """R14: an exception in the midst of waiting (Ctrl-C) leaves nothing running."""
    pid_file = tmp_path / "pid"

    class Stopped(Exception):
        """What a signal handler may raise."""

    def stop(_number: int, _frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)  # one that is held back until the child is known
    threading.Thread(target=lambda: _kill_when(pid_file, signal.SIGTERM), daemon=True).start()
    try:
        with pytest.raises(Stopped):
            run(
                ["/bin/sh", "-c", f"echo $$ > {pid_file}; exec sleep 600"],
                env=ENV,
                cwd=str(tmp_path),
                timeout_s=120,
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not lives(int(pid_file.read_text()))


def _kill_when(path: Path, number: int) -> None:
    until(lambda: path.exists() and path.read_text().endswith("\n"), "it starts")
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        pytest.param(b"", "", id="nothing"),
        pytest.param(b"one", "one", id="no line end"),
        pytest.param(b"\n\n one\n\t\n \ntwo\n\n", " one\ntwo", id="blank lines"),
        pytest.param(
            b"\n".join(b"%d" % n for n in range(99)), "\n".join(map(str, range(84, 99))), id="the last 15"
        ),
        pytest.param(b"10 %\r20 %\r30 %\r\ndone\r\n", "10 %\n20 %\n30 %\ndone", id="a progress bar"),
        pytest.param(b"\x1b[31mred\x1b[0m\x07\x00", "[31mred[0m", id="no escapes, no bell"),
        pytest.param(b"\xff\xfe\x80 caf\xc3\xa9 \xc3", "��� café �", id="not UTF-8"),
        pytest.param("tab\there ☃ \u202e\u2028".encode(), "tab\there ☃ ", id="no tricks with direction"),
    ],
)
def test_last_lines(output: bytes, expected: str) -> None:
    """R26: what is shown is text, whatever a crashing program printed."""
    assert last_lines(output) == expected


def test_last_lines_of_a_flood() -> None:
    """R26: of megabytes of binary data, a few printable lines remain."""
    junk = bytes(range(256)) * 40_000 + b"\nlast words\n"
    text = last_lines(junk)
    assert text.endswith("\nlast words")
    assert len(text.splitlines()) <= TAIL_LINES
    assert all(c.isprintable() or c in "\n\t" for c in text)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Start a shell script as an engine and wait until it prints `ready`."""
    started: list[EngineProcess] = []

    def start(script: str) -> EngineProcess:
        log = tmp_path / f"{len(started)}.log"
        with log.open("wb") as file:
            child = EngineProcess(["/bin/sh", "-c", script], env=ENV, cwd=str(tmp_path), output=file.fileno())
        started.append(child)
        until(lambda: "ready" in log.read_text() or child.exited() is not None, "it is ready")
        return child

    yield start
    for child in started:
        if child.exited() is None:
            os.killpg(child.pid, signal.SIGKILL)
            until(lambda child=child: child.exited() is not None, "it ends")  # type: ignore[misc]


def printed(tmp_path: Path) -> str:
    """What the only engine of a test has printed."""
    return (tmp_path / "0.log").read_text()


def test_child(shell: Shell, tmp_path: Path) -> None:
    """R26: both streams go where its keeper wants them, in order; its end has a status."""
    child = shell("echo ready; echo oops >&2; exit 5")
    assert child.wait() == 5
    assert child.exited() == 5
    assert printed(tmp_path) == "ready\noops\n"
    assert child.stop()


def test_child_in_a_pipe(tmp_path: Path) -> None:
    """R26: with the engine's end the pipe ends, so that its keeper knows that nothing more comes."""
    ours, theirs = os.pipe()
    words = ["/bin/sh", "-c", "echo one; echo two >&2; cat; echo three; exec kill -TERM $$"]
    child = EngineProcess(words, env=ENV, cwd=str(tmp_path), output=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        assert pipe.read() == b"one\ntwo\nthree\n"  # `cat` of its stdin has nothing to add
    assert child.wait() == -signal.SIGTERM


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has a parent-death signal")
def test_child_ends_with_who_started_it(tmp_path: Path) -> None:
    """R27: a keeper that is killed takes its engine with it, deaf or not."""
    code = (
        "import os, sys, time\n"
        "from tasks.system.processes import EngineProcess\n"
        "script = \"trap '' INT TERM HUP; while :; do sleep 0.05; done\"\n"
        "child = EngineProcess(['/bin/sh', '-c', script], env=dict(os.environ), cwd='/', output=2)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**ENV, "PYTHONPATH": root}, cwd=tmp_path, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        engine = int(parent.stdout.readline())
        assert lives(engine)
        parent.kill()
        until(lambda: not lives(engine), "it ends")


def test_child_is_a_group_of_its_own(shell: Shell) -> None:
    """R14: the terminal's Ctrl-C reaches the recipe alone, which then stops the engine in order."""
    child = shell("echo ready; exec sleep 60")
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    assert os.getsid(child.pid) == child.pid
    assert child.exited() is None


def test_child_that_cannot_start(tmp_path: Path) -> None:
    """R28: the system's word reaches the caller; no descriptor is lost."""
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        EngineProcess([str(tmp_path / "gone")], env=ENV, cwd=str(tmp_path), output=2)
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(
            "trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done", 7, id="listens to SIGINT"
        ),
        pytest.param("echo ready; exec sleep 60", -signal.SIGINT, id="dies of SIGINT"),
    ],
)
def test_stop_is_gentle_first(shell: Shell, script: str, status: int) -> None:
    """R27: an engine that listens ends by itself, at once."""
    child = shell(script)
    assert child.stop()
    assert child.exited() == status


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(
            "trap '' INT; trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done", 8, id="SIGTERM"
        ),
        pytest.param(
            "trap '' INT TERM; echo ready; while :; do sleep 0.05; done", -signal.SIGKILL, id="SIGKILL"
        ),
    ],
)
def test_stop_in_a_hurry(shell: Shell, script: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """R27: asked twice, the steps follow each other without a wait."""
    monkeypatch.setattr(processes, "INTERRUPT_S", 600.0)
    monkeypatch.setattr(processes, "TERMINATE_S", 600.0)
    child = shell(script)
    start, gentle_s = time.monotonic(), 0.5
    assert child.stop(kill_now=lambda: time.monotonic() - start > gentle_s)
    assert time.monotonic() - start < 300
    assert child.exited() in (status, -signal.SIGKILL)


@pytest.mark.parametrize(("deaf", "status"), [("INT", 8), ("INT TERM", -signal.SIGKILL)])
def test_stop_escalates(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: str, status: int
) -> None:
    """R27: without a hurry, the time limit of each step passes, and the next one follows."""
    monkeypatch.setattr(processes, "INTERRUPT_S", 0.3)
    monkeypatch.setattr(processes, "TERMINATE_S", 60.0 if status == 8 else 0.3)
    script = f"trap 'echo bye; exit 8' TERM; trap '' {deaf}; echo ready; while :; do sleep 0.05; done"
    child = shell(script)
    start = time.monotonic()
    assert child.stop()
    assert time.monotonic() - start >= 0.3 * len(deaf.split())
    assert child.exited() == status
    assert printed(tmp_path).endswith("\nbye\n") is (status == 8)


def test_stop_ends_the_whole_group(shell: Shell, tmp_path: Path) -> None:
    """R27: a child that outlives the leader has ended when `stop` returns True."""
    pid_file = tmp_path / "pid"
    child = shell(f"(trap '' INT TERM; sleep 60) & echo $! > {pid_file}; echo ready; wait")
    orphan = int(pid_file.read_text())
    start = time.monotonic()
    assert child.stop(kill_now=lambda: time.monotonic() - start > 0.3)
    assert not lives(orphan)


def test_stop_finds_what_a_dead_leader_left(shell: Shell, tmp_path: Path) -> None:
    """R27: the engine crashed, its helper did not."""
    pid_file = tmp_path / "pid"
    child = shell(f"sleep 60 & echo $! > {pid_file}; echo ready; exit 3")
    until(lambda: child.exited() is not None, "it ends")
    orphan = int(pid_file.read_text())
    assert lives(orphan)
    start = time.monotonic()  # a shell lets what it runs with & ignore SIGINT
    assert child.stop(kill_now=lambda: time.monotonic() - start > 0.3)
    assert not lives(orphan)
    assert child.exited() == 3


def test_stop_twice(shell: Shell) -> None:
    """R14: stopping an engine that has ended does nothing."""
    child = shell("echo ready; exec sleep 60")
    assert child.stop()
    assert child.stop()
