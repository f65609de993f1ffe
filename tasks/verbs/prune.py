"""`doit prune`: remove files that no catalogue names, and abandoned downloads."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from operator import attrgetter
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
    """The catalogues whose files are kept."""

    asked: tuple[str, ...]  # paths of those that were read
    elsewhere: tuple[str, ...]  # on other machines, so that they cannot be read here
    gone: tuple[str, ...]  # records of those that do not exist any more, from the cache
    needed: Needed


class Outcome(NamedTuple):
    """What was done with each unneeded file."""

    removed: list[Victim]
    kept: list[tuple[Victim, str]]  # and why
    failed: list[tuple[Victim, str]]  # and why


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: a model is named, or --older-than is not an age.
    """
    recipe.no_model(ask)
    older_s = None
    if "older_than" in ask.options:
        older_s = prune.age(ask.options["older_than"])
    flags = [bool(ask.options.get(name)) for name in ("dry_run", "json")]
    return [recipe, older_s, *flags]


def run(recipe: Recipe, older_s: float | None, dry: bool, as_json: bool) -> None:
    """Remove unneeded files, and print the report to stdout.

    Raises:
        RecipeError: the directory is not a cache of this recipe, a catalogue that uses
            it cannot be read, or a file cannot be removed.
    """
    cache = recipe.place.cache
    _check_own(cache)
    if not dry:
        server_registry.drop_keys(cache)
    roots = _roots(recipe)
    files_before = store.files_of(cache)
    unused = _unused(cache, roots, files_before, older_s)
    # read before their removal: the report says how to download a file again
    stamps = {victim.path: _stamp(cache, victim) for victim in unused}
    outcome = _remove(cache, unused, {file.path: file for file in files_before}, dry)
    before = sum(file.size for file in files_before)
    facts = {
        "cache": cache,
        "dry_run": dry,
        "before": before,
        "after": before - sum(victim.size for victim in outcome.removed),
        "catalogues": list(roots.asked),
        "not_asked": list(roots.elsewhere),
        "removed": [_row(victim, stamps[victim.path]) for victim in outcome.removed],
        "kept": [{**_row(victim), "kept": why} for victim, why in outcome.kept],
        "failed": [{**_row(victim), "error": why} for victim, why in outcome.failed],
    }
    if as_json:
        doit_adapter.show_json(facts)
    else:
        doit_adapter.show(*_text(outcome, facts))
    if outcome.failed:
        raise RecipeError(
            "not everything could be removed",
            [(victim.path, why) for victim, why in outcome.failed],
            "close the programs that use it, or run it as its owner",
        )


def _check_own(cache: str) -> None:
    """Check that the directory is marked as a cache of this recipe.

    Raises:
        RecipeError: it is not.
    """
    if store.is_foreign(cache):
        what = f"{cache} is not marked as a cache of this recipe: nothing is removed there"
        facts = [("missing", "our CACHEDIR.TAG and README.txt")]
        fix = "LLAMAFILE_CACHE=/path/of/the/cache; a download into a cache marks it"
        raise RecipeError(what, facts, fix)


def _unused(cache: str, roots: Roots, found: Sequence[Found], older_s: float | None) -> list[Victim]:
    """Return the files that no catalogue needs, as far as the age allows."""
    stamps = [file.path for file in found if file.path.startswith("stamps/")]
    gone = [*roots.gone, *store.stamps_of_nothing(cache, stamps)]
    return prune.choose(found, roots.needed, gone, time.time(), older_s)


def _roots(recipe: Recipe) -> Roots:
    """Read every catalogue that has used the cache.

    Raises:
        RecipeError: one cannot be read.
    """
    cache = recipe.place.cache
    machine = platform.node()
    asked = {recipe.catalogue.where: recipe.catalogue}
    elsewhere = []
    gone = []
    for root in gc_roots(cache):
        if not store.is_missing(root.path):
            asked.setdefault(root.path, _catalogue(cache, root))
        elif root.machine == machine:
            gone.append(root.record)
        else:
            elsewhere.append(f"{root.path} of {root.machine} ({root.record})")
    named = frozenset(
        target for path, catalogue in asked.items() for target in _targets(recipe, path, catalogue)
    )
    compiled = frozenset(map(load.compiled_name, asked))
    needed = Needed(named, compiled, all_asked=not elsewhere)
    return Roots(tuple(asked), tuple(elsewhere), tuple(gone), needed)


def _catalogue(cache: str, root: Root) -> Catalogue:
    try:
        # opening a pipe would wait for its writer
        if not os.path.isfile(root.path):
            raise UsageError(f"{root.path} is not a regular file")
        return load.load(root.path, cache, from_text=True)
    except UsageError as error:
        what = "a catalogue cannot be read: which files it needs is not known"
        record = os.path.join(cache, root.record)
        fix = f"fix it, or delete {record} if it is not used any more"
        raise RecipeError(what, [("catalogue", error.what)], fix) from None


