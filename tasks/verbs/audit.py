"""`doit audit`: every file that is here is read again and held to the catalogue, whatever its stamp says."""

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
    """Return the arguments of `run`. Raises UsageError: there is no such model."""
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

    cache, start = recipe.place.cache, time.monotonic()
    looks = [_look(cache, item) for item in everything(recipe.catalogue, recipe.place, named)]
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
    """A finding for each; what has to be read is read at once, with one bar for all. Raises Stopped."""
    from tasks.cache.digests import sha256_files
    from tasks.console.progress import progress

    findings = {look.item.artifact.target: _at_sight(look) for look in looks}
    sizes = {
        look.item.artifact.target: look.stat.size
        for look in sorted(looks, key=lambda look: look.stat or (), reverse=True)  # the longest first
        if look.stat and findings[look.item.artifact.target] is None
    }
    by_target = {look.item.artifact.target: look for look in looks}
    total = sum(sizes.values())
    with progress("audit", 0) as bar:
        seen = lambda done: bar.at(done, total, "reading")  # noqa: E731
        for target, got in sha256_files(list(sizes), seen, lambda: stop):
            findings[target] = _by_digest(cache, by_target[target], got)
    return [findings[look.item.artifact.target] or Finding(Verdict.MISSING) for look in looks]


def _by_digest(cache: str, look: Look, got: Hashed | OSError | IntegrityError) -> Finding:
    """The verdict on a file that was read. A right one is proven from now on, if it was not."""
    if isinstance(got, OSError):
        return Finding(Verdict.UNREADABLE, got=got.strerror or str(got))
    if isinstance(got, IntegrityError):
        return Finding(Verdict.UNREADABLE, got="it was changed or replaced while it was read")
    artifact, stamp = look.item.artifact, look.stamp
    finding = judge_digest(artifact, stamp, got.stat.size, got.sha256)
    if finding.verdict is Verdict.OK and not (stamp and (got.stat, got.sha256) == (stamp.stat, stamp.sha256)):
        _prove(cache, artifact, stamp, got)
    return finding


def _prove(cache: str, artifact: Artifact, stamp: Stamp | None, got: Hashed) -> None:
    """Write the stamp of a pinned file that was read, so that no download reads it once more."""
    from tasks.errors import RecipeError
    from tasks.transfer.locks import lock_if_free

    known = stamp if stamp and stamp.sha256 == got.sha256 else None
    source = known.source if known else artifact.target
    new = Stamp(got.stat, got.sha256, source, known.engines if known else {})
    with suppress(OSError, RecipeError), lock_if_free(cache, artifact) as free:  # a read-only cache
        if free:
            stamps.write_stamp(cache, artifact, new)


def _at_sight(look: Look) -> Finding | None:
    """The verdict where nothing has to be read for it."""
    if look.stat is None:
        return Finding(Verdict.MISSING)
    return judge_size(look.item.artifact, look.stamp, look.stat.size)


def _take_proof(cache: str, look: Look, finding: Finding) -> bool:
    """See that the next download reads the file, also if size and time are as they were; whether it will.

    Nothing is changed if the file is another one by now, or being changed.
    """
    from tasks.errors import RecipeError
    from tasks.transfer.locks import lock_if_free

    artifact, stamp = look.item.artifact, look.stamp
    if artifact.sha256 is None and (stamp is None or stamp.sha256 is None):  # nothing tells right from wrong
        return False
    holds = stamp is not None and look.stat == stamp.stat
    if stamp is None or not holds or finding.bytes_are_right or finding.verdict is Verdict.UNREADABLE:
        return True
    try:
        with lock_if_free(cache, artifact) as free:
            if free and _look(cache, look.item) == look:
                return stamps.write_stamp(cache, artifact, void(stamp))
        return True
    except (OSError, RecipeError):  # a read-only cache
        return False


def _row(look: Look, finding: Finding) -> dict[str, Any]:
    return {
        "file": look.item.artifact.target,
        "models": list(look.item.models),
        "in_catalogue": look.item.is_named,
        "size": look.stat.size if look.stat else None,
        "verdict": finding.verdict.value,
        "expected": finding.expected or None,
        "got": finding.got or None,
    }


def _text(rows: Sequence[tuple[Look, Finding]], cache: str, elapsed: float) -> list[str]:
    from rich.text import Text

    from tasks.console.tables import table

    here = [(look, finding) for look, finding in rows if look.stat]
    missing = f"{len(rows) - len(here)} of the catalogue's files not here" if len(here) < len(rows) else ""
    where = f"Cache: {cache}"
    if not here:
        return [f"nothing to audit: {missing or 'the catalogue names no file'}. {where}"]
    colours = {Verdict.OK: "green", Verdict.UNPINNED: "yellow"}
    cells = [
        [
            Text(look.item.label if look.item.is_named else "-"),
            Text(formatting.size(look.stat.size if look.stat else None)),
            Text(_verdict(look.item, finding), colours.get(finding.verdict, "red")),
            Text(look.item.artifact.target.removeprefix(f"{cache}/")),
        ]
        for look, finding in here
    ]
    count, total = len(here), formatting.size(sum(look.stat.size for look, _ in here if look.stat))
    said = f"{count} file{'s' if count > 1 else ''}, {total}, in {formatting.seconds(elapsed)}"
    summary = ". ".join(filter(None, (said, missing, where)))
    return [table(("model", ">size", "verdict", "file"), cells), summary]


def _verdict(item: Item, finding: Finding) -> str:
    if finding.verdict is Verdict.UNPINNED:
        return "as its stamp says; " + ("not pinned" if item.is_named else "not in the catalogue")
    if finding.verdict is Verdict.DIFFERS:
        return "differs: wrong size" if finding.got.endswith("bytes") else "differs: wrong SHA-256"
    return str(finding.verdict.value)


def _error(recipe: Recipe, failed: Sequence[tuple[Look, Finding]], mends: Sequence[bool]) -> IntegrityError:
    """What is wrong with each file, and what mends it."""
    facts: list[tuple[str, object]] = []
    for look, finding in failed:
        if finding.verdict is Verdict.UNREADABLE:
            facts.append((look.item.artifact.target, f"cannot be read: {finding.got}"))
        else:
            facts.append((look.item.artifact.target, f"expected {finding.expected}\ngot {finding.got}"))
    count = len(failed)
    what = f"{count} file{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} not what must be here"
    fixes = dict.fromkeys(_fix(recipe, *row, mend) for row, mend in zip(failed, mends, strict=True))
    return IntegrityError(what, facts, "\n".join(fixes))


def _fix(recipe: Recipe, look: Look, finding: Finding, mends: bool) -> str:
    item, target = look.item, look.item.artifact.target
    if finding.verdict is Verdict.UNREADABLE:
        return f"make {target} readable for you"
    if finding.bytes_are_right:
        return f"the digest is right: correct the size in {recipe.catalogue.where}"
    if not item.is_named:
        return f"doit prune, or delete {os.path.dirname(target) if not item.is_program else target}"
    again = "doit exe" if item.is_program else f"doit download:{item.models[0]}"
    return again if mends else f"delete {target}, then {again}"
