"""`doit lock`: models.lock says exactly which bytes each entry of models.yaml means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks import doit_adapter
from tasks.catalogue import edit_file, load, lockfile
from tasks.catalogue.lockfile import Locked, LockFile
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe
from tasks.errors import RecipeError, TransferError, UsageError
from tasks.upstream.resolver import Locker
from tasks.urls import filename_of


def action(recipe: Recipe, ask: Ask) -> tuple[Callable[..., None], list[Any]]:
    """Return what the task does, and its arguments.

    Raises UsageError: models.lock is damaged, or both files contradict each other.
    """
    from tasks.catalogue import schema

    where = recipe.catalogue.where
    text = load.text_of(load.read(where), where)
    place, content = load.lock_path(where), load.read_lock(where)
    old = None if content is None else schema.read_lock(load.text_of(content, place), place)
    plain = schema.read_catalogue(text, where)
    chosen = {word if word in plain["engines"] else recipe.catalogue.name(word) for word in ask.models}
    if "check" in ask.options:
        if more := [f"--{name}" for name in ("upgrade", "download") if name in ask.options]:
            raise UsageError(f"--check only compares: {' and '.join(more)} would change the file")
        return check, [plain, old, place]
    moving = (chosen or {*plain["engines"], *plain["models"]}) if "upgrade" in ask.options else set()
    schema.compile_text(text, where, lockfile.without(old, moving))
    locker = Locker(recipe.place, ask, plain, old or LockFile(1), where)
    return run, [locker, chosen, place]


def run(locker: Locker, chosen: set[str], place: str) -> None:
    """Write models.lock.

    Raises:
        TransferError: what is open could not be found out; nothing is written.
        RecipeError: another process changed the same entries meanwhile; nothing is written.
    """
    found = locker.locked(chosen)
    with edit_file.editing(place, locker.cache):
        now = load.read_lock(locker.where)
        new = _joined(locker, found, place, now)
        text = lockfile.render(new)
        same = now is not None and text == load.text_of(now, place)
        if not same:
            edit_file.replace(place, text)
    for line in changes(locker.old, found):
        doit_adapter.show(line)
    doit_adapter.show(f"{place}: {_count(new)}{', nothing changed' if same else ''}")


def _joined(locker: Locker, found: LockFile, place: str, now: bytes | None) -> LockFile:
    """Join what was found to what models.lock says now, for models.yaml as it is now.

    Raises:
        UsageError: one of them has errors now.
        TransferError: a publisher has stated what could not be read again.
        RecipeError: another process changed the same entries.
    """
    from tasks.catalogue import schema

    said = LockFile(1)
    if now is not None:
        said = schema.read_lock(load.text_of(now, place), place)
    catalogue = load.text_of(load.read(locker.where), locker.where)
    plain = schema.read_catalogue(catalogue, locker.where)
    new = lockfile.ordered(lockfile.merged(locker.old, found, said, place), plain)
    _check_readable(lockfile.render(new), place, catalogue, locker.where)
    return new


def _check_readable(text: str, place: str, catalogue: str, where: str) -> None:
    """See that a new models.lock can be read again. Raises TransferError: a publisher has stated nonsense."""
    from tasks.catalogue import schema

    try:
        schema.compile_text(catalogue, where, schema.read_lock(text, place))
    except UsageError as error:
        what = "nothing was written: with what the publishers state, models.lock could not be read again"
        raise TransferError(what, [("why", error.what)], fix="pin it in models.yaml: sha256, size") from None


def check(plain: Mapping[str, Any], old: LockFile | None, place: str) -> None:
    """See that the lock covers the catalogue. Raises RecipeError: it does not."""
    if old is None:
        raise RecipeError(f"there is no {place}", fix="doit lock, and commit it")
    if lacking := lockfile.lacks(plain, old):
        facts = [(row.partition(" ")[0], row.partition(" ")[2]) for row in lacking]
        what = f"{place} does not cover the catalogue"
        raise RecipeError(what, facts, fix="doit lock, and commit it")
    doit_adapter.show(f"{place} covers the catalogue: {_count(old)}")


def _count(found: LockFile) -> str:
    rows = [row for table in (found.engines, found.models) for rows in table.values() for row in rows]
    counts = ((len(rows), "file"), (len(found.models), "model"), (len(found.engines), "engine"))
    words = [f"{number} {word}{'s' * (number != 1)}" for number, word in counts]
    return f"{words[0]} of {' and '.join(words[1:])}"


def changes(old: LockFile, new: LockFile) -> list[str]:
    """What differs, a line each: + new, - gone, ~ moved from one digest to another."""
    lines = []
    for table in ("engines", "models"):
        before, after = getattr(old, table), getattr(new, table)
        lines += [f"- {name}" for name in before if name not in after]
        for name, rows in after.items():
            known = {row.source or row.url: row for row in before.get(name, ())}
            for row in rows:
                was, file = known.get(row.source or row.url), filename_of(row.url)
                if was is None:
                    size = formatting.size(row.size)
                    lines.append(f"+ {name}: {file} {size} sha256:{row.sha256} ({row.digest_from})")
                elif (was.sha256, was.url) != (row.sha256, row.url):
                    same = ", the same bytes" if was.sha256 == row.sha256 else ""
                    lines.append(f"~ {name}: {file}{same}")
                    lines += [f"    {word} {_version(one)}" for word, one in (("old", was), ("new", row))]
                elif was.license != row.license:
                    lines.append(f"~ {name}: licence {was.license} → {row.license}")
    return lines


def _version(row: Locked) -> str:
    version = row.version or (row.commit or "")[:12] or row.since
    return f"{version} sha256:{row.sha256} {formatting.size(row.size)}"
