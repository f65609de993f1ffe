"""The report of `doit audit`: what was found, and how to fix what is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.cache.audit import AuditResult, AuditStatus
from tasks.cache.inventory import CachedFile
from tasks.catalogue.artifact import Stamp
from tasks.catalogue.engine_release import UNPACKED
from tasks.console import formatting
from tasks.console.report import Column, Fact, Report, Row
from tasks.errors import IntegrityError
from tasks.system.file_stat import FileStat


class FileSnapshot(NamedTuple):
    """A file as it was before it was read."""

    file: CachedFile
    stat: FileStat | None  # None if the file does not exist
    stamp: Stamp | None


def _size(snapshot: FileSnapshot) -> int | None:
    if snapshot.stat is None:
        return None
    return snapshot.stat.size


def _row(snapshot: FileSnapshot, result: AuditResult) -> dict[str, Any]:
    return {
        "file": snapshot.file.artifact.target,
        "models": list(snapshot.file.models),
        "in_catalogue": snapshot.file.is_named,
        "size": _size(snapshot),
        "verdict": result.status.value,
        "expected": result.expected or None,
        "got": result.got or None,
    }


def audit_report(
    judged: Sequence[tuple[FileSnapshot, AuditResult]],
    absent: int,
    cache: str,
    elapsed: float,
) -> Report:
    """Return the report.

    Args:
        absent: number of files of the catalogue that were never downloaded.
        elapsed: seconds.
    """
    rows = [_row(*one) for one in judged]
    here = [
        {**row, "label": snapshot.file.label}
        for row, (snapshot, _) in zip(rows, judged, strict=True)
        if row["size"] is not None
    ]
    missing = ""
    if absent := absent + len(rows) - len(here):
        missing = f"{_files(absent)} of the catalogue not downloaded"
    where = f"Cache: {cache}"
    if not here:
        nothing = f"nothing to audit: {missing or 'the catalogue names no file'}"
        return Report((), (), empty=f"{nothing}. {where}", data=rows)
    total = formatting.format_size(sum(row["size"] for row in here))
    read = f"{_files(len(here))}, {total}, in {formatting.format_duration(elapsed)}"
    summary = ". ".join(filter(None, (read, missing, where)))
    return Report(columns(cache), here, [Fact("", summary)], data=rows)


def columns(cache: str) -> tuple[Column, ...]:
    """Return the columns of the table; paths are those in the cache."""
    return (
        Column("label", "model", describe=_label, least=12),
        Column("size", ">size", formatting.format_size),
        Column("verdict", "verdict", describe=_verdict, style=_style, least=22),
        Column("file", "file", lambda path: path.removeprefix(f"{cache}/"), least=20),
    )


def _files(count: int) -> str:
    if count == 1:
        return "1 file"
    return f"{count} files"


def _label(row: Row) -> str:
    if not row["in_catalogue"]:
        return "-"
    return str(row["label"])


def _style(row: Row) -> str:
    colours = {AuditStatus.OK.value: "green", AuditStatus.UNPINNED.value: "yellow"}
    return colours.get(row["verdict"], "red")


def _verdict(row: Row) -> str:
    if row["verdict"] == AuditStatus.UNPINNED.value:
        if row["in_catalogue"]:
            return "as its stamp says; not pinned"
        return "as its stamp says; not in the catalogue"
    if row["verdict"] == AuditStatus.DIFFERS.value:
        if str(row["got"]).startswith(UNPACKED):
            return "differs: an unpacked file"
        if str(row["got"]).endswith("bytes"):
            return "differs: wrong size"
        return "differs: wrong SHA-256"
    return str(row["verdict"])


def audit_error(
    where: str,
    failed: Sequence[tuple[FileSnapshot, AuditResult]],
    rereads: Sequence[bool],
) -> IntegrityError:
    """Return the error: what is wrong with each file, and the command that fixes it.

    Args:
        where: the path of models.yaml.
        rereads: whether the next download reads the file and replaces it.
    """
    facts: list[tuple[str, object]] = []
    for snapshot, result in failed:
        problem = f"expected {result.expected}\ngot {result.got}"
        if result.status is AuditStatus.UNREADABLE:
            problem = f"cannot be read: {result.got}"
        facts.append((snapshot.file.artifact.target, problem))
    what = f"{_files(len(failed))} failed verification"
    rows = zip(failed, rereads, strict=True)
    fixes = dict.fromkeys(_fix(where, *row, reread) for row, reread in rows)
    return IntegrityError(what, facts, "\n".join(fixes))


def _fix(where: str, snapshot: FileSnapshot, result: AuditResult, reread: bool) -> str:
    file, target = snapshot.file, snapshot.file.artifact.target
    if result.status is AuditStatus.UNREADABLE:
        return f"make {target} readable for you"
    if result.bytes_are_right:
        return f"the digest is right: correct the size in {where}"
    if not file.is_named and file.is_program:
        return f"`doit prune`, or delete {target}"
    if not file.is_named:
        return f"`doit prune`, or delete {os.path.dirname(target)}"
    again = f"doit download:{next(iter(file.models), '')}"
    if file.is_program:
        again = "doit exe"
    if reread:
        return again
    return f"delete {target}, then {again}"
