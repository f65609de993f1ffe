"""Processes: one short run, one engine with everything it starts, and its tie to the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tasks.system.exit_status import Ending
from tasks.system.signals import on_signals

# The stop's three steps with the seconds each may take; llamafile 0.10 sleeps 1 s in its own handler
INTERRUPT_S = 5.0
TERMINATE_S = 5.0
KILL_S = 5.0
VERSION_S = 120.0  # `--version` of a first run unpacks a loader, and a virus scanner reads the whole file
TAIL_LINES = 15  # of the engine's output, shown when it fails

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_KILL_ON_JOB_CLOSE = 0x2000  # <winnt.h>, JOBOBJECT_BASIC_LIMIT_INFORMATION
_EXTENDED_LIMIT = 9  # JobObjectExtendedLimitInformation

_POLL_S = 0.02
_LAST_WORDS_S = 2.0  # for what is in the pipe of a program that has ended
TAIL_BYTES = 16 * 1024  # of output, of which the last lines are shown


def run(command: Sequence[str], *, env: Mapping[str, str], cwd: str, timeout_s: float = VERSION_S) -> Ending:
    """Run a program to its end and keep the end of what it prints.

    Past the time limit its whole group is ended, also where it prints without end.
    """
    held: list[int] = []
    deadline = time.monotonic() + timeout_s
    with on_signals(held.append):  # what they raise must not strike before anybody knows the child
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(env), cwd=cwd, **_own_group(),
        )  # fmt: skip
    tail, status, ended = _Tail(child.stdout), None, False
    try:
        tail.start()
        for number in held:
            signal.raise_signal(number)
        with suppress(subprocess.TimeoutExpired):
            status = child.wait(_left(deadline))
            tail.join(_left(deadline))
            ended = not tail.is_alive()  # else what it has started has its output still
    finally:
        if not ended:
            _signal_group(child, kill=True)
        child.wait()
        if tail.ident:
            tail.join(_LAST_WORDS_S)  # a program that has left the group may hold the pipe for ever
    return Ending(list(command), status if ended else None, last_lines(tail.data))


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


class _Tail(threading.Thread):
    """Reads what a program prints and keeps the end of it, however much that is."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(daemon=True)
        self._pipe, self.data = pipe, b""

    def run(self) -> None:
        with self._pipe:
            while block := self._pipe.read1(TAIL_BYTES):
                self.data = (self.data + block)[-TAIL_BYTES:]


def last_lines(output: bytes) -> str:
    """The end of what a program printed, fit to be shown."""
    text = output[-TAIL_BYTES:].decode("utf-8", "replace").replace("\r", "\n")
    clean = "".join(c for c in text if c == "\n" or c == "\t" or c.isprintable())
    return "\n".join([line for line in clean.splitlines() if line.strip()][-TAIL_LINES:])


class Child:
    """A running engine: a process group of its own that ends with us, where the system offers that.

    Args:
        output: descriptor that gets what it prints.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, output: int) -> None:
        self._popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(env), cwd=cwd,
            preexec_fn=dies_with_parent(), **_own_group(),
        )  # fmt: skip
        self.pid = self._popen.pid
        handle = getattr(self._popen, "_handle", None)  # Windows alone has one
        self._job = 0 if handle is None else job_of(int(handle))

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        return self._popen.wait()

    def exited(self) -> int | None:
        """Exit status, negative for a signal; None while it lives."""
        return self._popen.poll()

    def stop(self, hurry: Any = lambda: False) -> bool:
        """End the whole group: interrupt, terminate, kill, each with its time limit.

        Args:
            hurry: says True when there is no more time for the gentle steps.

        Returns:
            Whether everything is gone.
        """
        for kill, ask, limit in (
            (False, _INTERRUPT, INTERRUPT_S),
            (False, signal.SIGTERM, TERMINATE_S),
            (True, signal.SIGTERM, KILL_S),
        ):
            if self._gone():
                return True
            _signal_group(self._popen, kill=kill, ask=ask)
            deadline = time.monotonic() + limit
            while not self._gone() and time.monotonic() < deadline and (kill or not hurry()):
                time.sleep(_POLL_S)
        return self._gone()

    def _gone(self) -> bool:
        return self._popen.poll() is not None and not _members(self.pid)


_INTERRUPT: Any = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


def _own_group() -> dict[str, Any]:
    """A group of its own: the terminal's Ctrl-C reaches us alone, and the whole group can be ended."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _signal_group(child: subprocess.Popen[bytes], *, kill: bool, ask: Any = signal.SIGTERM) -> None:
    try:
        if sys.platform != "win32":
            os.killpg(child.pid, signal.SIGKILL if kill else ask)
        elif kill:
            for process in _members(child.pid):
                process.kill()
            child.kill()
        else:
            child.send_signal(ask)
    except (ProcessLookupError, PermissionError, OSError):
        pass  # it is gone already; `_gone` says whether it is


def _members(pid: int) -> list[Any]:
    """The living processes of the group that `pid` leads; on Windows its descendants."""
    import psutil

    if sys.platform == "win32":
        try:
            return [p for p in psutil.Process(pid).children(recursive=True) if p.is_running()]
        except psutil.Error:
            return []
    else:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return []
        except PermissionError:  # macOS says so of a group of zombies
            pass
        return [p for p in psutil.process_iter() if _lives_in(p, pid)]


def _lives_in(process: Any, group: int) -> bool:
    import psutil

    if sys.platform == "win32":
        return False
    try:
        zombie: bool = process.status() == psutil.STATUS_ZOMBIE
        return os.getpgid(process.pid) == group and not zombie
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


def dies_with_parent(platform: str = sys.platform) -> Callable[[], None] | None:
    """What a child has to do between fork and exec: have SIGKILL sent when its parent's thread ends."""
    if not platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has died in between
            os._exit(1)

    return tie


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION, of which only the flags are used."""

    _fields_ = [  # as ctypes wants it
        ("times", ctypes.c_int64 * 2),
        ("flags", ctypes.c_uint32),
        ("working_set", ctypes.c_size_t * 2),
        ("processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("classes", ctypes.c_uint32 * 2),
        ("io", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    ]


def job_of(process_handle: int, kernel: Any = None) -> int:
    """A Windows job with one process and whatever that starts; they end when the handle is closed.

    Args:
        kernel: kernel32, for tests.

    Returns:
        The job's handle; 0 where Windows refuses (an old one inside another job).
    """
    if kernel is None:
        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = kernel.CreateJobObjectW(None, None) or 0
    limits = _Limits(flags=_KILL_ON_JOB_CLOSE)
    size = ctypes.sizeof(limits)
    pointer = ctypes.c_void_p(job)
    done = kernel.SetInformationJobObject(pointer, _EXTENDED_LIMIT, ctypes.byref(limits), size)
    fits = done and kernel.AssignProcessToJobObject(pointer, ctypes.c_void_p(process_handle))
    return int(job) if fits else 0
