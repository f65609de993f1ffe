"""models.lock: for each file of the catalogue, where exactly it comes from and what its bytes must be.

Pure: joins it to the catalogue, says what it lacks, and writes its text; reading it is `schema.read_lock`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from tasks.catalogue.file_specs import Wanted, versioned, wanted, wanted_engine
from tasks.catalogue.types import LATEST, Name, Rule, Size, Strict, hex64
from tasks.errors import RecipeError
from tasks.system.paths import is_version, name_problem
from tasks.urls import filename_of, url_problem

HEAD = "# Exactly these bytes. `doit lock` writes this file from models.yaml; commit it, do not edit it.\n"
FROM_CATALOGUE = "models.yaml"

Text = Annotated[str, Rule("text")]


def _is_file(url: str) -> bool:
    return not url_problem(url, pinned=True) and not name_problem(filename_of(url))


@dataclass(eq=True, repr=False)
class Locked(Strict):
    """One file."""

    url: Annotated[str, Rule("where these bytes are", "the URL of a file, or its path", _is_file)]
    sha256: Annotated[str, Rule("their SHA-256", "64 lower-case hexadecimal digits", hex64)]
    license: Text
    digest_from: Annotated[str, Rule("who says so")]
    since: Annotated[str, Rule("the day since when it is known, as 2026-11-25")]
    source: Annotated[str | None, Rule("what models.yaml says, where that is not this very URL")] = None
    size: Size = None
    commit: Annotated[str | None, Rule("of the Hub's repository")] = None
    version: Annotated[
        str | None, Rule("of an engine", "a version of letters, digits, '.', '_', '+' and '-'", is_version)
    ] = None


@dataclass(eq=False, repr=False)
class LockFile(Strict):
    """models.lock as a whole."""

    version: Annotated[int, Rule("format of this file", "1", lambda v: v == 1)]
    engines: dict[Name, tuple[Locked, ...]] = field(default_factory=dict)
    models: dict[Name, tuple[Locked, ...]] = field(default_factory=dict)


def entries(plain: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], list[Wanted]]]:
    """(table, name, entry, its files) for each entry of a valid catalogue that has files."""
    for name, engine in plain["engines"].items():
        program = wanted_engine(engine)
        if program:
            yield "engines", name, engine, [program]
    for name, model in plain["models"].items():
        yield "models", name, model, wanted(model)


def found(lock: LockFile, table: str, name: str, want: Wanted) -> Locked | None:
    """What the lock says of one file; None where it says nothing of this source."""
    rows: tuple[Locked, ...] = getattr(lock, table).get(name, ())
    return next((row for row in rows if (row.source or row.url) == want.source), None)


def without(lock: LockFile | None, names: Collection[str]) -> LockFile | None:
    """The same, without some entries."""
    if lock is None:
        return None
    tables = ({n: rows for n, rows in t.items() if n not in names} for t in (lock.engines, lock.models))
    return LockFile(lock.version, *tables)


def merged(old: LockFile, new: LockFile, now: LockFile, place: str) -> LockFile:
    """Apply what changed from `old` to `new` to what the file says `now`.

    Raises RecipeError: the file's own change is another one.
    """
    tables: dict[str, dict[str, tuple[Locked, ...]]] = {"engines": {}, "models": {}}
    conflicts = []
    for table, rows in tables.items():
        before, ours, theirs = (getattr(lock, table) for lock in (old, new, now))
        for name in dict.fromkeys((*theirs, *ours)):
            was, mine, other = before.get(name), ours.get(name), theirs.get(name)
            if mine not in (was, other) and other != was:
                conflicts.append(name)
            if kept := other if mine == was else mine:
                rows[name] = kept
    if conflicts:
        what = f"{place} was changed meanwhile, and differs in {', '.join(conflicts)}; nothing was written"
        raise RecipeError(what, fix="run it again")
    return LockFile(now.version, **tables)


def ordered(lock: LockFile, plain: Mapping[str, Any]) -> LockFile:
    """The same in the order of models.yaml; what it does not have comes last."""
    tables = {}
    for table in ("engines", "models"):
        rows = getattr(lock, table)
        names = dict.fromkeys((*(name for name in plain[table] if name in rows), *rows))
        tables[table] = {name: rows[name] for name in names}
    return LockFile(lock.version, **tables)


def contradiction(want: Wanted, row: Locked) -> str:
    """In what the catalogue and the lock disagree about one source, or nothing."""
    if want.sha256 not in (None, row.sha256):
        return f"sha256 is {want.sha256} in models.yaml and {row.sha256} in models.lock"
    if want.size is not None and row.size not in (None, want.size):
        return f"size is {want.size} in models.yaml and {row.size} in models.lock"
    return ""


def lacks(plain: Mapping[str, Any], lock: LockFile) -> list[str]:
    """Names of entries that the lock does not cover, or that only the lock has, each with the reason."""
    rows: list[str] = []
    here = {"engines": set[str](), "models": set[str]()}
    for table, name, entry, files in entries(plain):
        here[table].add(name)
        locked = [found(lock, table, name, want) for want in files]
        known = getattr(lock, table).get(name, ())
        if not known:
            why = "is not in it"
        elif not all(locked) or len(known) != len(files):
            why = "names other files than models.yaml"
        else:
            pairs = [(w, row) for w, row in zip(files, locked, strict=True) if row]
            why = next(filter(None, (contradiction(w, row) for w, row in pairs)), "")
            if entry.get("version") == LATEST and pairs[0][1].version in (None, LATEST):
                why = "does not say which version is the latest"
            if not why and any(row.license != entry["license"] for _, row in pairs):
                why = "has another licence than models.yaml"
        if why:
            rows.append(f"{table}.{name} {why}")
    for table, names in here.items():
        gone = [name for name in getattr(lock, table) if name not in names]
        rows += [f"{table}.{name} is no entry of models.yaml" for name in gone]
    return rows


def join(plain: dict[str, Any], lock: LockFile | None) -> list[tuple[tuple[str, ...], str]]:
    """Write into each entry of the catalogue what its files are: `url`, `mirrors`, `sha256`, `size`, `more`.

    Returns:
        Where both disagree: (path of the entry, in what).
    """
    problems: list[tuple[tuple[str, ...], str]] = []
    for table, name, entry, files in list(entries(plain)):
        rows: list[list[Any]] = []
        locked = [found(lock, table, name, want) if lock else None for want in files]
        parts = [row for want, row in zip(files, locked, strict=True) if not want.mmproj]
        for want, row in zip(files, locked, strict=True):
            if row and (why := contradiction(want, row)):
                problems.append(((table, name), why))
            if not want.mmproj and not all(parts):
                row = None  # the parts of a split file are pinned all or none
            rows.append(_pinned(want, row))
            if row and entry.get("version") == LATEST:
                entry["version"] = row.version  # type: ignore[index]
        _write(entry, rows)
    return problems


def _pinned(want: Wanted, row: Locked | None) -> list[Any]:
    """[url, mirrors, sha256, size, mmproj] of a file; the URL that the catalogue says stays a mirror."""
    if row is None:
        return [want.url, list(want.mirrors), want.sha256, want.size, want.mmproj]
    known = [versioned(url, row.version) if row.version else url for url in (want.url, *want.mirrors)]
    others = [url for url in known if url != row.url]
    return [row.url, others, row.sha256, want.size or row.size, want.mmproj]


def _write(entry: Any, rows: list[list[Any]]) -> None:
    entry["url"], mirrors, sha256, size, _ = rows[0]
    pins = {"mirrors": mirrors, "sha256": sha256, "size": size}
    for key, value in pins.items():
        entry.pop(key, None)
        if value:
            entry[key] = value
    for key in ("parts", "mmproj"):
        entry.pop(key, None)
    if rows[1:]:
        entry["more"] = rows[1:]


def render(lock: LockFile) -> str:
    """Its text: one key a line, in the order of models.yaml, so that a diff shows what has changed."""
    lines = [HEAD, "version: 1\n"]
    for table in ("engines", "models"):
        lines.append(f"{table}:\n" if getattr(lock, table) else f"{table}: {{}}\n")
        for name, rows in getattr(lock, table).items():
            lines.append(f"  {_scalar(name)}:\n")
            for row in rows:
                pairs = [(key, value) for key, value in asdict(row).items() if value is not None]
                for index, (key, value) in enumerate(pairs):
                    lines.append(f"  {'- ' if index == 0 else '  '}{key}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: str | int) -> str:
    """A value in YAML: plain where nothing can be mistaken, else in quotes as JSON, which YAML reads."""
    if isinstance(value, int):
        return str(value)
    plain = value[:1].isalpha() and all(c.isalnum() or c in "/._-@%+" for c in value.replace("://", "//"))
    words = value.lower() in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    number = set(value.lower()) <= set("0123456789abcdef._-+")  # a digest may look like 1e5
    return value if plain and value.isascii() and not (words or number) else _quoted(value)


def _quoted(value: str) -> str:
    """A value in quotes and in ASCII; not JSON's, because YAML knows no surrogate pairs."""
    inner = "".join(json.dumps(c)[1:-1] if c <= "\uffff" else f"\\U{ord(c):08x}" for c in value)
    return f'"{inner}"'
