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
# tarfile reads a header as a whole, and keeps it; one with a long name has 2 KB
_MAX_HEADER = 16 * 1024
_MAX_HEADERS = 16 * 1024**2  # bytes of all headers of a tar
_MAX_KEYS = 64  # of extended headers; tarfile copies the global ones for each member
_MAX_DIRECTORY = 8 * 1024**2  # bytes of a zip's list of members
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
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


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
            bytes_of_zip: Any = _ZipBytes(file)
            with zipfile.ZipFile(bytes_of_zip) as archive:
                yield _Zip(archive)
        else:
            with gzip.GzipFile(fileobj=file) as plain:
                bounded = _Bounded(plain)
                stream: Any = bounded
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    yield _Tar(tar, bounded)
    except _DAMAGED as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedArchiveError(f"it is damaged: {text}") from None


class _ZipBytes:
    """A zip's bytes, of which no read takes more than a list of members may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, count: int = -1) -> bytes:
        """Read at most `count` bytes."""
        if count > _MAX_DIRECTORY:
            raise zipfile.BadZipFile("its list of members is too long")
        if count < 0:  # the end of the file
            count = _MAX_DIRECTORY
        return self._file.read(count)

    def seek(self, position: int, whence: int = 0) -> int:
        """Set the position."""
        try:
            return self._file.seek(position, whence)
        except OSError:  # no error of the disk: such a position cannot be
            raise zipfile.BadZipFile("a position is outside the file") from None


class _Bounded:
    """A decompressed stream that ends a bomb: long headers, and endless data."""

    def __init__(self, plain: gzip.GzipFile) -> None:
        self._plain = plain
        self._headers = 0  # bytes of headers so far
        self.has_headers_only = True  # what is read now is a header

    def read(self, count: int = -1) -> bytes:
        """Read at most `count` bytes."""
        most = BLOCK
        if self.has_headers_only:
            most = _MAX_HEADER
            self._headers += count
        if not 0 <= count <= most:
            raise tarfile.ReadError("a header has more bytes than any real one")
        if self._headers > _MAX_HEADERS:
            raise tarfile.ReadError(
                f"its headers have more than {_MAX_HEADERS:,} bytes"
            )
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
    def __init__(self, archive: tarfile.TarFile, stream: _Bounded) -> None:
        self._archive = archive
        self._stream = stream
        self._infos: list[tarfile.TarInfo] = []

    def members(self) -> Iterator[Member]:
        for info in self._archive:
            if len(info.pax_headers) > _MAX_KEYS:
                raise RefusedArchiveError("a header has more keys than any real one")
            self._infos.append(info)
            yield Member(
                info.name,
                _tar_kind(info),
                info.size,
                bool(info.mode & 0o111),
                info.linkname,
            )
        self._stream.has_headers_only = False

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
    if info.compress_type not in _COMPRESSIONS:  # others take memory without a limit
        what = f"{info.filename[:80]!r} has compression method {info.compress_type}"
        raise RefusedArchiveError(f"{what}, expected 0 (stored) or 8 (deflated)")
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
