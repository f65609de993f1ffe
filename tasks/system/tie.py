"""Tying an engine to its keeper, so that the system ends the one with the other.

Linux sends a signal, Windows ends a job with its last handle. macOS has neither: there the engine of a keeper
that was killed is found and ended by the next `doit start`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_KILL_ON_JOB_CLOSE = 0x2000  # <winnt.h>, JOBOBJECT_BASIC_LIMIT_INFORMATION
_EXTENDED_LIMIT = 9  # JobObjectExtendedLimitInformation


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
