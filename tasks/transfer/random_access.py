"""A file that several threads read and write at any offset, on every system.

POSIX has calls that take the offset. On Windows one thread at a time seeks and writes.
The functions that `os` has decide, so that tests on one system cover both.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from tasks.system import own_files
from tasks.transfer.ranges import Span

# FALLOC_FL_KEEP_SIZE: the size shows what has arrived, not what will (fused-render#516)
_KEEP_SIZE = 1
# FALLOC_FL_PUNCH_HOLE
_PUNCH_HOLE = 2
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)


def _end(spans: Sequence[Span]) -> int:
    return spans[-1][1] if spans else 0


class RandomAccessFile(Protocol):
    """The file operations of a transfer. Every method raises OSError."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write all bytes of a view."""

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill a view from an offset, and return the number of bytes read."""

    def truncate(self, size: int) -> None:
        """Set the size in bytes."""

    def preallocate(self, size: int) -> None:
        """Allocate disk space where that is cheap: a full disk fails early."""

    def keep_only(self, spans: Sequence[Span]) -> None:
        """Free the disk space outside of these spans, where that is cheap."""

    def allocated_bytes(self) -> int:
        """Return the allocated bytes."""

    def stat(self) -> os.stat_result:
        """Return the status of the open file, whatever its path names by now."""

    def sync(self) -> None:
        """Wait until every written byte would survive a power failure."""

    def close(self) -> None:
        """Close the file; no other method may be called afterwards."""


def open_file(path: str) -> RandomAccessFile:
    """Open or create a file for reading and writing.

    Raises:
        OSError: it cannot be opened, or is not a file of this user (see `own_files`).
    """
    handle = own_files.open_own(path)
    if hasattr(os, "pwrite") and hasattr(os, "preadv"):
        return _Positioned(handle)
    return _Seeking(handle)


class _Positioned:
    """A file with pwrite and preadv: threads do not wait for each other."""

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

    def preallocate(self, size: int) -> None:
        self._fallocate(_KEEP_SIZE, 0, size)

    def keep_only(self, spans: Sequence[Span]) -> None:
        # frees the space that was allocated after the last span
        os.ftruncate(self._handle, _end(spans))
        for (_, first), (end, _) in pairwise([(0, 0), *spans]):
            self._fallocate(_KEEP_SIZE | _PUNCH_HOLE, first, end - first)

    def _fallocate(self, mode: int, offset: int, size: int) -> None:
        if size <= 0:
            return
        import ctypes  # takes 5 ms

        # not posix_fallocate: without support of the file system, glibc writes into
        # every block
        call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
        # macOS has no fallocate; an off_t of 32 bits is too small
        if call is None or ctypes.sizeof(ctypes.c_long) < 8:
            return
        if call(self._handle, mode, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
            number = ctypes.get_errno()
            if number not in _UNSUPPORTED:
                raise OSError(number, os.strerror(number))

    def stat(self) -> os.stat_result:
        return os.fstat(self._handle)

    def allocated_bytes(self) -> int:
        return os.fstat(self._handle).st_blocks * 512

    def sync(self) -> None:
        import fcntl

        # macOS: fsync leaves the bytes in the cache of the drive
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is None:
            getattr(os, "fdatasync", os.fsync)(self._handle)
        else:
            fcntl.fcntl(self._handle, full)

    def close(self) -> None:
        handle = self._handle
        self._handle = -1
        if handle >= 0:
            os.close(handle)


class _Seeking:
    """A file with one position, which belongs to the holder of the lock."""

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

    def preallocate(self, size: int) -> None:
        return None  # Windows would write zeros up to the start of each piece

    def stat(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def keep_only(self, spans: Sequence[Span]) -> None:
        self.truncate(_end(spans))

    def allocated_bytes(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
