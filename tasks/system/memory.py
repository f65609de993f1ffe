"""The memory that this process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tasks.system.packages import find_program

_SMI_S = 10.0
_CGROUPS, _MOUNT = "/proc/self/cgroup", "/sys/fs/cgroup"


def total(cgroups: str = _CGROUPS, mount: str = _MOUNT) -> int:
    """Return the bytes of memory of the machine, or of its container if fewer."""
    limits = [limit for limit, _ in _limits(cgroups, mount)]
    return min([_of_machine(), *limits])


def _of_machine() -> int:
    if sys.platform.startswith("linux"):
        # a server waits for this, and psutil takes long to import
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return int(psutil.virtual_memory().total)


def available(cgroups: str = _CGROUPS, mount: str = _MOUNT) -> int:
    """Return the bytes of memory that are available without swapping."""
    import psutil

    free = [limit - used for limit, used in _limits(cgroups, mount)]
    return max(0, min([psutil.virtual_memory().available, *free]))


def gpu_total() -> int:
    """Return the bytes of memory of all NVIDIA GPUs; 0 if there is none."""
    program = find_program("nvidia-smi")
    if not program:
        return 0
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_S, check=True
        )
        return sum(int(line) for line in done.stdout.split()) * 1024**2
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


class _Files(NamedTuple):
    """How a version of control groups names its files and counters."""

    limit: str
    usage: str
    prefix: str  # of the counters in memory.stat


_V1 = _Files("limit_in_bytes", "usage_in_bytes", "total_")
_V2 = _Files("max", "current", "")


def _limits(cgroups: str, mount: str) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes used without page cache) of each control group; Linux only.

    A group's limit applies to the groups below it. In a container, the path may be the
    host's, which is not mounted: then the mount itself is the group of the container.
    """
    with suppress(OSError, ValueError):
        for line in Path(cgroups).read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _limits_above(Path(mount), path, _V2)
            elif "memory" in controllers.split(","):
                yield from _limits_above(Path(mount, "memory"), path, _V1)


def _limits_above(root: Path, path: str, names: _Files) -> Iterator[tuple[int, int]]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        limit = _limit(folder, names)
        if limit:
            yield limit


def _limit(folder: Path, names: _Files) -> tuple[int, int] | None:
    try:
        limit = int((folder / f"memory.{names.limit}").read_text("utf-8"))
    except (OSError, ValueError):  # the limit is `max`, or there is no such controller
        return None
    used = 0
    with suppress(OSError, ValueError):  # gVisor has only the limit
        used = int((folder / f"memory.{names.usage}").read_text("utf-8"))
        used -= _page_cache(folder, names.prefix)
    return limit, used


def _page_cache(folder: Path, prefix: str) -> int:
    lines = (folder / "memory.stat").read_text("utf-8").splitlines()
    counters = dict(line.split() for line in lines)
    kinds = ("active", "inactive")
    return sum(int(counters.get(f"{prefix}{kind}_file", 0)) for kind in kinds)
