"""Remember an upload that is not complete, so that the next command continues it."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.console.text import digest
from tasks.system import files, own_files

FOLDER = "uploads"  # in the cache
_MOST = 64 * 1024  # bytes of a record


class Record:
    """The place of one upload: the URL where it continues.

    It may contain a secret of the registry: only this user can read it. A second push
    of the same file does not use it, and starts an upload of its own.
    """

    def __init__(self, path: str) -> None:
        self._path = path  # empty: nothing is remembered

    def load(self) -> str:
        """Return the place; "" if there is none."""
        if not self._path:
            return ""
        data = own_files.read_of_user(self._path, _MOST)
        try:
            place = json.loads(data or b"{}")["place"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        if not isinstance(place, str):
            return ""
        return place

    def save(self, place: str) -> None:
        """Remember a place; a cache that cannot be written remembers none."""
        if not self._path:
            return
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            text = json.dumps({"place": place}) + "\n"
            files.write_atomic(self._path, text, private=True)

    def forget(self) -> None:
        """Remove the record."""
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


@contextmanager
def record(cache: str, base: str, sha256: str) -> Iterator[Record]:
    """Yield the record of a file and a repository, which no other process uses.

    Args:
        base: URL of the repository.
    """
    key = digest(f"{base} {sha256}")[:16]
    path = os.path.join(cache, FOLDER, f"{key}.json")
    with _try_lock(cache, f"{key}.lock") as ours:
        if ours:
            own_files.check_inside(cache, path)
        yield Record(path if ours else "")


@contextmanager
def _try_lock(cache: str, name: str) -> Iterator[bool]:
    """Try to hold a lock; yield whether it succeeded. Do not wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(own_files.lock_file(cache, name))
    ours = False
    try:
        with contextlib.suppress(OSError, Timeout), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own_files.make_folder(cache, "locks")
            lock.acquire(timeout=0)
            ours = True
        yield ours
    finally:
        lock.release()
