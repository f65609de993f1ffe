"""`doit prune`: remove files that no catalogue names, and abandoned downloads."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.cache import prune, store
from tasks.cache.inventory import STAMP, cached_files
from tasks.cache.prune import CacheFile, Candidate, LiveSet
from tasks.cache.prune_report import Outcome, report, report_row
from tasks.cache.roots import Root, gc_roots
from tasks.catalogue import load
from tasks.catalogue.artifact import Artifact, Stamp, engine_filename, parse_stamp
from tasks.catalogue.types import Catalogue
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.context import Context
from tasks.errors import RecipeError, UsageError
from tasks.network import huggingface
from tasks.server import server_registry
from tasks.server.server_record import Liveness
from tasks.system import files


class Roots(NamedTuple):
    """The catalogues whose files are kept."""

    asked: tuple[str, ...]  # paths of those that were read
    elsewhere: tuple[str, ...]  # on other machines, so that they cannot be read here
    gone: tuple[str, ...]  # records of those that do not exist any more, from the cache
    needed: LiveSet


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: --older-than is not an age.
    """
    older_s = None
    if "older_than" in request.options:
        older_s = prune.parse_age(request.options["older_than"])
    flags = [bool(request.options.get(name)) for name in ("dry_run", "json", "yes")]
    return [context, older_s, *flags]


def run(
    context: Context, older_s: float | None, dry: bool, as_json: bool, yes: bool
) -> None:
    """Remove unneeded files, and print the report to stdout.

    On a terminal the report comes first, and then a question. Scripts are not asked.

    Raises:
        RecipeError: the directory is not a cache of this recipe, a catalogue that uses
            it cannot be read, a file cannot be removed, or the answer is no.
    """
    cache = context.environment.cache
    _check_own(cache)
    if not dry:
        server_registry.drop_keys(cache)
    roots = _roots(context)
    files_before = store.files_of(cache)
    unused = _unused(cache, roots, files_before, older_s)
    # read before their removal: the report says how to download a file again
    stamps = {candidate.path: _stamp(cache, candidate) for candidate in unused}
    found = {file.path: file for file in files_before}
    asks = not (dry or as_json or yes) and _is_interactive()
    outcome = _remove(cache, unused, found, dry or asks)
    facts = _facts(cache, roots, files_before, outcome, stamps)
    facts["dry_run"] = dry or asks
    doit_adapter.show_report(report(outcome, facts), as_json)
    if asks and outcome.removed:
        _ask(facts)
        outcome = _remove(cache, outcome.removed, found, dry=False)
        freed = sum(candidate.size for candidate in outcome.removed)
        doit_adapter.print_report(f"{formatting.format_size(freed)} freed")
    if outcome.failed:
        raise RecipeError(
            "not everything could be removed",
            [(candidate.path, why) for candidate, why in outcome.failed],
            "close the programs that use it, or run it as its owner",
        )


def _is_interactive() -> bool:
    """Whether somebody can answer a question: on a terminal, and not in CI."""
    if huggingface.env_flag(os.environ.get("CI")):
        return False
    streams = (sys.stdin, sys.stdout)  # one that was closed is None
    return all(stream is not None and stream.isatty() for stream in streams)


def _ask(facts: dict[str, Any]) -> None:
    """Ask whether to remove what the report lists.

    Raises:
        RecipeError: the answer is no.
    """
    freed = formatting.format_size(facts["before"] - facts["after"])
    count = len(facts["removed"])
    question = f"Remove {count} file{'s' * (count != 1)}, {freed}? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RecipeError("cancelled: nothing was removed")


def _facts(
    cache: str,
    roots: Roots,
    files_before: Sequence[CacheFile],
    outcome: Outcome,
    stamps: dict[str, Stamp | None],
) -> dict[str, Any]:
    """Return the report, as JSON has it."""
    before = sum(file.size for file in files_before)
    return {
        "cache": cache,
        "dry_run": False,
        "before": before,
        "after": before - sum(candidate.size for candidate in outcome.removed),
        "catalogues": list(roots.asked),
        "not_asked": list(roots.elsewhere),
        "totals": _totals(outcome.removed),
        "removed": [
            report_row(cache, candidate, stamps[candidate.path])
            for candidate in outcome.removed
        ],
        "kept": [
            {**report_row(cache, candidate), "kept": why}
            for candidate, why in outcome.kept
        ],
        "failed": [
            {**report_row(cache, candidate), "error": why}
            for candidate, why in outcome.failed
        ],
    }


def _totals(removed: Sequence[Candidate]) -> dict[str, int]:
    """Return the bytes of each kind of file, the largest first."""
    sizes: Counter[str] = Counter()
    for candidate in removed:
        sizes[prune.kind_of(candidate.path)] += candidate.size
    return dict(sizes.most_common())


def _check_own(cache: str) -> None:
    """Check that the directory is marked as a cache of this recipe.

    Raises:
        RecipeError: it is not.
    """
    if store.is_unmarked(cache):
        what = (
            f"{cache} is not marked as a cache of this recipe: nothing is removed there"
        )
        facts = [("missing", "our CACHEDIR.TAG and README.txt")]
        fix = "LLAMAFILE_CACHE=/path/of/the/cache; a download into a cache marks it"
        raise RecipeError(what, facts, fix)


