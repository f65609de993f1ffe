"""Who is writing a partial file, and what runs, in a form that another process or machine can check.

For partial files locks are the first answer, and this is the second: locks lie on NFS and other shared disks.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

from tasks.system.process_id import MARK_VARIABLE, Owner, Process, is_mark

SAME_S = 2.0  # two readings of one start may differ by so much, when the clock was set between them
LEASE_S = 60.0  # a journal that another machine has not touched for so long has no owner any more
NEAR_LEASE_S = 20.0  # the same for another container of this machine: it has the same clock


def myself() -> Owner:
    """This process."""
    pid = os.getpid()
    return Owner(platform.node(), this_boot(), pid, _started(pid) or 0.0, this_space())


def is_alive(owner: Owner, journal: str) -> bool:
    """Whether that owner, if it is not this process, may still be writing.

    By its process where its pid can be seen; on another machine, and in another container of this one, by
    the age of what it writes every few seconds.
    """
    me = myself()
    if owner.boot == me.boot and owner.space not in ("", me.space):
        return _is_young(journal, NEAR_LEASE_S)
    if owner.boot == me.boot:
        started = _started(owner.pid)
        return owner != me and started is not None and abs(started - owner.started) < SAME_S
    if owner.host == me.host:  # before a restart of this machine
        return False
    return _is_young(journal, LEASE_S)


def _is_young(journal: str, lease_s: float) -> bool:
    try:
        return abs(time.time() - os.lstat(journal).st_mtime) < lease_s  # its clock may be ahead of ours
    except OSError:
        return False


def this_boot() -> str:
    """What is the same until this machine starts anew, in its containers too."""
    if found := boot_id():
        return found
    import psutil

    return f"{platform.node()} since {psutil.boot_time():.0f}"


def boot_id() -> str:
    """Linux' name of this boot. Elsewhere nothing: there the time of the boot moves when the clock is set."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process(pid: int) -> Process:
    """A process of this machine, as it can be found again."""
    return Process(pid, _started(pid) or 0.0, boot_id(), this_space(), _start_ticks(pid))


def _start_ticks(pid: int) -> int:
    """Read when a process started, in the kernel's count since the boot; 0 where it does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])  # field 22 of proc(5)
    except (OSError, ValueError, IndexError):
        return 0


def this_space() -> str:
    """The namespace in which our pids count: a container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def lives(known: Process | None) -> bool:
    """Whether that process, and no other with its pid, runs here."""
    if known is None or known.boot != boot_id():
        return False
    return _has_started(known) and is_running(known.pid)


def _has_started(known: Process) -> bool:
    """Whether the process with that pid has started exactly then."""
    if known.start_ticks:
        return _start_ticks(known.pid) == known.start_ticks
    started = _started(known.pid)
    if started is None:
        return False
    # Linux computes it from a clock that may be set; a record of an earlier version has nothing better
    tolerance = SAME_S if sys.platform == "linux" else 0.0
    return abs(started - known.started) <= tolerance


def _never() -> frozenset[int]:
    """Pids that are never ended: the first process, and this one."""
    return frozenset((0, 1, os.getpid()))


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent has not heard of it does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def marked(mark: str) -> list[Any]:
    """Every process that has a run's mark in its environment, wherever it has gone: psutil's objects.

    The mark is random, so these are an engine and what it started, and nobody else's. Whatever is
    not a mark finds nothing: most processes have no such variable, and must not be equal to that.
    """
    import psutil

    if not is_mark(mark):
        return []
    found = []
    for one in psutil.process_iter():
        try:
            if one.pid not in _never() and one.environ().get(MARK_VARIABLE) == mark:
                found.append(one)
        except (psutil.Error, OSError, ValueError):  # another user's, or gone
            continue
    return found


def _started(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError):
        return None
