"""An engine's log: written within a limit, and read while it is written."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

BEFORE = ".before"  # what the log of the run before is called
LIMIT = 10 * 1024 * 1024  # bytes of one file; the one before it is kept beside it as .1
_BLOCK = 64 * 1024
_POLL_S = 0.2  # between two looks of `follow`


class RotatingLog:
    """A log that never takes more than twice its limit; readable by its owner only.

    The one of the run before is kept aside. A full disk costs lines of the log, never the engine.
    """

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._handle, self._size = -1, 0
        with contextlib.suppress(OSError):  # of an earlier run, whose words would explain nothing of this one
            os.replace(path, f"{path}{BEFORE}")
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.1")
        self._next()

    def write(self, data: bytes) -> None:
        """Append; begin a new file where the limit is reached."""
        try:
            if self._handle < 0 or (self._size and self._size + len(data) > self._limit):
                self._next()
            while data:
                count = os.write(self._handle, data)
                self._size, data = self._size + count, data[count:]
        except OSError:
            pass

    def _next(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if os.path.exists(self._path):
            os.replace(self._path, f"{self._path}.1")
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._size = 0


def tail(path: str, size: int) -> bytes:
    """The last `size` bytes, going back into the file before; empty where there is no log."""
    data = b""
    for name in (path, f"{path}.1"):
        try:
            with open(name, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - (size - len(data))))
                data = file.read() + data
        except OSError:
            pass
        if len(data) >= size:
            break
    return data[-size:]


class Mark(NamedTuple):
    """A place in a log that may get another file meanwhile."""

    file: int  # its inode
    offset: int


def last_lines(path: str, count: int | None) -> tuple[bytes, Mark]:
    """The last lines of a log, all of them for None; and where it ends, for `follow`.

    Raises OSError: there is no log.
    """
    with open(path, "rb") as file:
        now = file.read()
        end = Mark(os.fstat(file.fileno()).st_ino, file.tell())
    lines = now.splitlines(keepends=True)
    if count is None or len(lines) < count:
        lines = tail(f"{path}.1", 2 * LIMIT).splitlines(keepends=True) + lines
    return b"".join(lines if count is None else lines[len(lines) - min(count, len(lines)) :]), end


def follow(path: str, mark: Mark, alive: Callable[[], bool]) -> Iterator[bytes]:
    """What is appended from a place on, also into the next file, until the writer is gone."""
    name = path if os.stat(path).st_ino == mark.file else f"{path}.1"  # there was a new one in between
    file = open(name, "rb")  # noqa: SIM115  # it changes on the way
    try:
        if os.fstat(file.fileno()).st_ino == mark.file:
            file.seek(mark.offset)
        while True:
            more = alive()  # both before the read, so that what came last is read
            replaced = _replaced(path, file.fileno())
            block = file.read(_BLOCK)
            if block:
                yield block
            elif replaced:
                file.close()
                file = open(path, "rb")  # noqa: SIM115
            elif not more:
                return
            else:
                time.sleep(_POLL_S)
    finally:
        file.close()


def _replaced(path: str, handle: int) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:  # between two files
        return False
