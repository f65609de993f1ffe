"""`doit audit`: read every file in the cache and compare it with the catalogue."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tasks import doit_adapter
from tasks.cache import stamps, unpacked
from tasks.cache.audit import (
    AuditResult,
    AuditStatus,
    check_digest,
    check_size,
    invalidated,
)
from tasks.cache.audit_report import FileSnapshot, audit_error, audit_report
from tasks.cache.inventory import CachedFile
from tasks.cache.store import known_files
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.catalogue.engine_release import UNPACKED
from tasks.command_line import TaskRequest
from tasks.context import Context
from tasks.errors import IntegrityError
from tasks.system import files
from tasks.system.files import Hashed


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    named = [context.catalogue.name(word) for word in request.models]
    return [context, named, bool(request.options.get("json"))]


def run(context: Context, named: Sequence[str], as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        IntegrityError: a file is not what it must be, or cannot be read.
        SystemExit: a signal came (128 + signal).
    """
    from tasks.cache.digests import CancelledError
    from tasks.system.signals import handle_signals

    cache = context.environment.cache
    start = time.monotonic()
    chosen = known_files(context.catalogue, context.environment, named)
    looks = [_look(cache, file) for file in chosen]
    absent = 0
    if not named:
        known = [look for look in looks if look.stat or look.stamp]
        absent = len(looks) - len(known)
        looks = known
    stop: list[int] = []
    try:
        with handle_signals(stop.append):
            findings = _judged(cache, looks, stop)
    except CancelledError:
        raise SystemExit(128 + stop[0]) from None
    rows = list(zip(looks, findings, strict=True))
    report = audit_report(rows, absent, cache, time.monotonic() - start)
    doit_adapter.show_report(report, as_json)
    failed = [row for row in rows if row[1].is_failure]
    if failed:
        where = context.catalogue.where
        raise audit_error(
            where, failed, [_invalidate_stamp(cache, *row) for row in failed]
        )


def _look(cache: str, file: CachedFile) -> FileSnapshot:
    return FileSnapshot(
        file, files.stat(file.artifact.target), stamps.read_stamp(cache, file.artifact)
    )


def _judged(
    cache: str, looks: Sequence[FileSnapshot], stop: list[int]
) -> list[AuditResult]:
    """Return a finding for each file; several are read at a time, with one bar.

    Raises:
        CancelledError: a signal came.
    """
    from tasks.cache.digests import sha256_files
    from tasks.console.progress import progress

    findings = {
        snapshot.file.artifact.target: _at_sight(snapshot) for snapshot in looks
    }
    by_target = {snapshot.file.artifact.target: snapshot for snapshot in looks}
    sizes = {
        snapshot.file.artifact.target: snapshot.stat.size
        # the longest first, so that no long file is read alone at the end
        for snapshot in sorted(
            looks, key=lambda snapshot: snapshot.stat or (), reverse=True
        )
        if snapshot.stat and findings[snapshot.file.artifact.target] is None
    }
    total = sum(sizes.values())
    with progress("audit", 0) as bar:

        def on_progress(done: int) -> None:
            bar.update(done, total, "reading")

        for target, got in sha256_files(list(sizes), on_progress, lambda: stop):
            findings[target] = _by_digest(cache, by_target[target], got)
    missing = AuditResult(AuditStatus.MISSING)
    return [findings[snapshot.file.artifact.target] or missing for snapshot in looks]


def _by_digest(
    cache: str, snapshot: FileSnapshot, got: Hashed | OSError | IntegrityError
) -> AuditResult:
    """Judge a file that was read, and write the stamp of a right one if it has none."""
    if isinstance(got, OSError):
        return AuditResult(AuditStatus.UNREADABLE, got=got.strerror or str(got))
    if isinstance(got, IntegrityError):
        reason = "it was changed or replaced while it was read"
        return AuditResult(AuditStatus.UNREADABLE, got=reason)
    artifact, stamp = snapshot.file.artifact, snapshot.stamp
    result = check_digest(artifact, stamp, got.stat.size, got.sha256)
    proven = stamp and (stamp.stat, stamp.sha256) == (got.stat, got.sha256)
    if result.status is AuditStatus.OK and not proven:
        _prove(cache, artifact, stamp, got)
    if result.status is AuditStatus.OK and os.path.isdir(artifact.unpacked):
        return _unpacked(cache, artifact, result)
    return result


def _unpacked(cache: str, artifact: Artifact, result: AuditResult) -> AuditResult:
    """Compare the files of an archive with the archive, which is right."""
    from tasks.errors import RecipeError
    from tasks.transfer.unpacked_files import compare

    try:
        _, problem = compare(cache, artifact, "")
    except (RecipeError, OSError) as error:
        problem = getattr(error, "what", str(error))
    if not problem:
        return result
    expected = "the files of the archive"
    return AuditResult(AuditStatus.DIFFERS, expected, f"{UNPACKED}: {problem}")


def _prove(cache: str, artifact: Artifact, stamp: Stamp | None, got: Hashed) -> None:
    """Write the stamp of a right file, so that the next download does not read it."""
    from tasks.errors import RecipeError
    from tasks.transfer.locks import try_lock

    new = Stamp(got.stat, got.sha256, artifact.target, {})
    if stamp and stamp.sha256 == got.sha256:
        new = new._replace(source=stamp.source, engines=stamp.engines)
    # the cache may be read-only
    with suppress(OSError, RecipeError), try_lock(cache, artifact) as free:
        if free:
            stamps.write_stamp(cache, artifact, new)


def _at_sight(snapshot: FileSnapshot) -> AuditResult | None:
    """Judge a file that does not have to be read for it; None for others."""
    if snapshot.stat is None:
        return AuditResult(AuditStatus.MISSING)
    return check_size(snapshot.file.artifact, snapshot.stamp, snapshot.stat.size)


def _invalidate_stamp(cache: str, snapshot: FileSnapshot, result: AuditResult) -> bool:
    """Void the stamp of a wrong file, so that the next download reads it.

    Size and time alone would not show that it is wrong. Nothing is changed if the file
    was replaced meanwhile, or if another process changes it.

    Returns:
        Whether the next download will read the file.
    """
    from tasks.errors import RecipeError
    from tasks.transfer.locks import try_lock

    artifact, stamp = snapshot.file.artifact, snapshot.stamp
    if artifact.unpacked:
        with suppress(OSError):
            unpacked.forget(artifact)
    if artifact.sha256 is None and (stamp is None or stamp.sha256 is None):
        return False  # without a digest a download takes any file as right
    if stamp is None or snapshot.stat != stamp.stat:
        return True
    if result.bytes_are_right or result.status is AuditStatus.UNREADABLE:
        return True
    try:
        with try_lock(cache, artifact) as free:
            if free and _look(cache, snapshot.file) == snapshot:
                return stamps.write_stamp(cache, artifact, invalidated(stamp))
        return True
    except (OSError, RecipeError):  # a read-only cache
        return False
