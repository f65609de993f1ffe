"""models.lock: the exact URL, digest and size of each file of the catalogue.

Pure. Applies the lock to the catalogue, reports what it lacks, and renders its text;
`schema.read_lock` parses it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from tasks.catalogue.constraints import (
    LATEST,
    Constraint,
    Name,
    Size,
    is_sha256,
    one_of,
)
from tasks.catalogue.file_specs import engine_files, file_specs, with_version
from tasks.catalogue.locked_memory import LockedMemory
from tasks.catalogue.serve_options import Strict
from tasks.catalogue.types import COMPANION_KEYS, FileSpec
from tasks.errors import RecipeError
from tasks.system.paths import is_version, name_problem
from tasks.urls import filename_of, url_error

HEADER = (
    "# Exactly these bytes. `doit lock` writes this file from models.yaml; "
    + "commit it, do not edit it.\n"
)
FROM_CATALOGUE = "models.yaml"
_TABLES = ("engines", "models")


def _is_file(url: str) -> bool:
    return not url_error(url, pinned=True) and not name_problem(filename_of(url))


_URL = Constraint("URL of the bytes", "the URL of a file, or its path", _is_file)
_SHA256 = Constraint("their SHA-256", "64 lower-case hexadecimal digits", is_sha256)
_VERSION = Constraint(
    "version of an engine",
    "a version of letters, digits, '.', '_', '+' and '-'",
    is_version,
)


# files that a registry's manifest has beside a model, and the entry need not name
ROLES_BESIDE = ("mmproj", "template")
_ROLE = one_of(ROLES_BESIDE, "what a file is that the entry does not name")


@dataclass(eq=True, repr=False)
class LockedFile(Strict):
    """One file."""

    url: Annotated[str, _URL]
    sha256: Annotated[str, _SHA256]
    license: Annotated[str, Constraint("license, as in models.yaml")]
    digest_from: Annotated[str, Constraint("who published the digest")]
    since: Annotated[str, Constraint("day on which it was locked, such as 2026-11-25")]
    source: Annotated[
        str | None, Constraint("the source in models.yaml, if not url")
    ] = None
    size: Size = None
    commit: Annotated[str | None, Constraint("commit of the Hub's repository")] = None
    version: Annotated[str | None, _VERSION] = None
    role: Annotated[str | None, _ROLE] = None
    memory: Annotated[
        LockedMemory | None, Constraint("what the memory that it needs depends on")
    ] = None


_Table = dict[Name, tuple[LockedFile, ...]]


@dataclass(eq=False, repr=False)
class LockFile(Strict):
    """models.lock as a whole."""

    version: Annotated[int, Constraint("format of this file", "1", lambda v: v == 1)]
    engines: _Table = field(default_factory=dict)
    models: _Table = field(default_factory=dict)


def entries(
    plain: Mapping[str, Any],
) -> Iterator[tuple[str, str, Mapping[str, Any], list[FileSpec]]]:
    """Yield (table, name, entry, its files) for each entry that has files."""
    for name, engine in plain["engines"].items():
        own = engine_files(engine)
        if own:
            yield "engines", name, engine, own
    for name, model in plain["models"].items():
        yield "models", name, model, file_specs(model)


def locked_file(
    lock: LockFile, table: str, name: str, want: FileSpec
) -> LockedFile | None:
    """Return the locked file for a source; None if the lock does not have it."""
    rows: tuple[LockedFile, ...] = getattr(lock, table).get(name, ())
    return next((row for row in rows if (row.source or row.url) == want.source), None)


def open_roles(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which files of a registry's manifest an entry uses without naming them."""
    if entry.get("variants") or entry.get("kind", "chat") != "chat":
        return ()
    return tuple(role for role in ROLES_BESIDE if not entry.get(role))


def rows_beside(
    lock: LockFile, name: str, entry: Mapping[str, Any], head: LockedFile | None
) -> list[LockedFile]:
    """Return the locked files of a model that its manifest adds to its entry.

    Args:
        head: the locked file of the model itself, which is of the same manifest.
    """
    if head is None:
        return []
    roles = open_roles(entry)
    folder = head.url.rpartition("/")[0]
    return [
        row
        for row in lock.models.get(name, ())
        if row.role in roles and row.url.rpartition("/")[0] == folder
    ]


def drop_entries(lock: LockFile | None, names: Collection[str]) -> LockFile | None:
    """Return the lock without some entries."""
    if lock is None:
        return None
    tables = (
        {name: rows for name, rows in table.items() if name not in names}
        for table in (lock.engines, lock.models)
    )
    return LockFile(lock.version, *tables)