def _unused(
    cache: str, roots: Roots, found: Sequence[CacheFile], older_s: float | None
) -> list[Candidate]:
    """Return the files that no catalogue needs, as far as the age allows."""
    stamps = [file.path for file in found if file.path.startswith("stamps/")]
    servers = [
        os.path.relpath(record.path, cache).replace(os.sep, "/")
        for record, liveness in server_registry.list_servers(cache)
        if liveness is Liveness.GONE
    ]
    gone = [*roots.gone, *store.orphaned_stamps(cache, stamps), *servers]
    return prune.select_removable(found, roots.needed, gone, time.time(), older_s)


def _roots(context: Context) -> Roots:
    """Read every catalogue that has used the cache.

    Raises:
        RecipeError: one cannot be read.
    """
    cache = context.environment.cache
    machine = platform.node()
    asked = {context.catalogue.where: context.catalogue}
    elsewhere = []
    gone = []
    if context.catalogue_error:  # only with --dry-run
        asked = {}
        elsewhere.append(f"{context.catalogue.where}, which has an error")
    for root in gc_roots(cache):
        if context.catalogue_error and root.path == context.catalogue.where:
            continue
        if not store.is_missing(root.path):
            asked.setdefault(root.path, _catalogue(cache, root))
        elif root.machine == machine:
            gone.append(root.record)
        else:
            elsewhere.append(f"{root.path} of {root.machine} ({root.record})")
    named = frozenset(
        target
        for path, catalogue in asked.items()
        for target in _targets(context, path, catalogue)
    )
    compiled = frozenset(map(load.compiled_path, asked))
    needed = LiveSet(named, compiled, all_asked=not elsewhere)
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


def _targets(context: Context, path: str, catalogue: Catalogue) -> Iterator[str]:
    """Yield the targets of one catalogue, relative to the cache."""
    environment = context.environment._replace(root=os.path.dirname(path))
    for file in cached_files(catalogue, environment):
        target = file.artifact.target.removeprefix(f"{environment.cache}/")
        yield target
        if not file.is_program or file.artifact.unpacked:
            continue
        folder = os.path.dirname(target)
        version = catalogue.engine("llamafile").version or ""
        for name in ("linux", "win32"):
            filename = engine_filename(version, name)
            yield f"{folder}/{filename}"
            if not os.path.exists(f"{environment.cache}/{folder}/{filename}"):
                # an older version's path, from where a download takes the file
                yield f"engines/{filename}"


def _in_use(cache: str) -> frozenset[str]:
    """Return what servers use, also those whose state is not known on this machine."""
    return prune.paths_in_use(
        [
            *record.command,
            *record.spec.values(),
            f"models/{record.spec.get('model', '')[:16]}/-",
        ]
        for record in server_registry.possibly_running(cache)
    )


def _remove(
    cache: str, may_go: Sequence[Candidate], found: dict[str, CacheFile], dry: bool
) -> Outcome:
    """Remove files, each target under its lock, unless a process changes or uses it."""
    from tasks.transfer.locks import try_lock

    outcome = Outcome([], [], [])
    by_target = attrgetter("target")
    for target, group in groupby(sorted(may_go, key=by_target), key=by_target):
        # a target before its stamp and its parts, whose paths are longer
        victims = sorted(group, key=lambda candidate: len(candidate.path))
        artifact = Artifact(target, (), f"{cache}/{target}")
        lock: AbstractContextManager[bool] = nullcontext(True)
        if target:
            lock = try_lock(cache, artifact)
        try:
            with lock as free:
                reason = ""
                if target and prune.is_used(target, _in_use(cache)):
                    reason = "a server uses it"
                elif not free:
                    reason = "another process uses it"
                for candidate in victims:
                    file = found[candidate.path]
                    _remove_one(cache, candidate, file, reason, dry, outcome)
        except RecipeError as error:  # no lock in a cache that cannot be written
            outcome.failed.extend((candidate, error.what) for candidate in victims)
    return outcome


def _remove_one(
    cache: str,
    candidate: Candidate,
    file: CacheFile,
    reason: str,
    dry: bool,
    outcome: Outcome,
) -> None:
    """Remove a file unless there is a reason to keep it, and add it to the outcome."""
    try:
        if not (
            reason
            or dry
            or store.remove(cache, candidate.path, file.size, file.changed)
        ):
            reason = "it has just changed"
    except OSError as error:
        outcome.failed.append((candidate, error.strerror or str(error)))
        return
    if reason:
        outcome.kept.append((candidate, reason))
    else:
        outcome.removed.append(candidate)


def _stamp(cache: str, candidate: Candidate) -> Stamp | None:
    """Return the stamp of a model or a program; other files have none."""
    if candidate.path != candidate.target:
        return None
    return parse_stamp(files.read_json(f"{cache}/{candidate.target}{STAMP}"))
