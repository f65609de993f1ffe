"""Bytes that are on this machine already: another program's cache, a path, a file:// URL.

They are cloned where the file system can share blocks (reflink), else copied, always hashed on the way, and
never moved or changed where they lie. Nothing of a download that has begun is touched until they are proven.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from io import FileIO
from shutil import disk_usage
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.cache.space import space_missing
from tasks.catalogue.artifact import Artifact
from tasks.console import formatting
from tasks.console.progress import Progress
from tasks.network import huggingface
from tasks.system import own_files
from tasks.system.file_stat import FileStat
from tasks.system.files import BLOCK, fsync_dir, stat_of

_FICLONE = 0x40049409  # Linux: share the blocks of another file (btrfs, xfs, bcachefs)


class NotIt(Exception):
    """A local file is not the artifact, or cannot be read; the reason is the text."""

    def __init__(self, reason: str, wrong: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong  # its bytes were read and are others


def candidates(artifact: Artifact) -> Iterator[str]:
    """Files of other programs that should be the artifact, each once."""
    if artifact.sha256 is None or artifact.adopt_from is None:
        return
    home, name = os.path.expanduser("~"), os.path.basename(artifact.target)
    seen: set[tuple[int, int]] = set()
    kind = os.path.dirname(os.path.dirname(artifact.target))
    before = huggingface.earlier_places(kind, name) if artifact.owned else []
    for pattern in (
        *before,
        *huggingface.places(artifact.sha256, name, artifact.adopt_from, os.environ, home),
    ):
        for path in glob.iglob(pattern):
            with contextlib.suppress(OSError):
                found = os.stat(path)
                same = artifact.size in (None, found.st_size) and os.path.isfile(path)
                if same and (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    yield path


def path_of(url: str) -> str:
    """The path behind a local source: a path, or file://."""
    return url2pathname(urlsplit(url).path) if url.lower().startswith("file:") else url


def take(path: str, artifact: Artifact, bar: Progress) -> tuple[FileStat, str, bool]:
    """Make the target out of a local file: (its state, digest, whether blocks are shared).

    Raises:
        NotIt: it cannot be read, or it is not the artifact.
        OSError: the target cannot be written.
    """
    os.makedirs(os.path.dirname(artifact.target), exist_ok=True)
    for path_left in own_files.temporaries(artifact.target, ".copy"):
        _remove_if_left(path_left)
    copy = own_files.temporary_path(artifact.target, ".copy")  # two may copy at once where locks lie
    try:
        source = _opened(path)
    except OSError as error:
        raise NotIt(error.strerror or str(error)) from None
    try:
        with source, open(own_files.create(copy), "w+b", buffering=0) as file:
            size = os.fstat(source.fileno()).st_size
            if artifact.size not in (None, size):
                raise NotIt(f"wrong length: {size} bytes, expected {artifact.size}")
            bar.at(0, size, "copying")
            shared = _clone(source.fileno(), file.fileno())
            if not shared and (missing := space_missing(size, 0, disk_usage(os.path.dirname(copy)).free)):
                raise NotIt(f"no room for a copy, {formatting.size(missing)} are missing")
            got = _digest(file if shared else source, None if shared else file, size, bar)
            if artifact.sha256 not in (None, got):
                why = f"wrong SHA-256\nexpected: sha256:{artifact.sha256}\ngot: sha256:{got}"
                raise NotIt(why, wrong=True)
            os.fsync(file.fileno())
            held = stat_of(os.fstat(file.fileno()))
        os.replace(copy, artifact.target)
        fsync_dir(os.path.dirname(artifact.target))
        return held, got, shared
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


def _remove_if_left(copy: str) -> None:
    """Remove the copy of a process that was killed."""
    import psutil

    pid = os.path.basename(copy).split("-")[1]
    if pid.isdigit() and not psutil.pid_exists(int(pid)):
        with contextlib.suppress(OSError):
            os.unlink(copy)


def _opened(path: str) -> FileIO:
    if os.path.isdir(path):  # Windows calls that a lack of permission
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return open(own_files.open_regular(path), "rb", buffering=0)


def _clone(source: int, target: int) -> bool:
    """Share the blocks of another file; False where this file system, or this system, cannot."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _digest(source: FileIO, copy: FileIO | None, size: int, bar: Progress) -> str:
    """Hash a file from its beginning, writing it into `copy` on the way. Raises NotIt, OSError."""
    digest, done = hashlib.sha256(), 0
    while block := _read(source, min(BLOCK, size - done)):  # it may grow meanwhile
        digest.update(block)
        if copy is not None:
            view = memoryview(block)
            while view:
                view = view[copy.write(view) :]
        done += len(block)
        bar.at(done, size, "copying" if copy else "verifying")
    if done != size:
        raise NotIt(f"it became shorter while it was read: {done} bytes, expected {size}")
    return digest.hexdigest()


def _read(source: FileIO, most: int) -> bytes:
    try:
        return source.read(most)
    except OSError as error:
        raise NotIt(error.strerror or str(error)) from None