def _targets(recipe: Recipe, path: str, catalogue: Catalogue) -> Iterator[str]:
    """Yield the targets of one catalogue, relative to the cache."""
    place = recipe.place._replace(root=os.path.dirname(path))
    for item in items(catalogue, place):
        target = item.artifact.target.removeprefix(f"{place.cache}/")
        yield target
        if not item.is_program:
            continue
        folder = os.path.dirname(target)
        version = catalogue.engine("llamafile").version or ""
        for name in ("linux", "win32"):
            filename = engine_filename(version, name)
            yield f"{folder}/{filename}"
            if not os.path.exists(f"{place.cache}/{folder}/{filename}"):
                # an older version's path, from where a download takes the file
                yield f"engines/{filename}"


def _in_use(cache: str) -> frozenset[str]:
    """Return what servers use, also those whose state is not known on this machine."""
    return prune.used_by(
        [*run.command, f"models/{run.spec.get('model', '')[:16]}/-"]
        for run in server_registry.not_known_gone(cache)
    )


def _remove(cache: str, may_go: Sequence[Victim], found: dict[str, Found], dry: bool) -> Outcome:
    """Remove files, each target under its lock, unless a process changes or uses it."""
    from tasks.transfer.locks import lock_if_free

    outcome = Outcome([], [], [])
    by_target = attrgetter("target")
    for target, group in groupby(sorted(may_go, key=by_target), key=by_target):
        # a target before its stamp and its parts, whose paths are longer
        victims = sorted(group, key=lambda victim: len(victim.path))
        artifact = Artifact(target, (), f"{cache}/{target}")
        lock: AbstractContextManager[bool] = nullcontext(True)
        if target:
            lock = lock_if_free(cache, artifact)
        try:
            with lock as free:
                reason = ""
                if target and prune.is_used(target, _in_use(cache)):
                    reason = "a server uses it"
                elif not free:
                    reason = "another process uses it"
                for victim in victims:
                    file = found[victim.path]
                    _remove_one(cache, victim, file, reason, dry, outcome)
        except RecipeError as error:  # no lock in a cache that cannot be written
            outcome.failed.extend((victim, error.what) for victim in victims)
    return outcome


def _remove_one(cache: str, victim: Victim, file: Found, reason: str, dry: bool, outcome: Outcome) -> None:
    """Remove a file unless there is a reason to keep it, and add it to the outcome."""
    try:
        if not (reason or dry or store.remove(cache, victim.path, file.size, file.changed)):
            reason = "it has just changed"
    except OSError as error:
        outcome.failed.append((victim, error.strerror or str(error)))
        return
    if reason:
        outcome.kept.append((victim, reason))
    else:
        outcome.removed.append(victim)


def _stamp(cache: str, victim: Victim) -> Stamp | None:
    """Return the stamp of a model or a program; other files have none."""
    if victim.path != victim.target:
        return None
    return parse_stamp(files.read_json(f"{cache}/{victim.target}{STAMP}"))


def _row(victim: Victim, stamp: Stamp | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"path": victim.path, "why": victim.why, "bytes": victim.size}
    if stamp is None or not stamp.source:
        return row
    row["source"] = stamp.source
    if victim.path.startswith("models/"):
        row["again"] = f"doit download --llamafile-url {shlex.quote(stamp.source)}"
        if stamp.sha256:
            row["again"] += f" --sha256 {stamp.sha256}"
    return row


def _text(outcome: Outcome, facts: dict[str, Any]) -> list[str]:
    from rich.text import Text

    from tasks.console.tables import table

    # a model and its stamp are one line
    sizes: Counter[tuple[str, str]] = Counter()
    for victim in outcome.removed:
        sizes[victim.why, victim.target or victim.path] += victim.size
    for victim, why in outcome.kept:
        sizes[f"kept: {why}", victim.target or victim.path] += victim.size
    lines: list[str] = []
    if sizes:
        cells = [[Text(formatting.size(size)), Text(why), Text(path)] for (why, path), size in sizes.items()]
        lines.append(table((">size", "why", "what"), cells))
    lines += [f"again: {row['again']}" for row in facts["removed"] if "again" in row]
    lines += [f"asked: {path}" for path in facts["catalogues"]]
    by_age = "files that no catalogue here names are removed only with --older-than"
    lines += [f"not asked: {path}; {by_age}" for path in facts["not_asked"]]
    return [*lines, f"cache: {formatting.size(facts['before'])}{_freed(facts)}"]


def _freed(facts: dict[str, Any]) -> str:
    freed = facts["before"] - facts["after"]
    if freed <= 0:
        return ", nothing to remove"
    verb = "freed"
    if facts["dry_run"]:
        verb = "would be freed"
    return f" → {formatting.size(facts['after'])}, {formatting.size(freed)} {verb}"
