"""`doit prune`: free the space of what no catalogue names any more, and of what was abandoned."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.cache import prune, store
from tasks.cache.inventory import STAMP, items
from tasks.cache.prune import Found, Needed, Victim
from tasks.cache.roots import Root, gc_roots
from tasks.catalogue import load
from tasks.catalogue.artifact import Artifact, Stamp, engine_filename, parse_stamp
from tasks.catalogue.types import Catalogue
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe
from tasks.engine import server_registry
from tasks.errors import RecipeError, UsageError
from tasks.system import files


class Roots(NamedTuple):
    """The catalogues whose files stay."""

    asked: tuple[str, ...]  # paths of those that were read
    elsewhere: tuple[str, ...]  # another machine's with the same cache, which cannot be read here
    gone: tuple[str, ...]  # records of those that are no more, from the cache
    needed: Needed


class Outcome(NamedTuple):
    """What became of each file that might go."""

    removed: list[Victim]
    kept: list[tuple[Victim, str]]  # and why
    failed: list[tuple[Victim, str]]  # and why


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`. Raises UsageError: a model, or an age that is not one."""
    recipe.no_model(ask)
    older = ask.options.get("older_than")
    older_s = None if older is None else prune.age(older)
    return [recipe, older_s, bool(ask.options.get("dry_run")), bool(ask.options.get("json"))]


def run(recipe: Recipe, older_s: float | None, dry: bool, as_json: bool) -> None:
    """Remove what may go, and print the report to stdout.

    Raises RecipeError: the directory is no cache of ours, a catalogue that uses it cannot be read, or a file
    cannot be removed.
    """
    cache = recipe.place.cache
    if store.is_foreign(cache):
        what = f"{cache} is not marked as a cache of this recipe: nothing is removed there"
        fix = "LLAMAFILE_CACHE=/path/of/the/cache; if this is it, the next download into it marks it"
        raise RecipeError(what, [("missing", "our CACHEDIR.TAG and README.txt")], fix)
    if not dry:
        server_registry.drop_keys(cache)
    roots, found = _roots(recipe), store.files_of(cache)
    gone = [*roots.gone, *store.stamps_of_nothing(cache, _paths(found, "stamps/"))]
    unused = prune.choose(found, roots.needed, gone, time.time(), older_s)
    again = {one.path: stamp for one in unused if (stamp := _stamp(cache, one))}
    outcome = _remove(cache, unused, {one.path: one for one in found}, dry)
    before = sum(one.size for one in found)
    facts = {
        "cache": cache,
        "dry_run": dry,
        "before": before,
        "after": before - sum(one.size for one in outcome.removed),
        "catalogues": list(roots.asked),
        "not_asked": list(roots.elsewhere),
        "removed": [_row(one, again.get(one.path)) for one in outcome.removed],
        "kept": [{**_row(one), "kept": why} for one, why in outcome.kept],
        "failed": [{**_row(one), "error": why} for one, why in outcome.failed],
    }
    if as_json:
        doit_adapter.show_json(facts)
    else:
        doit_adapter.show(*_text(outcome, facts))
    if outcome.failed:
        what = "not everything could be removed"
        raise RecipeError(
            what,
            [(one.path, why) for one, why in outcome.failed],
            "close what has it open, or run it as its owner",
        )


def _paths(found: Sequence[Found], folder: str) -> list[str]:
    return [one.path for one in found if one.path.startswith(folder)]


def _roots(recipe: Recipe) -> Roots:
    """Ask every catalogue that has used the cache. Raises RecipeError: one cannot be read."""
    cache, here = recipe.place.cache, platform.node()
    mine = recipe.catalogue.where
    asked, elsewhere, gone = {mine: recipe.catalogue}, [], []
    for root in gc_roots(cache):
        if not store.is_missing(root.path):
            asked.setdefault(root.path, _catalogue(cache, root))
        elif root.machine == here:
            gone.append(root.record)
        else:
            elsewhere.append(f"{root.path} of {root.machine} ({root.record})")
    named = frozenset(target for path, one in asked.items() for target in _targets(recipe, path, one))
    needed = Needed(named, frozenset(map(load.compiled_name, asked)), all_asked=not elsewhere)
    return Roots(tuple(asked), tuple(elsewhere), tuple(gone), needed)


def _catalogue(cache: str, root: Root) -> Catalogue:
    try:
        if not os.path.isfile(root.path):  # a pipe would be waited for
            raise UsageError(f"{root.path} is not a regular file")
        return load.load(root.path, cache, from_text=True)
    except UsageError as error:
        what = "a catalogue that uses this cache cannot be read, so nobody knows which files it needs"
        fix = f"mend it, or delete {os.path.join(cache, root.record)} if it is of no use any more"
        raise RecipeError(what, [("catalogue", error.what)], fix) from None


