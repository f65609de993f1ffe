"""Identify processes so that other processes and machines can check them.

A partial file belongs to the process that holds its lock. This is the second check, for
NFS and other shared disks on which locks do not work.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

from tasks.system.process_id import MARK_VARIABLE, ProcessId, is_mark

SAME_S = 2.0  # two readings of one start time differ less, even if the clock was set
LEASE_S = 60.0  # age of its journal at which an owner on another machine counts as dead
NEAR_LEASE_S = 20.0  # the same for another container of this machine, with its clock


def current() -> ProcessId:
    """Identify this process for all machines, as the owner of a journal."""
    pid = os.getpid()
    started = _started(pid) or 0.0
    return ProcessId(pid, started, this_boot(), pid_namespace(), host=platform.node())


def may_be_writing(owner: ProcessId, journal: str) -> bool:
    """Return whether an owner, other than this process, may still be writing.

    A process of this container is looked up by its pid. For another container or
    machine, the age of the journal decides: an owner writes it every few seconds.
    """
    me = current()
    if owner.boot != me.boot:
        # the same host with another boot: this machine has restarted since
        return owner.host != me.host and _is_recent(journal, LEASE_S)
    if owner.space not in ("", me.space):
        return _is_recent(journal, NEAR_LEASE_S)
    started = _started(owner.pid)
    if owner == me or started is None:
        return False
    return abs(started - owner.started) < SAME_S


def _is_recent(journal: str, lease_s: float) -> bool:
    try:
        modified = os.lstat(journal).st_mtime
    except OSError:
        return False
    return abs(time.time() - modified) < lease_s  # the owner's clock may be ahead


def this_boot() -> str:
    """Return an identifier of this boot, which the containers of a machine share."""
    identifier = boot_id()
    if identifier:
        return identifier
    import psutil

    return f"{platform.node()} since {psutil.boot_time():.0f}"


def boot_id() -> str:
    """Return Linux' identifier of this boot; "" elsewhere.

    Other systems only report the time of the boot, which moves when the clock is set.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process(pid: int) -> ProcessId:
    """Identify a process of this machine, for `lives`."""
    started = _started(pid) or 0.0
    return ProcessId(pid, started, boot_id(), pid_namespace(), _start_ticks(pid))


def _start_ticks(pid: int) -> int:
    """Read when a process started, in clock ticks since the boot; 0 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[19])  # field 22 of proc(5)
    except (OSError, ValueError, IndexError):
        return 0


def pid_namespace() -> str:
    """Return the pid namespace of this process; a container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_alive(known: ProcessId | None) -> bool:
    """Return whether this very process runs here, and not another with its pid."""
    if known is None or known.boot != boot_id():
        return False
    return _is_same_start(known) and is_running(known.pid)


def _is_same_start(known: ProcessId) -> bool:
    """Return whether the process that has this pid now started at the known time."""
    if known.start_ticks:
        return _start_ticks(known.pid) == known.start_ticks
    started = _started(known.pid)
    if started is None:
        return False
    # Linux computes it from a clock that may be set; a record of an earlier version has
    # nothing better
    tolerance = SAME_S if sys.platform == "linux" else 0.0
    return abs(started - known.started) <= tolerance


def protected_pids() -> frozenset[int]:
    """Return the pids that are never ended: the first processes, and this one."""
    return frozenset((0, 1, os.getpid()))


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def find_marked(mark: str) -> list[Any]:
    """Return psutil's object of each process whose environment has a run's marker.

    The marker is random, so these are an engine and its descendants, wherever they have
    moved. A value that is not a marker matches nothing: most processes do not have the
    variable, and an empty value must not select them.
    """
    import psutil

    if not is_mark(mark):
        return []
    return [process for process in psutil.process_iter() if _has_mark(process, mark)]


def _has_mark(process: Any, mark: str) -> bool:
    import psutil

    if process.pid in protected_pids():
        return False
    try:
        return bool(process.environ().get(MARK_VARIABLE) == mark)
    except (psutil.Error, OSError, ValueError):  # another user's, or it has ended
        return False


def _started(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None
