"""`doit audit`: read every file in the cache and compare it with the catalogue."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.cache.audit import Finding, Verdict, judge_digest, judge_size, void
from tasks.cache.inventory import Item
from tasks.cache.store import everything
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe
from tasks.errors import IntegrityError
from tasks.system import files
from tasks.system.file_stat import FileStat
from tasks.system.files import Hashed


class Look(NamedTuple):
    """A file as it was before it was read."""

    item: Item
    stat: FileStat | None  # None where there is no file
    stamp: Stamp | None


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    named = [recipe.catalogue.name(word) for word in ask.models]
    return [recipe, named, bool(ask.options.get("json"))]


def run(recipe: Recipe, named: Sequence[str], as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        IntegrityError: a file is not what it must be, or cannot be read.
        SystemExit: a signal came (128 + signal).
    """
    from tasks.cache.digests import Stopped
    from tasks.system.signals import on_signals

    cache = recipe.place.cache
    start = time.monotonic()
    chosen = everything(recipe.catalogue, recipe.place, named)
    looks = [_look(cache, item) for item in chosen]
    stop: list[int] = []
    try:
        with on_signals(stop.append):
            findings = _judged(cache, looks, stop)
    except Stopped:
        raise SystemExit(128 + stop[0]) from None
    rows = list(zip(looks, findings, strict=True))
    if as_json:
        doit_adapter.show_json([_row(*row) for row in rows])
    else:
        doit_adapter.show(*_text(rows, cache, time.monotonic() - start))
    failed = [row for row in rows if row[1].is_failure]
    if failed:
        raise _error(recipe, failed, [_take_proof(cache, *row) for row in failed])


def _look(cache: str, item: Item) -> Look:
    return Look(item, files.stat(item.artifact.target), stamps.read_stamp(cache, item.artifact))


def _judged(cache: str, looks: Sequence[Look], stop: list[int]) -> list[Finding]:
    """Return a finding for each file; several are read at a time, with one bar.

    Raises:
        Stopped: a signal came.
    """
    from tasks.cache.digests import sha256_files
    from tasks.console.progress import progress

    findings = {look.item.artifact.target: _at_sight(look) for look in looks}
    by_target = {look.item.artifact.target: look for look in looks}
    sizes = {
        look.item.artifact.target: look.stat.size
        # the longest first, so that no long file is read alone at the end
        for look in sorted(looks, key=lambda look: look.stat or (), reverse=True)
        if look.stat and findings[look.item.artifact.target] is None
    }
    total = sum(sizes.values())
    with progress("audit", 0) as bar:

        def on_progress(done: int) -> None:
            bar.at(done, total, "reading")

        for target, got in sha256_files(list(sizes), on_progress, lambda: stop):
            findings[target] = _by_digest(cache, by_target[target], got)
    missing = Finding(Verdict.MISSING)
    return [findings[look.item.artifact.target] or missing for look in looks]


def _by_digest(cache: str, look: Look, got: Hashed | OSError | IntegrityError) -> Finding:
    """Judge a file that was read, and write the stamp of a right one if it has none."""
    if isinstance(got, OSError):
        return Finding(Verdict.UNREADABLE, got=got.strerror or str(got))
    if isinstance(got, IntegrityError):
        reason = "it was changed or replaced while it was read"
        return Finding(Verdict.UNREADABLE, got=reason)
    artifact, stamp = look.item.artifact, look.stamp
    finding = judge_digest(artifact, stamp, got.stat.size, got.sha256)
    proven = stamp and (stamp.stat, stamp.sha256) == (got.stat, got.sha256)
    if finding.verdict is Verdict.OK and not proven:
        _prove(cache, artifact, stamp, got)
    return finding


def _prove(cache: str, artifact: Artifact, stamp: Stamp | None, got: Hashed) -> None:
    """Write the stamp of a right file, so that the next download does not read it."""
    from tasks.errors import RecipeError
    from tasks.transfer.locks import lock_if_free

    new = Stamp(got.stat, got.sha256, artifact.target, {})
    if stamp and stamp.sha256 == got.sha256:
        new = new._replace(source=stamp.source, engines=stamp.engines)
    # the cache may be read-only
    with suppress(OSError, RecipeError), lock_if_free(cache, artifact) as free:
        if free:
            stamps.write_stamp(cache, artifact, new)


def _at_sight(look: Look) -> Finding | None:
    """Judge a file that does not have to be read for it; None for others."""
    if look.stat is None:
        return Finding(Verdict.MISSING)
    return judge_size(look.item.artifact, look.stamp, look.stat.size)


