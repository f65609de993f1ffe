"""An engine ends with its supervisor on Linux and Windows: the system calls."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from typing import Any

import pytest
from tasks.system import processes, windows_job

from tests.support.project import REPO

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="speaks of Linux's prctl")
# Source: <winnt.h>
KILL_ON_JOB_CLOSE, EXTENDED_LIMIT_INFORMATION = 0x2000, 9
JOB, PROCESS = 0x1_0000_0010, 0x1_0000_0020  # handles that an int of 32 bits would cut off


class Kernel:
    """A fake of kernel32's job functions that records calls and can refuse one."""

    def __init__(self, refuses: str = "", job: int | None = JOB) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._refuses, self._job = refuses, job

    def CreateJobObjectW(self, attributes: Any, name: Any) -> int | None:
        self.calls.append(("create", attributes, name))
        return None if self._refuses == "create" else self._job

    def SetInformationJobObject(self, job: Any, kind: int, pointer: Any, size: int) -> int:
        limits = pointer._obj
        raw = bytes(limits)
        assert size == len(raw) == ctypes.sizeof(limits)
        self.calls.append(("set", job.value, kind, size, limits.flags, raw))
        return 0 if self._refuses in ("create", "set") else 1

    def AssignProcessToJobObject(self, job: Any, process: Any) -> int:
        self.calls.append(("assign", job.value, process.value))
        return 0 if self._refuses in ("create", "assign") else 1


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the size is that of 64 bits")
def test_a_job_that_ends_with_its_handle() -> None:
    """R27: Windows ends what is in a job when its last handle is closed, and the system closes ours."""
    kernel = Kernel()
    assert windows_job.assign_kill_on_close_job(PROCESS, kernel) == JOB
    create, put, assign = kernel.calls
    assert create == ("create", None, None)
    assert put[:5] == ("set", JOB, EXTENDED_LIMIT_INFORMATION, 144, KILL_ON_JOB_CLOSE)
    # Source: JOBOBJECT_BASIC_LIMIT_INFORMATION has two times of 8 bytes before its LimitFlags
    raw = put[5]
    assert int.from_bytes(raw[16:20], "little") == KILL_ON_JOB_CLOSE
    assert raw[:16] + raw[20:] == bytes(140)
    assert assign == ("assign", JOB, PROCESS)


@pytest.mark.parametrize("what", ["create", "set", "assign"])
def test_windows_refuses_a_job(what: str) -> None:
    """R27: an old Windows in another job has none; the engine then runs without."""
    kernel = Kernel(refuses=what)
    assert windows_job.assign_kill_on_close_job(PROCESS, kernel) == 0
    if what == "set":
        assert "assign" not in [call[0] for call in kernel.calls]  # a job without its limit would end nothing


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14", "cygwin"])
def test_only_linux_sends_a_signal(platform: str) -> None:
    """Elsewhere there is nothing to do between fork and exec."""
    assert processes.parent_death_hook(platform) is None


@linux
def test_linux_has_it() -> None:
    """Also where Python says which Linux."""
    assert callable(processes.parent_death_hook("linux"))
    assert callable(processes.parent_death_hook())


GET = """
import ctypes
number = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
print(number.value)
"""


@linux
def test_the_signal_is_set_in_the_child() -> None:
    """R27: SIGKILL, which cannot be ignored, and which survives the child's exec."""
    words = [sys.executable, "-c", GET]
    tied = subprocess.run(
        words, preexec_fn=processes.parent_death_hook(), capture_output=True, text=True, check=True
    )
    assert int(tied.stdout) == signal.SIGKILL
    free = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(free.stdout) == 0


ORPHAN = """
import os, sys, time
from tasks.system import processes, windows_job
tied, parent = processes.parent_death_hook(), os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    tied()
    os.write(1, b"still here")
"""


@linux
def test_a_parent_that_is_gone_already() -> None:
    """R27: it died between fork and this: no signal will come, so the child ends itself."""
    done = subprocess.run([sys.executable, "-c", ORPHAN], cwd=REPO, capture_output=True, timeout=30)
    assert (done.stdout, done.stderr) == (b"", b"")  # at its end, when nobody holds the pipe any more
