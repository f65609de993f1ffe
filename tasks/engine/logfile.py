"""Read an engine's log, also while it is written (rotating_log.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tasks.engine.rotating_log import LIMIT, ROTATED

_BLOCK = 64 * 1024
_POLL_S = 0.2  # between two reads of `follow`


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
    with open(path, "rb") as file:
        content = file.read()
        end = LogPosition(os.fstat(file.fileno()).st_ino, file.tell())
    lines = content.splitlines(keepends=True)
    if count is None or len(lines) < count:
        lines = tail(f"{path}{ROTATED}", 2 * LIMIT).splitlines(keepends=True) + lines
    if count is not None:
        lines = lines[max(0, len(lines) - count) :]
    return b"".join(lines), end


def follow(path: str, mark: LogPosition, alive: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is appended after a position, until the writer has ended.

    Args:
        mark: the position; the log may have been rotated once since.
        alive: returns whether the writer still runs.
    """
    name = path
    if os.stat(path).st_ino != mark.file:
        name = f"{path}{ROTATED}"
    file = open(name, "rb")  # noqa: SIM115  # it is replaced at a rotation
    try:
        if os.fstat(file.fileno()).st_ino == mark.file:
            file.seek(mark.offset)
        while True:
            # both are checked before the read, so that the last bytes are not missed
            running = alive()
            replaced = _replaced(path, file.fileno())
            block = file.read(_BLOCK)
            if block:
                yield block
            elif replaced:
                file.close()
                file = open(path, "rb")  # noqa: SIM115
            elif not running:
                return
            else:
                time.sleep(_POLL_S)
    finally:
        file.close()


def _replaced(path: str, handle: int) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        # between the rename and the creation of the next file
        return False