def merged(old: LockFile, new: LockFile, now: LockFile, place: str) -> LockFile:
    """Merge the changes from `old` to `new` into `now`, the file's current content.

    Raises:
        RecipeError: the file was changed concurrently, in the same entries.
    """
    tables: dict[str, dict[str, tuple[LockedFile, ...]]] = {}
    conflicts: list[str] = []
    for table in _TABLES:
        base, ours, theirs = (getattr(lock, table) for lock in (old, new, now))
        tables[table] = {}
        for name in dict.fromkeys((*theirs, *ours)):
            before, our, their = base.get(name), ours.get(name), theirs.get(name)
            if our not in (before, their) and their != before:
                conflicts.append(name)
            kept = their if our == before else our
            if kept:
                tables[table][name] = kept
    if conflicts:
        names = ", ".join(conflicts)
        what = f"another process changed {place}, with conflicts in {names}"
        raise RecipeError(f"{what}; nothing was written", fix="run the command again")
    return LockFile(now.version, **tables)


def ordered(lock: LockFile, plain: Mapping[str, Any]) -> LockFile:
    """Return the lock in the order of models.yaml; unknown entries come last."""
    tables = {}
    for table in _TABLES:
        rows = getattr(lock, table)
        names = dict.fromkeys((*(name for name in plain[table] if name in rows), *rows))
        tables[table] = {name: rows[name] for name in names}
    return LockFile(lock.version, **tables)


def find_conflict(want: FileSpec, row: LockedFile) -> str:
    """Return how catalogue and lock differ about a source, or an empty text."""
    if want.sha256 not in (None, row.sha256):
        return f"sha256 is {want.sha256} in models.yaml and {row.sha256} in models.lock"
    if want.size is not None and row.size not in (None, want.size):
        return f"size is {want.size} in models.yaml and {row.size} in models.lock"
    return ""


def coverage_errors(plain: Mapping[str, Any], lock: LockFile) -> list[str]:
    """Return the entries that only models.yaml or only models.lock covers, and why."""
    errors: list[str] = []
    known: dict[str, set[str]] = {table: set() for table in _TABLES}
    for table, name, entry, files in entries(plain):
        known[table].add(name)
        reason = _coverage_error(lock, table, name, entry, files)
        if reason:
            errors.append(f"{table}.{name} {reason}")
    for table in _TABLES:
        unknown = [name for name in getattr(lock, table) if name not in known[table]]
        errors += [f"{table}.{name} is not an entry of models.yaml" for name in unknown]
    return errors


def contradicted(plain: Mapping[str, Any], lock: LockFile) -> list[str]:
    """Return the entries whose pins in models.yaml and in models.lock differ."""
    names = []
    for table, name, _, files in entries(plain):
        pairs = [(want, locked_file(lock, table, name, want)) for want in files]
        if any(row and find_conflict(want, row) for want, row in pairs):
            names.append(name)
    return names


def _coverage_error(
    lock: LockFile,
    table: str,
    name: str,
    entry: Mapping[str, Any],
    files: list[FileSpec],
) -> str:
    """Return why the lock does not cover an entry, or an empty text."""
    rows = getattr(lock, table).get(name, ())
    if not rows:
        return "is not in models.lock"
    pairs = [(want, locked_file(lock, table, name, want)) for want in files]
    locked = [(want, row) for want, row in pairs if row]
    beside: list[LockedFile] = []
    if table == "models" and locked:
        beside = rows_beside(lock, name, entry, locked[0][1])
    if len(locked) != len(files) or len(rows) != len(files) + len(beside):
        return "names other files than models.yaml"
    versions = {row.version for _, row in locked}
    if entry.get("version") == LATEST and versions & {None, LATEST}:
        return "does not say which version is the latest"
    if entry.get("version") == LATEST and len(versions) > 1:
        return "has archives of different versions"
    for want, row in locked:
        conflict = find_conflict(want, row)
        if conflict:
            return conflict
    if any(row.license != entry["license"] for row in rows):
        return "has another license than models.yaml"
    return ""


def apply_lock(
    plain: dict[str, Any], lock: LockFile | None
) -> list[tuple[tuple[str, ...], str]]:
    """Set `url`, `mirrors`, `sha256`, `size` and `more` of each catalogue entry.

    Returns:
        Conflicts of catalogue and lock: (path of the entry, text).
    """
    problems: list[tuple[tuple[str, ...], str]] = []
    for table, name, entry, files in list(entries(plain)):
        locked = [
            locked_file(lock, table, name, want) if lock else None for want in files
        ]
        pairs = list(zip(files, locked, strict=True))
        for want, row in pairs:
            if row and (text := find_conflict(want, row)):
                problems.append(((table, name), text))
        if lock and table == "models":
            beside = rows_beside(lock, name, entry, locked[0])
            pairs += [(FileSpec(row.url, role=row.role or ""), row) for row in beside]
        if entry.get("archives"):
            _apply_archives(entry, pairs)
        else:
            _apply(entry, pairs)
    return problems


