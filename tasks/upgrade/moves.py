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

    An entry that only one of both has is not moved, and neither is one that has another
    address, licence or commit for the same bytes.
    """
    found = []
    for table in ("engines", "models"):
        before = getattr(old, table)
        for name, rows in getattr(new, table).items():
            known = before.get(name)
            if known and _digests(known) != _digests(rows):
                found.append(Move(table, name, known, rows))
    return found


def _digests(rows: Rows) -> list[str]:
    return [row.sha256 for row in rows]


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
