"""End a process, and what it starts, with this process: a job of Windows."""

from __future__ import annotations

import ctypes
from typing import Any

_KILL_ON_JOB_CLOSE = 0x2000  # <winnt.h>, JOBOBJECT_BASIC_LIMIT_INFORMATION
_EXTENDED_LIMIT = 9  # JobObjectExtendedLimitInformation


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


def assign_kill_on_close_job(process_handle: int, kernel: Any = None) -> int:
    """Put a process into a Windows job, which ends when its handle is closed.

    Processes that it starts are in the job as well.

    Args:
        kernel: kernel32; tests pass a fake.

    Returns:
        The job's handle; 0 if Windows refuses (an old version, inside another job).
    """
    if kernel is None:
        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = int(kernel.CreateJobObjectW(None, None) or 0)
    pointer = ctypes.c_void_p(job)
    limits = ctypes.byref(_Limits(flags=_KILL_ON_JOB_CLOSE))
    size = ctypes.sizeof(_Limits)
    if not kernel.SetInformationJobObject(pointer, _EXTENDED_LIMIT, limits, size):
        return 0
    if not kernel.AssignProcessToJobObject(pointer, ctypes.c_void_p(process_handle)):
        return 0
    return job
