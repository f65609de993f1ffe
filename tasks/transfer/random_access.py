"""A file that several threads write and read at any offset, on every system.

POSIX has calls that name the offset; Windows has not, there one thread seeks and writes at a time. Which
of the two is used follows from what `os` has, so that tests run both here.
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

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: a size that shows what came, not what will (fused-render#516)
_PUNCH_HOLE = 2  # FALLOC_FL_PUNCH_HOLE
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)


def _end(spans: Sequence[Span]) -> int:
    return spans[-1][1] if spans else 0


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

    def keep_only(self, spans: Sequence[Span]) -> None:
        """Give the disk back what is outside of these spans, as far as that is cheap."""

    def taken(self) -> int:
        """Bytes of the disk that the file has."""

    def stat(self) -> os.stat_result:
        """What the system says about the open file, whatever its name leads to by now."""

    def sync(self) -> None:
        """Wait until every written byte would survive a loss of power."""

    def close(self) -> None:
        """Let go of it; nobody may use it any more."""


def open_file(path: str) -> RandomAccessFile:
    """Open a file of ours for reading and writing, or begin a new one (see `own`). Raises OSError."""
    handle = own_files.open_own(path)
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
        self._fallocate(_KEEP_SIZE, 0, size)

    def keep_only(self, spans: Sequence[Span]) -> None:
        os.ftruncate(self._handle, _end(spans))  # frees what was reserved behind it
        for (_, first), (end, _) in pairwise([(0, 0), *spans]):
            self._fallocate(_KEEP_SIZE | _PUNCH_HOLE, first, end - first)

    def _fallocate(self, mode: int, offset: int, size: int) -> None:
        if size <= 0:
            return
        import ctypes  # only here, and 5 ms

        # not posix_fallocate: where the file system cannot do it, glibc writes into every block instead
        call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
        if call is None or ctypes.sizeof(ctypes.c_long) < 8:  # macOS; an off_t of 32 bits
            return
        if call(self._handle, mode, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
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

    def keep_only(self, spans: Sequence[Span]) -> None:
        self.truncate(_end(spans))

    def taken(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
