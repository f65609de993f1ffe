"""Locks of commands that start servers: two at once would start one model twice."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from tasks.cache import stamps
from tasks.catalogue.artifact import DIGEST_CHARS
from tasks.console.text import digest
from tasks.server import record_files, run_folder
from tasks.system import own_files

_ANY = "+"  # name of the lock to pick a port; a model cannot have that name
_WAIT_S = 1.0  # between two attempts to lock

_log = logging.getLogger("recipe")


@contextlib.contextmanager
def start_lock(cache: str, name: str) -> Iterator[None]:
    """Hold the lock to start a model in the background; wait for another process.

    Raises:
        ServerError: the cache cannot be written, so no command could find the server.
    """
    from filelock import FileLock, Timeout

    # of this user alone, and short, whatever the names of the machine and the model are
    owner = os.path.basename(record_files.machine_folder(cache))
    key = digest(f"{owner}/{name}")[:DIGEST_CHARS]
    root = run_folder.root(cache)
    lock = FileLock(own_files.lock_file(root, f"start-{key}.lock"))
    reported = False
    try:
        own_files.make_folder(root, "locks")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_WAIT_S)
            except Timeout:
                if not reported:
                    what = "a server" if name == _ANY else name
                    _log.info("another doit is starting %s; waiting for it", what)
                reported = True
    except OSError as error:
        raise stamps.cache_write_error(root, error) from None
    try:
        yield
    finally:
        lock.release()


def port_lock(cache: str) -> contextlib.AbstractContextManager[None]:
    """Hold the lock to pick a port, until its server is recorded."""
    return start_lock(cache, _ANY)