_Pairs = list[tuple[FileSpec, LockedFile | None]]


def _apply(entry: Any, pairs: _Pairs) -> None:
    """Set the files of an entry, or of each of its variants."""
    variants = entry.pop("variants", None)
    if not variants:
        _apply_files(entry, pairs)
        return
    for name, own in variants.items():
        of_variant = [pair for pair in pairs if pair[0].variant in (name, "")]
        _apply_files(own, of_variant)
        for key in ("hf", "file", "revision"):
            own.pop(key, None)
    for key in COMPANION_KEYS:
        entry.pop(key, None)
    entry["variants"] = variants


def _apply_files(entry: Any, pairs: _Pairs) -> None:
    # the parts of a split file are pinned all or none
    all_parts = all(row for want, row in pairs if not want.role)
    pins: list[FileSpec] = []
    for want, row in pairs:
        usable = row if want.role or all_parts else None
        pins.append(_pinned(want, usable))
        if usable and entry.get("version") == LATEST:
            entry["version"] = usable.version
    _write(entry, pins)
    head = pairs[0][1]
    if head and all_parts and head.memory:
        entry["memory"] = head.memory.as_plain()


def _apply_archives(entry: Any, pairs: _Pairs) -> None:
    """Replace the names of an engine's archives by rows of `FileSpec`."""
    entry["archives"] = {
        want.variant: _pinned(want, row).as_row() for want, row in pairs
    }
    for key in ("url", "mirrors"):
        entry.pop(key, None)
    versions = {row.version for _, row in pairs if row}
    if entry.get("version") == LATEST and len(versions) == 1:
        entry["version"] = versions.pop()


def _pinned(want: FileSpec, row: LockedFile | None) -> FileSpec:
    """Return a file with the URL, digest and size that the lock has for it."""
    if row is None:
        return want
    urls = [want.url, *want.mirrors]
    if row.version:
        urls = [with_version(url, row.version) for url in urls]
    mirrors = tuple(url for url in urls if url != row.url)
    size = want.size or row.size
    return want._replace(url=row.url, mirrors=mirrors, sha256=row.sha256, size=size)


def _write(entry: Any, pins: list[FileSpec]) -> None:
    first, *more = pins
    for key in ("mirrors", "sha256", "size", "parts", *COMPANION_KEYS):
        entry.pop(key, None)
    entry["url"] = first.url
    values = {
        "mirrors": list(first.mirrors),
        "sha256": first.sha256,
        "size": first.size,
        "more": [file.as_row() for file in more],
    }
    entry.update({key: value for key, value in values.items() if value})


def render(lock: LockFile) -> str:
    """Return the text of models.lock: one key a line, so that a diff is readable."""
    lines = [HEADER, "version: 1\n"]
    for table in _TABLES:
        entries_of_table = getattr(lock, table)
        lines.append(f"{table}:\n" if entries_of_table else f"{table}: {{}}\n")
        for name, rows in entries_of_table.items():
            lines.append(f"  {_scalar(name)}:\n")
            for row in rows:
                lines += _row_lines(row)
    return "".join(lines)


def _row_lines(row: LockedFile) -> Iterator[str]:
    prefix = "  - "
    for item in fields(row):
        value = getattr(row, item.name)
        if isinstance(value, LockedMemory):
            yield f"{prefix}{item.name}:\n"
            for key, one in value.as_plain().items():
                yield f"      {key}: {_scalar(one)}\n"
        elif value is not None:
            yield f"{prefix}{item.name}: {_scalar(value)}\n"
            prefix = "    "


def _scalar(value: str | int | list[int]) -> str:
    """Return a value in YAML: plain if it is unambiguous, else quoted."""
    if not isinstance(value, str):
        return str(value)
    return value if _is_unambiguous(value) else _quoted(value)


def _is_unambiguous(value: str) -> bool:
    text = value.lower()
    if text in ("null", "true", "false", "yes", "no", "on", "off", "y", "n"):
        return False
    if set(text) <= set("0123456789abcdef._-+"):  # a digest may look like 1e5
        return False
    without_scheme = value.replace("://", "//")
    plain = all(c.isalnum() or c in "/._-@%+" for c in without_scheme)
    return plain and value.isascii() and value[:1].isalpha()


def _quoted(value: str) -> str:
    """Return a value in quotes and ASCII; YAML has no surrogate pairs as JSON has."""
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character > "\uffff":
        return f"\\U{ord(character):08x}"
    return json.dumps(character)[1:-1]
