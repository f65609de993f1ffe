"""Run programs: one short command, or an engine with everything that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tasks.system.signals import handle_signals

TYPE_CHECKING = False  # typing takes longer to import than the rest of a supervisor
if TYPE_CHECKING:
    from typing import Any

    from tasks.system.exit_status import ProcessExit

# Time limits of the three steps of a stop; llamafile 0.10 sleeps 1 s in its handler.
INTERRUPT_S = 5.0
TERMINATE_S = 5.0
KILL_S = 5.0
# The first run unpacks a loader, and a virus scanner may read the whole file.
VERSION_S = 120.0
TAIL_LINES = 15  # lines of output that an error message shows
TAIL_BYTES = 16 * 1024  # bytes of output from which these are taken

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_POLL_S = 0.02
_LAST_WORDS_S = 2.0  # to read what is left in the pipe of a program that has ended
_INTERRUPT: Any = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    timeout_s: float = VERSION_S,
) -> ProcessExit:
    """Run a program to its end; keep the last lines of its output.

    After the time limit its whole process group is killed, also if it still prints.

    Raises:
        OSError: the program cannot be started.
    """
    from tasks.system.exit_status import ProcessExit

    deadline = time.monotonic() + timeout_s
    held: list[int] = []
    # a handler that raises between fork and assignment would lose the child
    with handle_signals(held.append):
        child = _start(command, env, cwd, output=subprocess.PIPE)
    tail = _Tail(child.stdout)
    status = None
    try:
        tail.start()
        for number in held:
            signal.raise_signal(number)
        status = _wait(child, tail, deadline)
    finally:
        if status is None:
            _kill_group(child)
        child.wait()
        if tail.ident:
            # a program that has left the group may keep the pipe open for ever
            tail.join(_LAST_WORDS_S)
    return ProcessExit(list(command), status, last_lines(tail.data))


def ask(command: Sequence[str], question: bytes, timeout_s: float) -> bytes:
    """Run a program that reads a question and prints an answer, of 16 KiB at most.

    Returns:
        Empty if it fails, or outlasts the time limit, at which it is killed.

    Raises:
        OSError: it cannot be started.
    """
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, start_new_session=True, **options
    )
    tail = _Tail(child.stdout)
    stdin: Any = child.stdin
    status = None
    try:
        tail.start()
        with suppress(OSError), stdin as pipe:  # it may end without reading
            pipe.write(question)
        status = _wait(child, tail, time.monotonic() + timeout_s)
    finally:
        if status is None:
            _kill_group(child)
        child.wait()
    if status != 0:
        return b""
    return tail.data


def _start(
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    output: int,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own.

    The terminal's Ctrl-C reaches only the recipe, and the whole group can be killed.
    """
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        options["start_new_session"] = True
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(env),
        cwd=cwd,
        **options,
    )


def _wait(
    child: subprocess.Popen[bytes], tail: threading.Thread, deadline: float
) -> int | None:
    """Return the exit status; None if program or output outlast the deadline."""
    try:
        status = child.wait(_left(deadline))
    except subprocess.TimeoutExpired:
        return None
    tail.join(_left(deadline))
    if tail.is_alive():  # a process that it has started still holds its output
        return None
    return status


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


class _Tail(threading.Thread):
    """Read all output of a program; keep the end of it."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self.data = b""

    def run(self) -> None:
        with self._pipe:
            while block := self._pipe.read1(TAIL_BYTES):
                self.data = (self.data + block)[-TAIL_BYTES:]


def last_lines(output: bytes) -> str:
    """Return the last lines of a program's output without control characters."""
    text = output[-TAIL_BYTES:].decode("utf-8", "replace").replace("\r", "\n")
    clean = "".join(c for c in text if c in "\n\t" or c.isprintable())
    lines = [line for line in clean.splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])


class EngineProcess:
    """A running engine in a process group of its own.

    It ends with this process where the system offers that (Linux, Windows).

    Args:
        output: descriptor that receives its output.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, output: int
    ) -> None:
        hook = parent_death_hook()
        self._popen = _start(command, env, cwd, output, preexec_fn=hook)
        self.pid = self._popen.pid
        self._job = 0
        handle = getattr(self._popen, "_handle", None)  # Windows only
        if handle is not None:
            from tasks.system.windows_job import assign_kill_on_close_job

            self._job = assign_kill_on_close_job(int(handle))

    def wait(self) -> int:
        """Wait until it ends; return the exit status."""
        return self._popen.wait()

    def exited(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def terminate(self, limit_s: float, kill_now: Callable[[], bool]) -> None:
        """Send SIGTERM to the group, and wait until it has ended.

        Args:
            kill_now: returns True to wait no longer.
        """
        _signal_group(self._popen, signal.SIGTERM)
        self._wait_gone(limit_s, kill_now)

    def stop(self, kill_now: Any = lambda: False) -> bool:
        """Stop the whole group: interrupt, terminate, kill, each with a time limit.

        Args:
            kill_now: returns True to skip the waits and kill at once.

        Returns:
            Whether no process of the group is left.
        """
        steps = ((_INTERRUPT, INTERRUPT_S), (signal.SIGTERM, TERMINATE_S))
        for number, limit_s in steps:
            if self._gone():
                return True
            _signal_group(self._popen, number)
            self._wait_gone(limit_s, kill_now)
        if not self._gone():
            _kill_group(self._popen)
            self._wait_gone(KILL_S, lambda: False)
        return self._gone()

    def _wait_gone(self, limit_s: float, kill_now: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit_s
        while not self._gone() and time.monotonic() < deadline and not kill_now():
            time.sleep(_POLL_S)

    def _gone(self) -> bool:
        return self._popen.poll() is not None and not _members(self.pid)


def _signal_group(child: subprocess.Popen[bytes], number: Any) -> None:
    with suppress(OSError):  # the group has ended
        if sys.platform == "win32":
            child.send_signal(number)
        else:
            os.killpg(child.pid, number)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    if sys.platform != "win32":
        _signal_group(child, signal.SIGKILL)
        return
    with suppress(OSError):
        for process in _members(child.pid):
            process.kill()
        child.kill()


def _members(pid: int) -> list[Any]:
    """Return the running processes of a group; on Windows the leader's descendants.

    Args:
        pid: of the process that leads the group.
    """
    import psutil

    if sys.platform == "win32":
        try:
            children = psutil.Process(pid).children(recursive=True)
            return [process for process in children if process.is_running()]
        except psutil.Error:
            return []
    else:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return []
        except PermissionError:  # macOS, for a group of zombies
            pass
        return [process for process in psutil.process_iter() if _is_in(process, pid)]


def _is_in(process: Any, group: int) -> bool:
    """Return whether a process runs and belongs to a group."""
    import psutil

    if sys.platform == "win32":
        return False
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return os.getpgid(process.pid) == group
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


def parent_death_hook(platform: str = sys.platform) -> Callable[[], None] | None:
    """Return a hook between fork and exec: SIGKILL when the parent's thread ends."""
    if not platform.startswith("linux"):
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return tie