def _take_proof(cache: str, look: Look, finding: Finding) -> bool:
    """Void the stamp of a wrong file, so that the next download reads it.

    Size and time alone would not show that it is wrong. Nothing is changed if the file
    was replaced meanwhile, or if another process changes it.

    Returns:
        Whether the next download will read the file.
    """
    from tasks.errors import RecipeError
    from tasks.transfer.locks import lock_if_free

    artifact, stamp = look.item.artifact, look.stamp
    if artifact.sha256 is None and (stamp is None or stamp.sha256 is None):
        return False  # without a digest a download takes any file as right
    if stamp is None or look.stat != stamp.stat:
        return True
    if finding.bytes_are_right or finding.verdict is Verdict.UNREADABLE:
        return True
    try:
        with lock_if_free(cache, artifact) as free:
            if free and _look(cache, look.item) == look:
                return stamps.write_stamp(cache, artifact, void(stamp))
        return True
    except (OSError, RecipeError):  # a read-only cache
        return False


def _size(look: Look) -> int | None:
    if look.stat is None:
        return None
    return look.stat.size


def _row(look: Look, finding: Finding) -> dict[str, Any]:
    return {
        "file": look.item.artifact.target,
        "models": list(look.item.models),
        "in_catalogue": look.item.is_named,
        "size": _size(look),
        "verdict": finding.verdict.value,
        "expected": finding.expected or None,
        "got": finding.got or None,
    }


def _text(rows: Sequence[tuple[Look, Finding]], cache: str, elapsed: float) -> list[str]:
    from rich.text import Text

    from tasks.console.tables import table

    here = [(look, finding) for look, finding in rows if look.stat]
    missing = ""
    if len(here) < len(rows):
        missing = f"{len(rows) - len(here)} of the catalogue's files not here"
    where = f"Cache: {cache}"
    if not here:
        return [f"nothing to audit: {missing or 'the catalogue names no file'}. {where}"]
    colours = {Verdict.OK: "green", Verdict.UNPINNED: "yellow"}
    cells = [
        [
            Text(_label(look.item)),
            Text(formatting.size(_size(look))),
            Text(_verdict(look.item, finding), colours.get(finding.verdict, "red")),
            Text(look.item.artifact.target.removeprefix(f"{cache}/")),
        ]
        for look, finding in here
    ]
    total = formatting.size(sum(_size(look) or 0 for look, _ in here))
    read = f"{_files(len(here))}, {total}, in {formatting.seconds(elapsed)}"
    summary = ". ".join(filter(None, (read, missing, where)))
    return [table(("model", ">size", "verdict", "file"), cells), summary]


def _files(count: int) -> str:
    if count == 1:
        return "1 file"
    return f"{count} files"


def _label(item: Item) -> str:
    if not item.is_named:
        return "-"
    return item.label


def _verdict(item: Item, finding: Finding) -> str:
    if finding.verdict is Verdict.UNPINNED:
        if item.is_named:
            return "as its stamp says; not pinned"
        return "as its stamp says; not in the catalogue"
    if finding.verdict is Verdict.DIFFERS:
        if finding.got.endswith("bytes"):
            return "differs: wrong size"
        return "differs: wrong SHA-256"
    return str(finding.verdict.value)


def _error(recipe: Recipe, failed: Sequence[tuple[Look, Finding]], rereads: Sequence[bool]) -> IntegrityError:
    """Return the error: what is wrong with each file, and the command that fixes it.

    Args:
        rereads: whether the next download reads the file and replaces it.
    """
    facts: list[tuple[str, object]] = []
    for look, finding in failed:
        problem = f"expected {finding.expected}\ngot {finding.got}"
        if finding.verdict is Verdict.UNREADABLE:
            problem = f"cannot be read: {finding.got}"
        facts.append((look.item.artifact.target, problem))
    what = f"{len(failed)} files are not what must be here"
    if len(failed) == 1:
        what = "1 file is not what must be here"
    rows = zip(failed, rereads, strict=True)
    fixes = dict.fromkeys(_fix(recipe, *row, reread) for row, reread in rows)
    return IntegrityError(what, facts, "\n".join(fixes))


def _fix(recipe: Recipe, look: Look, finding: Finding, reread: bool) -> str:
    item, target = look.item, look.item.artifact.target
    if finding.verdict is Verdict.UNREADABLE:
        return f"make {target} readable for you"
    if finding.bytes_are_right:
        return f"the digest is right: correct the size in {recipe.catalogue.where}"
    if not item.is_named and item.is_program:
        return f"doit prune, or delete {target}"
    if not item.is_named:
        return f"doit prune, or delete {os.path.dirname(target)}"
    again = f"doit download:{next(iter(item.models), '')}"
    if item.is_program:
        again = "doit exe"
    if reread:
        return again
    return f"delete {target}, then {again}"
