"""Read an engine's log, also while it is written (rotating_log.py)."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from tasks.server.rotating_log import ROTATED

_BLOCK = 64 * 1024
_POLL_S = 0.2  # between two reads of `follow`
_ATTEMPTS = 10  # to open a file that is being created
_RETRY_S = 0.02


def tail(path: str, size: int) -> bytes:
    """Return the last `size` bytes of both files; empty without a log."""
    data = b""
    for name in (path, f"{path}{ROTATED}"):
        try:
            with open(name, "rb") as file:
                length = os.fstat(file.fileno()).st_size
                file.seek(max(0, length - (size - len(data))))
                data = file.read() + data
        except OSError:
            pass
        if len(data) >= size:
            break
    return data[-size:]


class LogPosition(NamedTuple):
    """A position in a log, which may be rotated later."""

    file: int  # its inode
    offset: int


def last_lines(path: str, count: int | None) -> tuple[bytes, LogPosition]:
    """Return the last lines of a log, and its end as the start for `follow`.

    Args:
        count: number of lines; None returns all of them.

    Raises:
        OSError: there is no log.
    """
    earlier, newest = _open_both(path)
    with newest, earlier or contextlib.nullcontext():
        content = newest.read()
        end = LogPosition(os.fstat(newest.fileno()).st_ino, newest.tell())
        lines = content.splitlines(keepends=True)
        if earlier and (count is None or len(lines) < count):
            lines = earlier.read().splitlines(keepends=True) + lines
    if count is not None:
        lines = lines[max(0, len(lines) - count) :]
    return b"".join(lines), end


def follow(path: str, mark: LogPosition, alive: Callable[[], bool]) -> Iterator[bytes]:
    """Open a log; yield what is appended after a position, until the writer has ended.

    A reader that is slow misses lines only if the writer fills both files meanwhile.

    Args:
        mark: the position; the log may have been rotated since.
        alive: returns whether the writer still runs.

    Raises:
        OSError: there is no log.
    """
    return _follow(path, _open_at(path, mark), alive)


def _follow(path: str, file: BinaryIO, alive: Callable[[], bool]) -> Iterator[bytes]:
    try:
        while True:
            # both are checked before the read, so that the last bytes are not missed
            running = alive()
            replaced = _is_file(path, file) is False
            block = file.read(_BLOCK)
            if block:
                yield block
            elif replaced:
                newer = _newer(path, file)
                file.close()
                file = newer
            elif not running:
                return
            else:
                time.sleep(_POLL_S)
    finally:
        file.close()


def _open_at(path: str, mark: LogPosition) -> BinaryIO:
    """Open the file of a position, at the position.

    If it does not exist any more, open the oldest file.
    """
    for name in (path, f"{path}{ROTATED}"):
        file = _open(name)
        if file and os.fstat(file.fileno()).st_ino == mark.file:
            file.seek(mark.offset)
            return file
        if file:
            file.close()
    earlier, newest = _open_both(path)
    if not earlier:
        return newest
    newest.close()
    return earlier


def _newer(path: str, file: BinaryIO) -> BinaryIO:
    """Open the file that follows a rotated one.

    This is the earlier of both files if the log has been rotated more than once.
    """
    earlier, newest = _open_both(path)
    if not earlier:
        return newest
    if os.path.samestat(os.fstat(earlier.fileno()), os.fstat(file.fileno())):
        earlier.close()
        return newest
    newest.close()
    return earlier


def _open_both(path: str) -> tuple[BinaryIO | None, BinaryIO]:
    """Open both files of a log, of which the first one precedes the other directly.

    Raises:
        OSError: there is no log.
    """
    attempts = _ATTEMPTS
    while True:
        newest = _open(path)
        earlier = _open(f"{path}{ROTATED}")
        if newest and _is_file(path, newest):
            return earlier, newest
        if newest:  # rotated meanwhile: `earlier` may be the same file
            newest.close()
        elif not earlier:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        elif not attempts:  # on a full disk, no next file can be created
            return None, earlier
        else:  # between the rename and the creation of the next file
            attempts -= 1
            time.sleep(_RETRY_S)
        if earlier:
            earlier.close()


def _open(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _is_file(path: str, file: BinaryIO) -> bool | None:
    """Whether a path is that of an open file; None if it does not exist."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return None
