"""Read what is uploaded: a file, alone or in an archive, hashed while it is sent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from types import TracebackType

from tasks.errors import IntegrityError
from tasks.system import own_files

BLOCK = 1024**2  # bytes that are read at once


class Source:
    """The bytes of one blob: a file between a head and a tail. Use `with`.

    Each byte is hashed once, in order, when it is read for the first time.

    Args:
        path: empty for a blob that is only the head.
        size: bytes of the file.
    """

    def __init__(
        self, head: bytes, path: str = "", size: int = 0, tail: bytes = b""
    ) -> None:
        self._head = head
        self._tail = tail
        self._path = path
        self._file_size = size
        self._handle = -1
        self._hash = hashlib.sha256()
        self._file_hash = hashlib.sha256()  # of an archive: the file alone
        self._hashed = 0
        self.size = len(head) + size + len(tail)

    def __enter__(self) -> Source:
        if self._path:
            self._handle = own_files.open_regular(self._path)
            if os.fstat(self._handle).st_size != self._file_size:
                self.__exit__(None, None, None)
                raise self._changed()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def read(self, start: int, count: int) -> bytes:
        """Return bytes from an offset, at least one; fewer where a part ends.

        Raises:
            IntegrityError: the file has become shorter.
        """
        while self._hashed < start:  # an earlier run has sent these
            self._read(self._hashed, min(BLOCK, start - self._hashed))
        return self._read(start, count)

    def _read(self, start: int, count: int) -> bytes:
        in_file = start - len(self._head)
        if in_file < 0:
            data = self._head[start : start + count]
        elif in_file < self._file_size:
            data = self._read_file(in_file, min(count, self._file_size - in_file))
        else:
            at = in_file - self._file_size
            data = self._tail[at : at + count]
        skipped = self._hashed - start
        if 0 <= skipped < len(data):
            self._hash.update(data[skipped:])
            self._hashed = start + len(data)
            if self._head and 0 <= in_file < self._file_size:
                self._file_hash.update(data[skipped:])
        return data

    def _read_file(self, start: int, count: int) -> bytes:
        os.lseek(self._handle, start, os.SEEK_SET)
        data = os.read(self._handle, count)
        if not data:
            raise self._changed()
        return data

    def sha256(self, seen: Callable[[int], None] = lambda _: None) -> str:
        """Return the digest of all bytes; read those that were not read yet.

        Args:
            seen: called with the number of bytes read so far.
        """
        while self._hashed < self.size:
            self._read(self._hashed, BLOCK)
            seen(self._hashed)
        return self._hash.hexdigest()

    def file_sha256(self) -> str:
        """Return the digest of the file alone, after that of all bytes was returned."""
        if not self._head:
            return self._hash.hexdigest()
        return self._file_hash.hexdigest()

    def _changed(self) -> IntegrityError:
        what = f"{self._path} has changed: expected {self._file_size} bytes"
        return IntegrityError(what, fix="`doit download` verifies it; then push again")


class Piece:
    """A part of a source, as requests reads a body.

    Args:
        seen: called with the number of bytes read so far, before they are sent.
    """

    def __init__(
        self, source: Source, start: int, count: int, seen: Callable[[int], None]
    ) -> None:
        self._source = source
        self._start = start
        self._at = start
        self._count = count
        self._seen = seen

    def __len__(self) -> int:
        return self._count

    def read(self, most: int = -1) -> bytes:
        """Return the next bytes; none at the end."""
        left = self._start + self._count - self._at
        if most >= 0:
            left = min(left, most)
        if not left:
            return b""
        data = self._source.read(self._at, left)
        self._at += len(data)
        self._seen(self._at - self._start)
        return data
