"""Which pins of models.lock an upgrade would move. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.catalogue import lockfile
from tasks.catalogue.lockfile import LockedFile, LockFile

Rows = tuple[LockedFile, ...]


class Move(NamedTuple):
    """One entry of models.lock that has other bytes now."""

    table: str  # engines or models
    name: str
    old: Rows
    new: Rows

    @property
    def title(self) -> str:
        """Return how people name it."""
        return f"{self.table[:-1]} {self.name}"


def moves(old: LockFile, new: LockFile) -> list[Move]:
    """Return the entries whose bytes differ, engines first.

    An entry that only one of both has is not moved, and neither is one whose sources
    were changed in models.yaml: its old pin is of another file. The same bytes at
    another address or commit are no move either.
    """
    found = []
    for table in ("engines", "models"):
        before = getattr(old, table)
        for name, rows in getattr(new, table).items():
            known = before.get(name)
            if known and _is_moved(_digests(known), _digests(rows)):
                found.append(Move(table, name, known, rows))
    return found


def _digests(rows: Rows) -> dict[str, str]:
    """Return the digest of each source."""
    return {row.source or row.url: row.sha256 for row in rows}


def _is_moved(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    return old.keys() == new.keys() and old != new


def with_rows(lock: LockFile, table: str, name: str, rows: Rows) -> LockFile:
    """Return the lock with other rows of one entry."""
    tables: dict[str, dict[str, Rows]] = {
        "engines": dict(lock.engines),
        "models": dict(lock.models),
    }
    tables[table][name] = rows
    return LockFile(lock.version, **tables)


def usable(lock: LockFile, plain: Mapping[str, Any]) -> LockFile:
    """Return the lock without entries that contradict models.yaml."""
    names = lockfile.contradicted(plain, lock)
    return lockfile.drop_entries(lock, names) or lock