def _targets(recipe: Recipe, path: str, catalogue: Catalogue) -> Iterator[str]:
    """The targets of one catalogue, from the cache; its program for any system."""
    place = recipe.place._replace(root=os.path.dirname(path))
    for item in items(catalogue, place):
        target = item.artifact.target.removeprefix(f"{place.cache}/")
        yield target
        if item.is_program:
            folder, version = os.path.dirname(target), catalogue.engine("llamafile").version or ""
            for name in ("linux", "win32"):
                program = f"{folder}/{engine_filename(version, name)}"
                yield program
                if not os.path.exists(f"{place.cache}/{program}"):
                    yield f"engines/{engine_filename(version, name)}"  # to be adopted from there


def _in_use(cache: str) -> frozenset[str]:
    """What servers use: those that run or start here, and those on record that nobody here can judge."""
    return prune.used_by(
        [*run.command, f"models/{run.spec.get('model', '')[:16]}/-"]
        for run in server_registry.not_known_gone(cache)
    )


def _remove(cache: str, may_go: Sequence[Victim], found: dict[str, Found], dry: bool) -> Outcome:
    """Remove what may go, each target under its lock, unless somebody is at it or uses it."""
    from tasks.transfer.locks import lock_if_free

    outcome = Outcome([], [], [])
    for target, group in groupby(sorted(may_go, key=lambda one: one.target), key=lambda one: one.target):
        victims = sorted(group, key=lambda one: len(one.path))  # a target before what lies beside it
        artifact = Artifact(target, (), f"{cache}/{target}")
        try:
            with lock_if_free(cache, artifact) if target else nullcontext(True) as free:
                reason = "" if free else "another process is at it"
                if target and prune.is_used(target, _in_use(cache)):
                    reason = "a server uses it"
                for one in victims:
                    _remove_one(cache, one, found[one.path], reason, dry, outcome)
        except RecipeError as error:  # the lock: a cache that cannot be written
            outcome.failed.extend((one, error.what) for one in victims)
    return outcome


def _remove_one(cache: str, one: Victim, was: Found, reason: str, dry: bool, outcome: Outcome) -> None:
    """Remove a file, if there is no reason to keep it."""
    try:
        if not (reason or dry or store.remove(cache, one.path, was.size, was.changed)):
            reason = "it has just changed"
        if reason:
            outcome.kept.append((one, reason))
        else:
            outcome.removed.append(one)
    except OSError as error:
        outcome.failed.append((one, error.strerror or str(error)))


def _stamp(cache: str, one: Victim) -> Stamp | None:
    """What is known of a model or a program; it goes as well."""
    return parse_stamp(files.read_json(f"{cache}/{one.target}{STAMP}")) if one.path == one.target else None


def _row(one: Victim, stamp: Stamp | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"path": one.path, "why": one.why, "bytes": one.size}
    if stamp is not None and stamp.source:
        row["source"] = stamp.source
    if "source" in row and one.path.startswith("models/"):
        pin = f" --sha256 {stamp.sha256}" if stamp and stamp.sha256 else ""
        row["again"] = f"doit download --llamafile-url {shlex.quote(row['source'])}{pin}"
    return row


def _text(outcome: Outcome, facts: dict[str, Any]) -> list[str]:
    from rich.text import Text

    from tasks.console.tables import table

    sizes: dict[tuple[str, str], int] = {}  # a model and its stamp are one thing to people
    kept = [(one, f"kept: {why}") for one, why in outcome.kept]
    for one, why in (*((one, one.why) for one in outcome.removed), *kept):
        key = (why, one.target or one.path)
        sizes[key] = sizes.get(key, 0) + one.size
    cells = [[Text(formatting.size(size)), Text(why), Text(path)] for (why, path), size in sizes.items()]
    lines: list[str] = [table((">size", "why", "what"), cells)] if cells else []
    lines += [f"again: {row['again']}" for row in facts["removed"] if "again" in row]
    lines += [f"asked: {path}" for path in facts["catalogues"]]
    by_age = "what nobody here names goes by --older-than alone"
    lines += [f"not asked: {path}; {by_age}" for path in facts["not_asked"]]
    before, after = facts["before"], facts["after"]
    verb = "would be freed" if facts["dry_run"] else "freed"
    freed = (
        f" → {formatting.size(after)}, {formatting.size(before - after)} {verb}"
        if before > after
        else ", nothing to remove"
    )
    return [*lines, f"cache: {formatting.size(before)}{freed}"]
