"""One process at a time per artifact. The lock saves bandwidth; digest and rename give correctness."""

from __future__ import annotations

import errno
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.cache.stamps import cannot_write
from tasks.catalogue.artifact import Artifact
from tasks.console.text import digest
from tasks.system import own_files
from tasks.transfer.journal import busy_elsewhere, claimed

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP))
POLL_S = 0.2  # between two looks at how far the other process is

_log = logging.getLogger("recipe")


@contextmanager
def artifact_lock(cache: str, artifact: Artifact) -> Iterator[None]:
    """Hold the lock of one target; wait for whoever has it, showing how far that one is.

    A file system that knows no locks (some NFS) is worked on without: there the partial's journal says who
    is at it. Lock files are not unlinked: a process that holds an unlinked one and a process with a new
    one would both go on (filelock#27).
    """
    lock = _lock(cache, artifact)
    try:
        _wait_until(lambda: _is_ours(lock), artifact)
        wait_for_owner(artifact)
        yield
    finally:
        lock.release()


@contextmanager
def lock_if_free(cache: str, artifact: Artifact) -> Iterator[bool]:
    """Hold the lock of one target while nobody else is at it; whether that is so. Does not wait."""
    lock = _lock(cache, artifact)
    try:
        yield _is_ours(lock) and not busy_elsewhere(artifact)
    finally:
        lock.release()


def _lock(cache: str, artifact: Artifact) -> Any:
    from filelock import FileLock

    # from the cache, which another container may have at another path
    target = artifact.target.removeprefix(f"{cache}/")
    return FileLock(own_files.lock_file(cache, f"{digest(target)[:16]}.lock"))


def _is_ours(lock: Any) -> bool:
    """Whether nobody else has the lock; then we have it."""
    from filelock import Timeout

    folder = Path(lock.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # that it takes a file for a lock instead
            warnings.simplefilter("ignore")
            lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            _log.warning("%s knows no file locks; the journal of the download stands in for them", folder)
            return True
        raise cannot_write(str(folder), error) from None
    return True


def wait_for_owner(artifact: Artifact) -> None:
    """Wait while the journal says that another process writes the partial."""
    _wait_until(lambda: not busy_elsewhere(artifact), artifact)


def _wait_until(ready: Callable[[], bool], artifact: Artifact) -> None:
    """Return once it is ready; until then show how far the other process is."""
    if ready():
        return
    from tasks.console.progress import progress

    _log.info("another process is fetching %s; waiting for it", artifact.label)
    with progress(artifact.label, claimed(artifact).done) as bar:
        while not ready():
            claim = claimed(artifact)
            bar.at(claim.done, claim.size, "waiting")
            time.sleep(POLL_S)
