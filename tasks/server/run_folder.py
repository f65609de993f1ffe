"""Choose and create the folder in which servers are recorded and write their logs.

It is in the cache, else in the user's state directory (ADR 16).
"""

from __future__ import annotations

import contextlib
import os
import stat

from tasks.errors import ServerError
from tasks.server import record_files
from tasks.server.old_folders import drop_old_folders
from tasks.system import files, own_files


def folder(cache: str) -> str | None:
    """Create the folder where engines run and write logs, for this user alone.

    Returns:
        None where none can be written, or each is behind a symbolic link or belongs to
        another user, who could put records there.
    """
    for root in record_files.write_roots(cache):
        if path := _make(root):
            return path
    return None


def root(cache: str) -> str:
    """Return the directory of the folder: the cache, or the state directory."""
    path = folder(cache)
    if path is None:
        return cache
    return os.path.dirname(os.path.dirname(path))


def _make(root: str) -> str | None:
    path = record_files.machine_folder(root)
    if record_files.is_behind_link(root):
        return None
    with contextlib.suppress(OSError):
        os.makedirs(root, mode=0o700, exist_ok=True)
        own_files.make_folder(root, "run")
        if not os.path.isdir(path):
            drop_old_folders(root)
        os.makedirs(path, mode=0o700, exist_ok=True)
        if record_files.is_mine(os.lstat(path)):
            os.chmod(path, 0o700)
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if (
        stat.S_ISDIR(status.st_mode)
        and record_files.is_mine(status)
        and os.access(path, os.W_OK)
    ):
        return path
    return None


def can_record(cache: str) -> bool:
    """Predict whether `folder` will return a path, without creating it."""
    return bool(expected(cache))


def expected(cache: str) -> str:
    """Predict the path that `folder` will return, without creating it; "" for none."""
    roots = (root for root in record_files.write_roots(cache) if _can_write(root))
    return next(map(record_files.machine_folder, roots), "")


def _can_write(root: str) -> bool:
    path = record_files.machine_folder(root)
    existing = files.nearest_existing_dir(path)
    if existing == path and not record_files.is_mine(os.stat(path)):
        return False
    return os.access(existing, os.W_OK) and not record_files.is_behind_link(root)


def record_error(cache: str) -> ServerError:
    """Return the error for a server that no command could find again."""
    facts = []
    for one in record_files.write_roots(cache):
        path = record_files.machine_folder(one)
        facts.append(("folder", path))
        with contextlib.suppress(OSError):
            existing = files.nearest_existing_dir(path)
            if not record_files.is_mine(os.stat(existing)):
                facts.append((f"{existing} belongs to", "another user"))
    return ServerError(
        "`doit start` cannot record its server, so no command could find and stop it",
        facts,
        fix=f"set {record_files.STATE_VARIABLE} to a directory you can write to, "
        "or run `doit serve` in the foreground",
    )
