"""Memory: what this process may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS, _MOUNT = "/proc/self/cgroup", "/sys/fs/cgroup"


def total(cgroups: str = _CGROUPS, mount: str = _MOUNT) -> int:
    """Bytes of memory that this process may use: the machine's, or what its container has of it."""
    import psutil

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _limits(cgroups, mount))])


def available(cgroups: str = _CGROUPS, mount: str = _MOUNT) -> int:
    """Bytes of memory that can be had now, without swapping."""
    import psutil

    free = [limit - used for limit, used in _limits(cgroups, mount)]
    return max(0, min([psutil.virtual_memory().available, *free]))


def _limits(cgroups: str, mount: str) -> Iterator[tuple[int, int]]:
    """(limit, used without the page cache) of each control group that this process is in; on Linux alone.

    A group's limit holds for those below it. In a container the path may be that of the host, which is not
    mounted: then the mount itself is the container's group.
    """
    with suppress(OSError, ValueError):
        for line in Path(cgroups).read_text("utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = Path(mount, "memory") if kinds else Path(mount)
            names = ("limit_in_bytes", "usage_in_bytes", "total_") if kinds else ("max", "current", "")
            inner = root / path.lstrip("/")
            for group in (inner, *inner.parents):
                if group.is_relative_to(root) and (found := _group(group, *names)):
                    yield found


def _group(folder: Path, limit: str, used: str, prefix: str) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):  # `max`, or no controller there
        most = int((folder / f"memory.{limit}").read_text("utf-8"))
        now = 0
        with suppress(OSError, ValueError):  # gVisor has the limit alone
            now = int((folder / f"memory.{used}").read_text("utf-8"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
            now -= sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        return most, now
    return None
