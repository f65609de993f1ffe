"""Copy local files: from another program's cache, a path or a file:// URL.

A file is cloned where the file system can share blocks (reflink), else copied, and
always hashed; the original is never moved or changed. A started download is kept until
the digest of the copy is verified.
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
from tasks.transfer import contents

# Linux ioctl: share the blocks of another file (btrfs, xfs, bcachefs)
_FICLONE = 0x40049409


class LocalFileRejectedError(Exception):
    """A local file is not the artifact, or cannot be read; the reason is the text.

    Attributes:
        wrong: whether its bytes were read and differ.
    """

    def __init__(self, reason: str, wrong: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong


def candidates(artifact: Artifact) -> Iterator[str]:
    """Yield files of other programs that may be the artifact, each one once."""
    if artifact.sha256 is None or artifact.adopt_from is None:
        return
    seen: set[tuple[int, int]] = set()
    for pattern in _patterns(artifact, artifact.sha256, artifact.adopt_from):
        for path in glob.iglob(pattern):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                inode = (status.st_dev, status.st_ino)
                has_size = artifact.size in (None, status.st_size)
                if has_size and os.path.isfile(path) and inode not in seen:
                    seen.add(inode)
                    yield path


def _patterns(
    artifact: Artifact, sha256: str, adopt_from: tuple[str, ...]
) -> list[str]:
    """Return the glob patterns of the caches that may have the artifact."""
    home = os.path.expanduser("~")
    name = os.path.basename(artifact.target)
    earlier: list[str] = []
    if artifact.in_cache:
        kind = os.path.dirname(os.path.dirname(artifact.target))
        earlier = list(huggingface.unpinned_globs(kind, name))
    others = huggingface.cache_globs(sha256, name, adopt_from, os.environ, home)
    return [*earlier, *others]


def local_path(url: str) -> str:
    """Return the path of a local source, which is a path or a file:// URL."""
    if url.lower().startswith("file:"):
        return url2pathname(urlsplit(url).path)
    return url


def copy_or_clone(
    path: str, artifact: Artifact, bar: Progress
) -> tuple[FileStat, str, bool]:
    """Make the target from a local file.

    Returns:
        The file's state, its digest, and whether it shares blocks with the original.

    Raises:
        LocalFileRejectedError: the file cannot be read, or is not the artifact.
        OSError: the target cannot be written.
    """
    os.makedirs(os.path.dirname(artifact.target), exist_ok=True)
    for stale_copy in own_files.temporaries(artifact.target, ".copy"):
        _remove_if_left(stale_copy)
    # a name of its own: without working locks two processes may copy at once
    copy = own_files.temporary_path(artifact.target, ".copy")
    try:
        source = _opened(path)
    except OSError as error:
        raise LocalFileRejectedError(error.strerror or str(error)) from None
    try:
        with source, open(own_files.create(copy), "w+b", buffering=0) as file:
            size = os.fstat(source.fileno()).st_size
            if artifact.size not in (None, size):
                raise LocalFileRejectedError(
                    f"wrong length: {size} bytes, expected {artifact.size}"
                )
            bar.update(0, size, "copying")
            shared = _clone(source.fileno(), file.fileno())
            if shared:
                got = _digest(file, None, size, bar)
            else:
                _check_space(copy, size)
                got = _digest(source, file, size, bar)
            if artifact.sha256 not in (None, got):
                want = artifact.sha256
                why = f"wrong SHA-256\nexpected: sha256:{want}\ngot: sha256:{got}"
                raise LocalFileRejectedError(why, wrong=True)
            if problem := contents.problem(artifact, copy, size):
                raise LocalFileRejectedError(
                    f"{problem}\nexpected: {contents.expected(artifact)}", wrong=True
                )
            os.fsync(file.fileno())
            held = stat_of(os.fstat(file.fileno()))
        os.replace(copy, artifact.target)
        fsync_dir(os.path.dirname(artifact.target))
        return held, got, shared
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


def _check_space(copy: str, size: int) -> None:
    """Raise LocalFileRejectedError where the disk has no space for a copy."""
    missing = space_missing(size, 0, disk_usage(os.path.dirname(copy)).free)
    if missing:
        raise LocalFileRejectedError(
            f"no space for a copy: {formatting.format_size(missing)} missing"
        )


def _remove_if_left(copy: str) -> None:
    """Remove a copy whose process was killed."""
    import psutil

    pid = os.path.basename(copy).split("-")[1]
    if pid.isdigit() and not psutil.pid_exists(int(pid)):
        with contextlib.suppress(OSError):
            os.unlink(copy)


def _opened(path: str) -> FileIO:
    if os.path.isdir(path):  # Windows reports a lack of permission
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return open(own_files.open_regular(path), "rb", buffering=0)


def _clone(source: int, target: int) -> bool:
    """Share the blocks of another file; return False where that is unsupported."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _digest(source: FileIO, copy: FileIO | None, size: int, bar: Progress) -> str:
    """Hash a file from its start, and write it to `copy`.

    Raises:
        LocalFileRejectedError: the file cannot be read, or became shorter.
        OSError: the copy cannot be written.
    """
    digest = hashlib.sha256()
    done = 0
    note = "copying" if copy else "verifying"
    # not further than its size: the file may grow meanwhile
    while block := _read(source, min(BLOCK, size - done)):
        digest.update(block)
        if copy is not None:
            view = memoryview(block)
            while view:
                view = view[copy.write(view) :]
        done += len(block)
        bar.update(done, size, note)
    if done != size:
        raise LocalFileRejectedError(
            f"it shrank while it was read: {done} bytes, expected {size}"
        )
    return digest.hexdigest()


def _read(source: FileIO, most: int) -> bytes:
    try:
        return source.read(most)
    except OSError as error:
        raise LocalFileRejectedError(error.strerror or str(error)) from None
