"""Let one process at a time download an artifact.

The lock saves bandwidth; the digest and the atomic rename give correctness.
"""

from __future__ import annotations

import errno
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.cache.stamps import cache_write_error
from tasks.catalogue.artifact import Artifact
from tasks.console.text import digest
from tasks.errors import RecipeError
from tasks.system import own_files
from tasks.system.files import nearest_existing_dir
from tasks.transfer.journal import load_progress, owned_by_other

_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    getattr(errno, "ENOTSUP", errno.EOPNOTSUPP),
)
POLL_S = 0.2  # between two reads of the other process's progress

_log = logging.getLogger("recipe")


class NoLockError(RecipeError):
    """The lock, or the folder of the target, cannot be written by this user."""


@contextmanager
def artifact_lock(cache: str, artifact: Artifact) -> Iterator[None]:
    """Hold the lock of one target; wait for its holder and show that one's progress.

    On a file system without locks (some NFS), and where the lock file belongs to
    another user, the partial's journal names the writer. Lock files are not removed:
    one process could hold a removed file while another one locks a new file
    (filelock#27).

    Raises:
        NoLockError: nothing can be written here.
    """
    lock = _lock(cache, artifact)
    try:
        _wait_until(lambda: _is_ours(lock, artifact), artifact)
        wait_for_owner(artifact)
        yield
    finally:
        lock.release()


@contextmanager
def try_lock(cache: str, artifact: Artifact) -> Iterator[bool]:
    """Try to hold the lock of one target; yield whether it succeeded. Do not wait."""
    lock = _lock(cache, artifact)
    try:
        yield _is_ours(lock, artifact) and not owned_by_other(artifact)
    finally:
        lock.release()


def _lock(cache: str, artifact: Artifact) -> Any:
    from filelock import FileLock

    # relative to the cache: another container may mount it at another path
    target = artifact.target.removeprefix(f"{cache}/")
    return FileLock(own_files.lock_file(cache, f"{digest(target)[:16]}.lock"))


def _is_ours(lock: Any, artifact: Artifact) -> bool:
    """Return whether this process now holds the lock, or has to do without one.

    Raises:
        NoLockError: nothing can be written here.
    """
    from filelock import Timeout

    folder = Path(lock.lock_file).parent
    try:
        own_files.make_folder(str(folder.parent), folder.name)
        # filelock warns that it falls back to another kind of lock
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            _log.warning(
                "%s does not support file locks; "
                "using the journal of the download instead",
                folder,
            )
            return True
        if error.errno not in _NO_ACCESS:
            raise cache_write_error(str(folder), error) from None
        if not os.access(
            nearest_existing_dir(os.path.dirname(artifact.target)), os.W_OK
        ):
            raise _no_lock(str(folder), error) from None
    return True


def _no_lock(folder: str, error: OSError) -> NoLockError:
    cause = cache_write_error(folder, error)
    return NoLockError(cause.what, cause.facts, cause.fix)


def wait_for_owner(artifact: Artifact) -> None:
    """Wait while the journal says that another process writes the partial."""
    _wait_until(lambda: not owned_by_other(artifact), artifact)


def _wait_until(ready: Callable[[], bool], artifact: Artifact) -> None:
    """Wait until `ready` returns true, and show the other process's progress."""
    if ready():
        return
    from tasks.console.progress import progress

    _log.info("another process is downloading %s; waiting for it", artifact.label)
    with progress(artifact.label, load_progress(artifact).done) as bar:
        while not ready():
            saved = load_progress(artifact)
            bar.update(saved.done, saved.size, "waiting")
            time.sleep(POLL_S)
