"""`doit lock`: models.lock says exactly which bytes each entry of models.yaml means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from doit.task import Task

from tasks import glue
from tasks.core import lock, report
from tasks.core.errors import RecipeError, TransferError, UsageError
from tasks.core.lock import FROM_CATALOGUE, Locked, LockFile
from tasks.core.options import Ask
from tasks.core.publisher import Stated
from tasks.core.sources import Wanted, hub_file
from tasks.core.urls import filename_of, is_local
from tasks.effects import compiled, files
from tasks.recipe import Recipe

HERE = "this machine"
DOWNLOADED = "doit lock --download"


def task(recipe: Recipe, ask: Ask) -> Task:
    """The one task."""
    return glue.task("lock", run, [recipe, ask], meta={"report": True})


def run(recipe: Recipe, ask: Ask) -> None:
    """Write models.lock, or with --check compare it with models.yaml.

    Raises:
        UsageError: both contradict each other.
        TransferError: what is open could not be found out; nothing is written.
        RecipeError: --check, and the lock does not cover the catalogue.
    """
    from tasks.core import schema

    where = recipe.catalogue.where
    plain = schema.read_catalogue(compiled.text_of(compiled.read(where), where), where)
    place = compiled.lock_path(where)
    content = compiled.read_lock(where)
    old = schema.read_lock(compiled.text_of(content, place), place) if content is not None else None
    if ask.options.get("check"):
        check(plain, old, place)
        return
    chosen = {recipe.catalogue.name(word) for word in ask.models}
    new = Locker(recipe, ask, plain, old or LockFile(1)).locked(chosen)
    text = lock.render(new)
    before = compiled.text_of(content, place) if content is not None else ""
    if text != before:
        files.write_atomic(place, text)
    for line in changes(old or LockFile(1), new):
        glue.show(line)
    glue.show(f"{place}: {_count(new)}{', nothing changed' if text == before else ''}")


def check(plain: Mapping[str, Any], old: LockFile | None, place: str) -> None:
    """See that the lock covers the catalogue. Raises RecipeError: it does not."""
    if old is None:
        raise RecipeError(f"there is no {place}", fix="doit lock, and commit it")
    if lacking := lock.lacks(plain, old):
        facts = [(row.partition(" ")[0], row.partition(" ")[2]) for row in lacking]
        what = f"{place} does not cover the catalogue"
        raise RecipeError(what, facts, fix="doit lock, and commit it")
    glue.show(f"{place} covers the catalogue: {_count(old)}")


def _count(found: LockFile) -> str:
    rows = [row for table in (found.engines, found.models) for rows in table.values() for row in rows]
    engines = f" and {len(found.engines)} engine" if found.engines else ""
    return f"{len(rows)} files of {len(found.models)} models{engines}"


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
                    size = report.size(row.size)
                    lines.append(f"+ {name}: {file} {size} sha256:{row.sha256} ({row.digest_from})")
                elif was.sha256 != row.sha256:
                    lines.append(f"~ {name}: {file}")
                    lines += [f"    {_version(one)} sha256:{one.sha256}" for one in (was, row)]
    return lines


def _version(row: Locked) -> str:
    return row.version or (row.commit or "")[:12] or row.since


def _publishers() -> Any:
    from tasks.effects.publisher import Publishers  # requests costs more than doit itself

    return Publishers()


class Locker:
    """One run of `doit lock`."""

    def __init__(self, recipe: Recipe, ask: Ask, plain: Mapping[str, Any], old: LockFile) -> None:
        self._recipe, self._plain, self._old = recipe, plain, old
        self._upgrade, self._download = "upgrade" in ask.options, "download" in ask.options
        self._publishers: Any = None
        self._failed: list[tuple[str, str]] = []
        self._fixes: dict[str, None] = {}

    def locked(self, chosen: set[str]) -> LockFile:
        """The new lock; entries that were not chosen stay as they are. Raises TransferError."""
        new = LockFile(1)
        for table, name, entry, wanted in lock.entries(self._plain):
            known = getattr(self._old, table).get(name)
            if chosen and (table == "engines" or name not in chosen):
                rows = known
            else:
                rows = tuple(filter(None, (self._row(table, name, entry, want) for want in wanted)))
            if rows:
                getattr(new, table)[name] = rows
        if self._failed:
            what = "nothing was written: what models.yaml leaves open could not be found out"
            raise TransferError(what, self._failed, fix="\n".join(self._fixes))
        return new

    def _row(self, table: str, name: str, entry: Mapping[str, Any], want: Wanted) -> Locked | None:
        old = lock.found(self._old, table, name, want)
        if old and not self._upgrade:
            if problem := lock.contradiction(want, old):
                where = self._recipe.catalogue.where
                fix = f"edit {where}, or if it is right: doit lock --upgrade --model {name}"
                raise UsageError(f"{table}.{name}: {problem}", fix=fix)
            return replace(old, license=entry["license"])
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
            stated.size, stated.commit, stated.version if table == "engines" else None,
        )  # fmt: skip

    def stated(self, name: str, entry: Mapping[str, Any], want: Wanted) -> Stated:
        """What is known of one file: from the catalogue, its publisher, or a download. Raises RecipeError."""
        file, version = hub_file(want.url), str(entry.get("version") or "")
        fixed = version != "latest" and (file is None or file.is_pinned)
        commit = file.revision if file and file.is_pinned else None
        own = Stated(want.url, want.sha256, want.size, commit, version or None, FROM_CATALOGUE)
        if want.sha256 and want.size and fixed:
            return own
        if is_local(want.url):
            return self._hashed(want, own)
        try:
            stated = self._ask(want.url, version)
        except TransferError as error:
            if want.sha256 and fixed:
                glue.log().warning("%s: its size is not known: %s", name, error.what)
                return own
            raise
        if want.sha256:
            if stated.sha256 not in (None, want.sha256):
                facts = f"sha256 is {want.sha256} in models.yaml, and {stated.by} says {stated.sha256}"
                raise RecipeError(facts, fix=f"edit models.{name}: another revision, or that digest")
            return stated._replace(sha256=want.sha256, size=want.size or stated.size, by=FROM_CATALOGUE)
        if stated.sha256:
            return stated
        if not self._download:
            raise RecipeError("its publisher states no SHA-256", fix="doit lock --download, or sha256: in it")
        return self._downloaded(name, stated)

    def _ask(self, url: str, version: str) -> Stated:
        self._publishers = self._publishers or _publishers()
        stated: Stated = self._publishers.state(url, version)
        return stated

    def licence(self, url: str) -> str:
        """The licence that a file's publisher names, or nothing."""
        if is_local(url):
            return ""
        self._publishers = self._publishers or _publishers()
        try:
            found: str = self._publishers.licence(url)
        except TransferError:
            return ""
        return found

    def _hashed(self, want: Wanted, own: Stated) -> Stated:
        from tasks.effects.adopt import path_of

        path = self._recipe.place.absolute(path_of(want.url), self._recipe.place.root)
        found = files.stat(path)
        if found is None:
            raise RecipeError(f"there is no file {path}")
        digest = files.sha256_file(path)
        if want.sha256 not in (None, digest):
            raise RecipeError(f"sha256 is {want.sha256} in models.yaml, and {digest} is that of {path}")
        return own._replace(sha256=digest, size=found[0], by=FROM_CATALOGUE if want.sha256 else HERE)

    def _downloaded(self, name: str, stated: Stated) -> Stated:
        from tasks.core.artifact import Artifact, model_dir
        from tasks.download import converge

        cache = self._recipe.place.cache
        target = f"{model_dir(cache, None, stated.url)}/{filename_of(stated.url)}"
        artifact = Artifact(name, (stated.url,), target, None, stated.size)
        converge(cache, artifact)
        stamp = files.read_stamp(cache, artifact)
        if stamp is None or stamp.sha256 is None:
            raise RecipeError(f"{target} could not be hashed")
        return stated._replace(sha256=stamp.sha256, size=stamp.size, by=DOWNLOADED)
