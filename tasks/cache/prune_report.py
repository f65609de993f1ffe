"""The report of `doit prune`: what is removed, what is kept, how to restore it."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from typing import Any, NamedTuple

from tasks.cache.prune import Candidate
from tasks.catalogue.artifact import Stamp
from tasks.console import formatting
from tasks.console.report import Column, Report


class Outcome(NamedTuple):
    """What was done with each unneeded file."""

    removed: list[Candidate]
    kept: list[tuple[Candidate, str]]  # and why
    failed: list[tuple[Candidate, str]]  # and why


def report_row(
    cache: str, candidate: Candidate, stamp: Stamp | None = None
) -> dict[str, Any]:
    """Return the facts about one file, as JSON has them."""
    row: dict[str, Any] = {
        "path": candidate.path,
        "why": candidate.why,
        "bytes": candidate.size,
    }
    if stamp is None or not stamp.source:
        return row
    row["source"] = stamp.source
    # a file of the cache is not a source: the same prune may remove it
    is_cached = stamp.source.startswith((f"{cache}/", f"{cache}{os.sep}"))
    if candidate.path.startswith("models/") and not is_cached:
        row["again"] = f"doit download --llamafile-url {shlex.quote(stamp.source)}"
        if stamp.sha256:
            row["again"] += f" --sha256 {stamp.sha256}"
    return row


def report(outcome: Outcome, facts: dict[str, Any]) -> Report:
    """Return the report: a table, how to restore, and the totals."""
    lines = [
        f"to restore: {row['again']}" for row in facts["removed"] if "again" in row
    ]
    lines += [f"catalogue checked: {path}" for path in facts["catalogues"]]
    by_age = "files that no catalogue here names are removed only with --older-than"
    lines += [f"catalogue not checked: {path}; {by_age}" for path in facts["not_asked"]]
    if len(facts["totals"]) > 1:
        totals = [
            f"{kind} {formatting.format_size(size)}"
            for kind, size in facts["totals"].items()
        ]
        lines.append(f"total: {', '.join(totals)}")
    lines.append(f"cache: {formatting.format_size(facts['before'])}{_freed(facts)}")
    return Report(_COLUMNS, _rows(outcome), lines, data=facts)


def _rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the rows for people: files that belong together are added up.

    A model and its stamp are one row; so are the many small files of a folder.
    """
    counts = Counter(
        _folder(candidate) for candidate in outcome.removed if not candidate.target
    )
    sizes: Counter[tuple[str, str]] = Counter()
    for candidate in outcome.removed:
        place = candidate.target or candidate.path
        if counts[_folder(candidate)] > 1:
            place = f"{_folder(candidate)[1]}/ ({counts[_folder(candidate)]} files)"
        sizes[candidate.why, place] += candidate.size
    for candidate, why in outcome.kept:
        sizes[f"kept: {why}", candidate.target or candidate.path] += candidate.size
    return [
        {"bytes": size, "why": why, "path": path} for (why, path), size in sizes.items()
    ]


def _folder(candidate: Candidate) -> tuple[str, str]:
    """Return the reason and the folder, by which small files are added up."""
    if candidate.target:
        return candidate.why, ""
    return candidate.why, os.path.dirname(candidate.path)


def _freed(facts: dict[str, Any]) -> str:
    freed = facts["before"] - facts["after"]
    if freed <= 0:
        return ", nothing to remove"
    verb = "freed"
    if facts["dry_run"]:
        verb = "would be freed"
    after = formatting.format_size(facts["after"])
    return f" → {after}, {formatting.format_size(freed)} {verb}"


_COLUMNS = (
    Column("bytes", ">size", formatting.format_size),
    Column("why", "why", least=20),
    Column("path", "what", least=10),
)
