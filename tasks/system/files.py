"""Read and hash files, and write small ones atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.errors import IntegrityError, UsageError
from tasks.system import own_files
from tasks.system.file_stat import FileStat

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

MAX_JSON = 1024**2  # bytes of a small file of the recipe
BLOCK = 1024 * 1024  # bytes per read; smaller blocks cost time, larger ones memory


def temporary_folder() -> TemporaryDirectory[str]:
    """Create a folder for one engine, where the cache cannot have one.

    It is removed at the end of a `with` block.
    """
    from tempfile import TemporaryDirectory

    return TemporaryDirectory(prefix="llamafile-recipe-", ignore_cleanup_errors=True)


def setting_path(env: Mapping[str, str], name: str, cwd: str) -> str:
    """Return the absolute path that an environment variable names; "" if unset.

    Raises:
        UsageError: the path begins with ~ and there is no such home directory.
    """
    value = env.get(name, "")
    path = _expanded(value, env)
    if path is None:
        what = f"{name}={value}: there is no such home directory"
        fix = f"{name}=/an/absolute/path, or ./{value} for a folder of that name"
        raise UsageError(what, fix=fix)
    if not path:
        return ""
    return os.path.normpath(os.path.join(cwd, path))


def _expanded(path: str, env: Mapping[str, str]) -> str | None:
    """Expand ~; return None if there is no such home directory."""
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    is_current_user = path[1:2] in ("", "/", os.sep)
    if is_current_user and os.name == "posix" and env.get("HOME") == "":
        return None
    return expanded if os.path.isabs(expanded) else None


def write_atomic(
    path: str | Path, text: str, private: bool = False, mode: int | None = None
) -> None:
    """Replace a small file: a reader sees the old or the new text, never a part.

    Args:
        private: only its owner may read it; it need not survive a loss of power, which
            any other file does.
        mode: its permissions; None for those that a new file gets.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = own_files.temporary_path(str(path), ".tmp")
    try:
        write_new(temporary, text, private)
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException as error:  # also a signal
        with contextlib.suppress(OSError):  # it may not exist, or the disk is read-only
            os.unlink(temporary)
        if isinstance(error, OSError):
            # show the name of the file, not that of its temporary file
            error.filename = str(path)
            error.filename2 = None
        raise


def write_new(path: str, text: str, private: bool = False) -> None:
    """Write a small file that does not exist yet. Raises FileExistsError, OSError."""
    mode = 0o600 if private else 0o666
    handle = own_files.create(path, mode)
    with open(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        if not private:
            os.fsync(file.fileno())


def read_json(path: str | Path, most: int = MAX_JSON) -> Any:
    """Parse the JSON in a regular file.

    Returns:
        None if there is no such file, or it has no JSON, or more than `most` bytes.
    """
    data = own_files.read_most(str(path), most)
    if data is None:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def first_bytes(path: str, count: int = 512) -> bytes:
    """Return the first bytes of a regular file; empty if it cannot be read."""
    try:
        with open(own_files.open_regular(path), "rb", buffering=0) as file:
            return file.read(count)
    except (OSError, ValueError):
        return b""


def fsync_dir(path: str | Path) -> None:
    """Make a rename in a directory durable; Windows needs no such call."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Hashed(NamedTuple):
    """A digest, and the version of the file that it belongs to."""

    sha256: str
    stat: FileStat


def sha256_file(
    path: str | Path, seen: Callable[[int], None] = lambda _: None
) -> Hashed:
    """Return the SHA-256 of a file. Its access time is not updated.

    Args:
        seen: called with the number of bytes read so far.

    Raises:
        IntegrityError: the file was written to or replaced while it was read, so that
            the digest may not belong to the bytes at this path.
    """
    digest = hashlib.sha256()
    count = 0
    with open(path, "rb", buffering=0, opener=_open_noatime) as file:
        before = _stat_of_open(file.fileno(), path)
        while block := file.read(BLOCK):
            digest.update(block)
            count += len(block)
            seen(count)
        after = _stat_of_open(file.fileno(), path)
    if after is None or not before == after == stat(path):
        what = f"{path} was changed or replaced while it was read"
        raise IntegrityError(what, fix="run it again when nothing else writes to it")
    return Hashed(digest.hexdigest(), after)


def _stat_of_open(handle: int, path: str | Path) -> FileStat | None:
    """Return the metadata of an open file.

    On Windows by its path: no other file can take the name of an open one.
    """
    return stat_of(os.fstat(handle)) if os.name == "posix" else stat(path)


def _open_noatime(path: str, flags: int) -> int:
    """Open a file; keep its access time if the system permits that (Linux, owner)."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


def nearest_existing_dir(folder: str) -> str:
    """Return the folder, or its nearest parent that exists."""
    candidates = (Path(folder), *Path(folder).parents)
    return next((str(path) for path in candidates if path.is_dir()), folder)


def stat_of(status: os.stat_result) -> FileStat:
    """Take from a stat result what identifies the version of a file."""
    return FileStat(
        status.st_size,
        status.st_mtime_ns,
        status.st_dev,
        status.st_ino,
        status.st_ctime_ns,
    )


def stat(path: str | Path) -> FileStat | None:
    """Return the metadata of a regular file; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat_of(status) if S_ISREG(status.st_mode) else None


def allocated(path: str) -> int:
    """Return the bytes that a file has on its disk, 0 where they are unknown."""
    try:
        return getattr(os.stat(path), "st_blocks", 0) * 512
    except OSError:
        return 0


def is_full(error: OSError) -> bool:
    """Return whether the disk is full or the user's quota exceeded."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))


def is_executable(path: str, owned: bool = True) -> bool:
    """Return whether a file can be run.

    Args:
        owned: a file of the cache, which every user must be able to run (mode 0755);
            otherwise a file of the user's, which this process must be able to run.
    """
    if not owned:
        return os.access(path, os.X_OK)
    try:
        return os.stat(path).st_mode & 0o555 == 0o555
    except OSError:
        return False
