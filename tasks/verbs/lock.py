"""`doit lock`: models.lock says exactly which bytes each entry of models.yaml means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from doit.task import Task

from tasks import doit_adapter
from tasks.catalogue import edit_file, load, lockfile
from tasks.catalogue.file_specs import Wanted, hub_file
from tasks.catalogue.lockfile import FROM_CATALOGUE, Locked, LockFile
from tasks.catalogue.types import LATEST
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe
from tasks.errors import RecipeError, TransferError, UsageError
from tasks.network import huggingface
from tasks.system import files
from tasks.system.paths import inside
from tasks.upstream.metadata import Stated
from tasks.urls import filename_of, host_of, is_local

HERE = "this machine"
DOWNLOADED = "doit lock --download"
OPEN_FIX = f"{DOWNLOADED} fetches and hashes it; or write its sha256 into models.yaml"


def task(recipe: Recipe, ask: Ask) -> Task:
    """The one task. Raises UsageError: models.lock is damaged, or both files contradict each other."""
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
        return doit_adapter.task("lock", check, [plain, old, place], meta={"report": True})
    moving = (chosen or {*plain["engines"], *plain["models"]}) if "upgrade" in ask.options else set()
    schema.compile_text(text, where, lockfile.without(old, moving))
    locker = Locker(recipe, ask, plain, old or LockFile(1))
    return doit_adapter.task("lock", run, [locker, chosen, place], meta={"report": True})


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


class Locker:
    """One run of `doit lock`."""

    def __init__(self, recipe: Recipe, ask: Ask, plain: Mapping[str, Any], old: LockFile) -> None:
        self._recipe, self._plain, self.old = recipe, plain, old
        self._upgrade, self._download = "upgrade" in ask.options, "download" in ask.options
        self._known: Any = None
        self._failed: list[tuple[str, str]] = []
        self._fixes: dict[str, None] = {}
        self.where, self.cache = recipe.catalogue.where, recipe.place.cache

    def locked(self, chosen: set[str]) -> LockFile:
        """The new lock; entries that were not chosen stay as they are. Raises TransferError."""
        new = LockFile(1)
        for table, name, entry, wanted in lockfile.entries(self._plain):
            if chosen and name not in chosen:
                rows = getattr(self.old, table).get(name)
            else:
                rows = tuple(filter(None, (self._row(table, name, entry, want) for want in wanted)))
            if rows:
                getattr(new, table)[name] = rows
        if self._failed:
            what = "nothing was written: what models.yaml leaves open could not be found out"
            raise TransferError(what, self._failed, fix="\n".join(self._fixes))
        return new

    def _row(self, table: str, name: str, entry: Mapping[str, Any], want: Wanted) -> Locked | None:
        old = lockfile.found(self.old, table, name, want)
        if old and not self._upgrade:
            return replace(old, license=entry["license"], size=old.size or want.size)
        try:
            stated = self.stated(name, entry, want)
        except RecipeError as error:
            self._failed.append((name, error.what))
            self._fixes |= dict.fromkeys(filter(None, [error.fix]))
            return None
        by, since = stated.by, date.today().isoformat()
        if old and old.sha256 == stated.sha256:
            by, since = old.digest_from, old.since
        return Locked(
            stated.url, stated.sha256 or "", entry["license"], by, since,
            want.source if want.source != stated.url else None,
            stated.size or want.size, stated.commit, stated.version if entry.get("version") else None,
        )  # fmt: skip

    def stated(self, name: str, entry: Mapping[str, Any], want: Wanted) -> Stated:
        """What is known of one file: from the catalogue, its publisher, or a download. Raises RecipeError."""
        file, version = hub_file(want.url), str(entry.get("version") or "")
        fixed = version != LATEST and (file is None or file.is_pinned)
        commit = file.revision if file and file.is_pinned else None
        own = Stated(want.url, want.sha256, want.size, commit, version or None, FROM_CATALOGUE)
        if want.sha256 and want.size and fixed:
            return own
        if is_local(want.url):
            return self._hashed(want, own)
        try:
            stated = self._ask(want.url, version, pinned=bool(want.sha256))
            if version != LATEST:
                stated = stated._replace(version=own.version)
        except TransferError as error:
            if want.sha256 and fixed:
                doit_adapter.log().warning("%s: its size is not known: %s", name, error.what)
                return own
            raise
        if want.sha256:
            if stated.sha256 not in (None, want.sha256):
                what = f"sha256 is {want.sha256} in models.yaml, and {stated.by} says {stated.sha256}"
                raise RecipeError(what, fix=f"edit {name} in models.yaml: another revision, or that digest")
            return stated._replace(sha256=want.sha256, size=want.size or stated.size, by=FROM_CATALOGUE)
        if stated.sha256:
            return stated
        if not self._download:
            what = f"{host_of(stated.url)} states no SHA-256 of {filename_of(stated.url)}"
            raise RecipeError(what, fix=OPEN_FIX)
        return self._downloaded(name, stated)

    def _ask(self, url: str, version: str, pinned: bool) -> Stated:
        stated: Stated = self._publishers(url).state(url, version, pinned)
        return stated

    def licence(self, url: str) -> str:
        """The licence that a file's publisher names, or nothing."""
        if is_local(url):
            return ""
        try:
            found: str = self._publishers(url).licence(url)
        except TransferError:
            return ""
        return found

    def _publishers(self, url: str) -> Any:
        """Whom to ask. Raises TransferError: nobody may be, and importing requests opens a socket."""
        if variable := huggingface.offline(os.environ):
            raise TransferError(f"{host_of(url)}: {variable} forbids the network")
        if self._known is None:
            from tasks.upstream.client import Publishers  # requests costs more than doit itself

            self._known = Publishers()
        return self._known

    def _hashed(self, want: Wanted, own: Stated) -> Stated:
        from tasks.transfer.local_sources import path_of

        path = self._recipe.place.absolute(path_of(want.url), self._recipe.place.root)
        if files.stat(path) is None:
            raise RecipeError(f"there is no file {path}")
        digest, found = files.sha256_file(path)
        if want.sha256 not in (None, digest):
            raise RecipeError(f"sha256 is {want.sha256} in models.yaml, and {digest} is that of {path}")
        return own._replace(sha256=digest, size=found.size, by=FROM_CATALOGUE if want.sha256 else HERE)

    def _downloaded(self, name: str, stated: Stated) -> Stated:
        from tasks.catalogue.artifact import Artifact, model_dir
        from tasks.verbs.download import converge

        cache = self._recipe.place.cache
        target = inside(model_dir(cache, None, stated.url), filename_of(stated.url))
        artifact = Artifact(name, (stated.url,), target, None, stated.size)
        converge(cache, artifact, again=self._upgrade)
        stamp = files.read_stamp(cache, artifact)
        if stamp is None or stamp.sha256 is None:
            raise RecipeError(f"{target} could not be hashed")
        return stated._replace(sha256=stamp.sha256, size=stamp.stat.size, by=DOWNLOADED)
