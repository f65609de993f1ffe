"""Change models.yaml or models.lock without losing concurrent changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tasks.console.text import digest
from tasks.errors import RecipeError
from tasks.system import own_files
from tasks.system.files import write_atomic

WAIT_S = 60.0  # for another writer, which needs milliseconds


@contextmanager
def editing(path: str, cache: str) -> Iterator[None]:
    """Hold the lock of a file; read the file again inside.

    The lock file lies in the cache, or beside the file if the cache is not writable. It
    is not removed: see `transfer.locks`.

    Raises:
        RecipeError: another process holds the lock for more than `WAIT_S`, or the
            folder of the locks is a link.
        OSError: no folder for the lock is writable.
    """
    real = os.path.realpath(path)
    with ExitStack() as stack:
        try:
            lock_file = own_files.lock_file(cache, f"edit-{digest(real)[:16]}.lock")
            stack.enter_context(_held(Path(lock_file), path))
        except OSError:
            folder, name = os.path.split(real)
            stack.enter_context(_held(Path(folder, f".{name}.lock"), path))
        yield


@contextmanager
def _held(lock_file: Path, path: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock: Any = FileLock(lock_file, timeout=WAIT_S)
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        what = f"another process has locked {path} for more than {WAIT_S:.0f} s"
        fix = "stop that process, then run this command again"
        raise RecipeError(what, [("lock", lock_file)], fix=fix) from None
    try:
        yield
    finally:
        lock.release()


def replace(path: str, text: str) -> None:
    """Replace a file atomically; its mode stays, and a link to it stays a link.

    Raises:
        OSError: the file cannot be written.
    """
    real = os.path.realpath(path)
    mode = None
    if os.path.exists(real):
        mode = os.stat(real).st_mode & 0o7777
    write_atomic(real, text, mode=mode)
