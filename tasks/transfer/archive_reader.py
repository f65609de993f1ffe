"""Read the members of a .tar.gz or a .zip, whatever it has.

Neither format is trusted: names, sizes and headers are what the archive's author wrote.
No module of the standard library writes a file here, only `unpack` does.
"""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

from tasks.catalogue.constraints import ARCHIVE_ENDINGS
from tasks.transfer.archive_rules import MAX_BYTES, Kind, Member, RefusedArchiveError

BLOCK = 1024 * 1024  # bytes of one read
_MAX_HEADER = 1024 * 1024  # bytes of a tar header, which is read as a whole
_MAX_LINK = 4096  # bytes of a link's target in a zip
# beyond the bytes of the files: headers and padding
_MAX_STREAM = MAX_BYTES + 1024**3

# what the modules raise for an archive that is damaged or hostile
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    struct.error,
    NotImplementedError,  # a compression, or a version of zip
    RuntimeError,  # an encrypted member
    ValueError,
    OverflowError,
    LookupError,
    MemoryError,
)
_ENCRYPTED = 0x1
_UNIX = 3  # ZipInfo.create_system


class ArchiveReader(Protocol):
    """An open archive."""

    def members(self) -> Iterator[Member]:
        """Yield every member, in the order of the archive."""

    def blocks(self, number: int) -> Iterator[bytes]:
        """Yield the bytes of a file; files are read in the order of the archive."""


@contextmanager
def open_archive(file: BinaryIO, name: str) -> Iterator[ArchiveReader]:
    """Open an archive; its name tells the format.

    Raises:
        RefusedArchiveError: it is damaged, or of another format. Also raised for what
            is read from it.
    """
    try:
        if name.lower().endswith(ARCHIVE_ENDINGS[-1]):
            with zipfile.ZipFile(file) as archive:
                yield _Zip(archive)
        else:
            with gzip.GzipFile(fileobj=file) as plain:
                bounded: Any = _Bounded(plain)
                with tarfile.open(fileobj=bounded, mode="r:") as tar:
                    yield _Tar(tar)
    except _DAMAGED as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedArchiveError(f"it is damaged: {text}") from None


class _Bounded:
    """A decompressed stream that ends a bomb: long headers, and endless data."""

    def __init__(self, plain: gzip.GzipFile) -> None:
        self._plain = plain

    def read(self, count: int = -1) -> bytes:
        """Read at most `count` bytes."""
        if not 0 <= count <= _MAX_HEADER:
            raise tarfile.ReadError("a header has more bytes than any real one")
        self._check(self.tell() + count)
        return self._plain.read(count)

    def seek(self, position: int) -> int:
        """Set the position."""
        self._check(position)
        return self._plain.seek(position)

    def tell(self) -> int:
        """Return the position."""
        return self._plain.tell()

    @staticmethod
    def _check(position: int) -> None:
        if position > _MAX_STREAM:
            raise tarfile.ReadError(f"it has more than {MAX_BYTES:,} bytes")


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._infos: list[tarfile.TarInfo] = []

    def members(self) -> Iterator[Member]:
        for info in self._archive:
            self._infos.append(info)
            yield Member(
                info.name,
                _tar_kind(info),
                info.size,
                bool(info.mode & 0o111),
                info.linkname,
            )

    def blocks(self, number: int) -> Iterator[bytes]:
        stream = self._archive.extractfile(self._infos[number])
        if stream is None:
            raise RefusedArchiveError(f"{self._infos[number].name!r} has no bytes")
        yield from _blocks(stream, self._infos[number].size)


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return Kind.FOLDER
    if info.issym():
        return Kind.LINK
    if info.islnk():
        return Kind.HARD_LINK
    if info.isreg() and not info.issparse():
        return Kind.FILE
    return Kind.OTHER


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._infos = archive.infolist()

    def members(self) -> Iterator[Member]:
        for info in self._infos:
            mode = info.external_attr >> 16
            kind = _zip_kind(info, mode)
            link = ""
            if kind is Kind.LINK:
                link = self._link(info)
            # `filename` ends at a NUL, and Windows has it with other separators
            name = info.orig_filename
            yield Member(name, kind, info.file_size, bool(mode & 0o111), link)

    def _link(self, info: zipfile.ZipInfo) -> str:
        if info.file_size > _MAX_LINK:
            raise RefusedArchiveError(f"{info.filename!r} is a link without a path")
        with self._archive.open(info) as stream:
            return b"".join(_blocks(stream, info.file_size)).decode()

    def blocks(self, number: int) -> Iterator[bytes]:
        info = self._infos[number]
        with self._archive.open(info) as stream:
            yield from _blocks(stream, info.file_size)


def _zip_kind(info: zipfile.ZipInfo, mode: int) -> Kind:
    if info.flag_bits & _ENCRYPTED:
        raise RefusedArchiveError(f"{info.filename!r} is encrypted")
    if info.create_system == _UNIX and stat.S_IFMT(mode):
        if stat.S_ISLNK(mode):
            return Kind.LINK
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return Kind.OTHER
    if info.orig_filename.endswith("/"):
        return Kind.FOLDER
    return Kind.FILE


def _blocks(stream: Any, size: int) -> Iterator[bytes]:
    """Yield exactly `size` bytes of a stream."""
    left = size
    while left:
        block = stream.read(min(BLOCK, left))
        if not block:
            raise EOFError("a file ends too early")
        left -= len(block)
        yield block
    if stream.read(1):
        raise ValueError("a file has more bytes than it states")
