"""One process at a time per artifact. The lock saves bandwidth; digest and rename give correctness."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger("recipe")


@contextmanager
def artifact_lock(cache: str, target: str) -> Iterator[None]:
    """Hold the lock of one target; wait for whoever has it, saying so once.

    A file system that knows no locks (some NFS) is worked on without. Lock files are never unlinked: a
    process that holds an unlinked one and a process with a new one would both go on (filelock#27).
    """
    from filelock import FileLock, Timeout

    folder = Path(cache) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(target.encode()).hexdigest()[:16]}.lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("another process is fetching %s; waiting for it", target)
            lock.acquire()
    except NotImplementedError:
        _log.warning("%s knows no file locks: do not run two downloads at once", folder)
    try:
        yield
    finally:
        lock.release()
