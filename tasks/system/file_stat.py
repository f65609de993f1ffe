"""The metadata that identifies one version of one file. Pure."""

from __future__ import annotations

from typing import NamedTuple


class FileStat(NamedTuple):
    """Identify one version of one file: a write, a rename or a copy changes it."""

    size: int  # bytes
    mtime_ns: int  # last write, in ns; any program that may write can set it
    dev: int  # the file system
    ino: int  # the file in that file system
    ctime_ns: int  # last change, in ns; no program can set it (on Windows: creation)

    def is_same_but_renamed(self, other: FileStat) -> bool:
        """Return whether at most a rename, which sets ctime, separates the two."""
        return self._replace(ctime_ns=0) == other._replace(ctime_ns=0)
