"""Files: reading, hashing, and writing a small file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from tasks.errors import IntegrityError, UsageError
from tasks.system import own_files
from tasks.system.file_stat import FileStat

MOST_JSON = 1024**2  # bytes of one of our small files
BLOCK = 1024 * 1024  # bytes read at once; smaller blocks cost time, larger ones memory


def setting_path(env: Mapping[str, str], name: str, cwd: str) -> str:
    """The absolute path that a variable names; nothing where it is not set or empty.

    Raises UsageError: its ~ stands for nothing here.
    """
    given = env.get(name, "")
    path = _expanded(given, env)
    if path is None:
        what = f"{name}={given}: there is no such home directory"
        raise UsageError(what, fix=f"{name}=/an/absolute/path, or ./{given} for a folder of that name")
    return os.path.normpath(os.path.join(cwd, path)) if path else ""


def _expanded(path: str, env: Mapping[str, str]) -> str | None:
    """The path without ~; None where there is no home directory."""
    if not path.startswith("~"):
        return path
    found = os.path.expanduser(path)
    is_own = path[1:2] in ("", "/", os.sep)
    if not os.path.isabs(found) or (is_own and os.name == "posix" and env.get("HOME") == ""):
        return None
    return found


def write_atomic(path: str | Path, text: str, private: bool = False, mode: int | None = None) -> None:
    """Write a small file so that a reader, and a machine that loses power, sees the old or the new one.

    Args:
        private: only its owner may read it; it need not outlive the power.
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
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError):  # the name of a temporary file says nothing to its reader
            error.filename, error.filename2 = str(path), None
        raise


def write_new(path: str, text: str, private: bool = False) -> None:
    """Write a small file that is not there yet. Raises FileExistsError, OSError."""
    mode = 0o600 if private else 0o666
    with open(own_files.create(path, mode), "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        if not private:
            os.fsync(file.fileno())


def read_json(path: str | Path, most: int = MOST_JSON) -> Any:
    """The JSON in a regular file; None where there is none, no JSON in it, or more than `most` bytes."""
    data = own_files.read_most(str(path), most)
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None


def fsync_dir(path: str | Path) -> None:
    """Make a rename in a directory last; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Hashed(NamedTuple):
    """A digest, and the state of the file that it is of."""

    sha256: str
    stat: FileStat


def sha256_file(path: str | Path, seen: Callable[[int], None] = lambda _: None) -> Hashed:
    """SHA-256 of a file; `seen` is told how many bytes were read so far. It does not count as a use.

    Raises IntegrityError: the file was written to or replaced meanwhile, so that the digest may be
        of other bytes than those that the path leads to.
    """
    digest, done = hashlib.sha256(), 0
    with open(path, "rb", buffering=0, opener=_unnoticed) as file:
        before = _stat_of_open(file.fileno(), path)
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            seen(done)
        after = _stat_of_open(file.fileno(), path)
    if after is None or not before == after == stat(path):
        what = f"{path} was changed or replaced while it was read"
        raise IntegrityError(what, fix="run it again when nothing else writes to it")
    return Hashed(digest.hexdigest(), after)


def _stat_of_open(handle: int, path: str | Path) -> FileStat | None:
    """The state of an open file. Windows replaces no open file, so there its name is as good."""
    return stat_of(os.fstat(handle)) if os.name == "posix" else stat(path)


def _unnoticed(path: str, flags: int) -> int:
    """Open a file for reading, leaving its time of access as it was, where Linux grants that to its owner."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


def existing(folder: str) -> str:
    """The folder, or the nearest one above it that is there."""
    return next((str(p) for p in (Path(folder), *Path(folder).parents) if p.is_dir()), folder)


def stat_of(found: os.stat_result) -> FileStat:
    """What identifies this state of a file, from what the system says."""
    return FileStat(found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino, found.st_ctime_ns)


def stat(path: str | Path) -> FileStat | None:
    """The state of a regular file; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat_of(found) if S_ISREG(found.st_mode) else None


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is used up."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))


def is_executable(path: str, owned: bool = True) -> bool:
    """Whether the file may be run: ours by everybody (mode 0755), one of the user's by us."""
    try:
        return os.stat(path).st_mode & 0o555 == 0o555 if owned else os.access(path, os.X_OK)
    except OSError:
        return False
