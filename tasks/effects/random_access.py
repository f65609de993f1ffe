"""A file that several threads write and read at any offset, on every system.

POSIX has calls that name the offset; Windows has not, there one thread seeks and writes at a time. Which
of the two is used follows from what `os` has, so that tests run both here.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Protocol

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: a size that shows what came, not what will (fused-render#516)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)


class RandomAccessFile(Protocol):
    """What a transfer needs of its file. Every method raises OSError."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of it."""

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill the view from an offset; how many bytes there were."""

    def truncate(self, size: int) -> None:
        """Cut or extend to so many bytes."""

    def reserve(self, size: int) -> None:
        """Take so many bytes of the disk where that is cheap, so that a full disk is known at once."""

    def taken(self) -> int:
        """Bytes of the disk that the file has."""

    def stat(self) -> os.stat_result:
        """What the system says about the open file, whatever its name leads to by now."""

    def sync(self) -> None:
        """Wait until every written byte would survive a loss of power."""

    def close(self) -> None:
        """Let go of it; nobody may use it any more."""


def open_file(path: str) -> RandomAccessFile:
    """Open a file for reading and writing, created if it is not there. Raises OSError."""
    handle = os.open(path, _FLAGS, 0o644)
    return _Positioned(handle) if hasattr(os, "pwrite") and hasattr(os, "preadv") else _Seeking(handle)


class _Positioned:
    """With pwrite and preadv: threads do not wait for each other."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def write(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._handle, data, offset)
            data, offset = data[written:], offset + written

    def read_into(self, offset: int, view: memoryview) -> int:
        return os.preadv(self._handle, [view], offset)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._handle, size)

    def reserve(self, size: int) -> None:
        import ctypes  # only here, and 5 ms

        # not posix_fallocate: where the file system cannot do it, glibc writes into every block instead
        call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
        if call is None or size <= 0 or ctypes.sizeof(ctypes.c_long) < 8:  # macOS; an off_t of 32 bits
            return
        if call(self._handle, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)) != 0:
            number = ctypes.get_errno()
            if number not in _UNSUPPORTED:
                raise OSError(number, os.strerror(number))

    def stat(self) -> os.stat_result:
        return os.fstat(self._handle)

    def taken(self) -> int:
        return os.fstat(self._handle).st_blocks * 512

    def sync(self) -> None:
        import fcntl

        full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync leaves it in the drive's own cache
        if full is None:
            getattr(os, "fdatasync", os.fsync)(self._handle)
        else:
            fcntl.fcntl(self._handle, full)

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


class _Seeking:
    """With one position that belongs to whoever holds the lock."""

    def __init__(self, handle: int) -> None:
        self._file = os.fdopen(handle, "r+b", buffering=0)
        self._lock = threading.Lock()

    def write(self, offset: int, data: memoryview) -> None:
        with self._lock:
            self._file.seek(offset)
            while data:
                data = data[self._file.write(data) :]

    def read_into(self, offset: int, view: memoryview) -> int:
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(view) or 0

    def truncate(self, size: int) -> None:
        with self._lock:
            self._file.truncate(size)

    def reserve(self, size: int) -> None:
        return None  # Windows would write zeros up to wherever a lane begins

    def stat(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def taken(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
