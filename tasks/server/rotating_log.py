"""Write an engine's log within a size limit."""

from __future__ import annotations

import contextlib
import os

# suffixes: the higher the number, the older
ROTATED = ".1"  # the earlier part of this server's log
BEFORE = ".2"  # the previous server's log
LIMIT = 10 * 1024 * 1024  # bytes of one file; see ROTATED


class RotatingLog:
    """A log that takes at most twice its limit; only its owner can read it.

    The previous server's log is kept under another name. On a full disk, lines of
    the log are lost; the engine is not stopped.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._handle = -1
        self._size = 0
        # the previous server's output would not explain anything of this one
        with contextlib.suppress(OSError):
            os.replace(path, f"{path}{BEFORE}")
        with contextlib.suppress(OSError):
            os.unlink(f"{path}{ROTATED}")
        self._next()

    def write(self, data: bytes) -> None:
        """Append; start a new file where the limit would be exceeded."""
        try:
            full = self._size and self._size + len(data) > self._limit
            if self._handle < 0 or full:
                self._next()
            while data:
                count = os.write(self._handle, data)
                self._size += count
                data = data[count:]
        except OSError:
            pass

    def _next(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if os.path.exists(self._path):
            os.replace(self._path, f"{self._path}{ROTATED}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._handle = os.open(self._path, flags, 0o600)
        self._size = 0
