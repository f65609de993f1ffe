"""Change models.yaml or models.lock without losing what others have written to it meanwhile."""

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

WAIT_S = 60.0  # for another process that writes; it takes milliseconds


@contextmanager
def editing(path: str, cache: str) -> Iterator[None]:
    """Hold the lock of a file; read the file again inside.

    The lock file lies in the cache, or beside the file where the cache cannot be written. It is not
    removed: see `effects.locks`.

    Raises:
        RecipeError: another process has had it for too long, or the folder of the locks is a link.
        OSError: there is no place for a lock.
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
        what = f"another process has been writing {path} for more than {WAIT_S:.0f} s"
        raise RecipeError(what, [("lock", lock_file)], fix="stop it, and run this again") from None
    try:
        yield
    finally:
        lock.release()


def replace(path: str, text: str) -> None:
    """Replace the file that the path stands for; it keeps its mode, and links to it stay. Raises OSError."""
    real = os.path.realpath(path)
    mode = os.stat(real).st_mode & 0o7777 if os.path.exists(real) else None
    write_atomic(real, text, mode=mode)
