"""Memory: what this process may use, and what a model file says of its own need."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

from tasks.planning import gguf

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member; its name and its extra field follow
_CGROUPS, _MOUNT = "/proc/self/cgroup", "/sys/fs/cgroup"


def metadata(path: str) -> gguf.Meta | None:
    """What a .gguf file says, or the model inside a llamafile; None where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            is_gguf = stream.read(4) == b"GGUF"
            stream.seek(0 if is_gguf else _inside(stream))
            return gguf.read(stream)
    except (OSError, ValueError, OverflowError, gguf.BadGguf):
        return None
    except (zipfile.BadZipFile, NotImplementedError, struct.error):  # of a zip that is none, or too new
        return None


def _inside(stream: BinaryIO) -> int:
    """Where the model's bytes begin in a llamafile, which is also a zip that stores them as they are.

    Raises BadZipFile: it is no zip. ValueError: it has no such member.
    """
    with closing(zipfile.ZipFile(stream)) as box:
        stored = [one for one in box.infolist() if one.compress_type == zipfile.ZIP_STORED]
    # the largest: a vision projector is a .gguf as well. max() raises ValueError where there is none
    model = max((one for one in stored if one.filename.endswith(".gguf")), key=lambda one: one.file_size)
    stream.seek(model.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    return model.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


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
