"""What identifies one state of one file. Pure."""

from __future__ import annotations

from typing import NamedTuple


class FileStat(NamedTuple):
    """What identifies one state of one file: a write, a rename, a copy changes it."""

    size: int  # bytes
    mtime_ns: int  # time of the last write, in ns; anyone who may write can set it
    dev: int  # the file system
    ino: int  # the file in it
    ctime_ns: int  # time of the last change in ns; no program can set it (on Windows: of creation)

    def is_same_but_renamed(self, other: FileStat) -> bool:
        """Whether only a rename, which sets the time of the last change, may lie between the two."""
        return self._replace(ctime_ns=0) == other._replace(ctime_ns=0)
