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

    def __init__(self, cache: str = "", name: str = "") -> None:
        self._cache = cache
        self._name = name
        self._path = ""  # nothing is remembered
        if name:
            self._path = os.path.join(cache, FOLDER, name)

    def load(self) -> str:
        """Return the place; "" if there is none."""
        if not self._path:
            return ""
        data = own_files.read_of_user(self._path, _MOST)
        try:
            record = json.loads(data or b"{}")
            place, name = record["place"], record["name"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        # another user of the cache may rename the record of another upload
        if not isinstance(place, str) or name != self._name:
            return ""
        return place

    def save(self, place: str) -> None:
        """Remember a place; a cache that cannot be written remembers none."""
        if not self._path:
            return
        with contextlib.suppress(OSError):
            own_files.make_folder(self._cache, FOLDER)
            text = json.dumps({"name": self._name, "place": place}) + "\n"
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
    with _try_lock(cache, f"{key}.lock") as ours:
        name = ""
        if ours:
            name = f"{key}.json"
            own_files.check_inside(cache, os.path.join(cache, FOLDER, name))
        yield Record(cache, name)


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
