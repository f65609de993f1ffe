"""Ensure that a file exists and is correct: keep, verify or download it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import NoReturn

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp, TargetState, stamp_path
from tasks.catalogue.model_format import head_problem, text_problem
from tasks.console import formatting
from tasks.console.program import as_typed
from tasks.console.text import visible
from tasks.errors import IntegrityError, RecipeError, TransferError
from tasks.system import files
from tasks.system.paths import ENDING_BYTES
from tasks.transfer.policy import DownloadPolicy
from tasks.urls import is_local


def ensure_files(
    cache: str, wanted: Iterable[Artifact], policy: DownloadPolicy
) -> None:
    """Ensure that each target is correct.

    Raises:
        RecipeError: as `converge`.
    """
    for artifact in wanted:
        if stamps.target_state(cache, artifact) is not TargetState.FRESH:
            ensure_file(cache, artifact, policy)


def ensure_file(
    cache: str,
    artifact: Artifact,
    policy: DownloadPolicy | None = None,
    again: bool = False,
) -> None:
    """Ensure that the target is correct: keep it, verify its bytes, or download it.

    Args:
        policy: which downloads are allowed; None: any.
        again: download although the target exists: its source may have changed.

    Raises:
        RecipeError: it cannot be downloaded, or the target has wrong bytes and is not
            in the cache.
    """
    from tasks.transfer.locks import NoLockError

    is_read = again
    if not again and not os.access(cache, os.W_OK):
        if _is_right_there(cache, artifact):
            return
        is_read = True
    try:
        stamps.make_cache(cache)
    except OSError as error:
        raise stamps.cache_write_error(cache, error) from None
    check_place(cache, artifact)
    try:
        _converge_locked(cache, artifact, policy, again)
    except NoLockError:
        # right bytes need no lock, for nothing will be written
        if is_read or not _is_right_there(cache, artifact):
            raise


def _converge_locked(
    cache: str, artifact: Artifact, policy: DownloadPolicy | None, again: bool
) -> None:
    """Do what `converge` does, while this process holds the artifact's lock."""
    from tasks.transfer.locks import artifact_lock, wait_for_owner
    from tasks.transfer.owned_journal import OwnershipLostError

    if artifact.in_cache:
        share_folder(cache, artifact)
    with artifact_lock(cache, artifact):
        while True:
            state = (
                TargetState.MISSING if again else stamps.target_state(cache, artifact)
            )
            if state is TargetState.UNVERIFIED and _same_bytes(cache, artifact):
                return
            if state is TargetState.FRESH:
                doit_adapter.log().info(
                    "%s was downloaded by another process", artifact.label
                )
                return
            try:
                _warn_of_no_model(artifact)
                if policy is not None:
                    check_allowed(cache, artifact, policy)
                _fetch(cache, artifact)
                return
            except (
                OwnershipLostError
            ):  # locks do not work, and another process continues
                again = False
                wait_for_owner(artifact)


def _warn_of_no_model(artifact: Artifact) -> None:
    """Say why a file that is in the cache is downloaded again."""
    head = files.first_bytes(artifact.target)
    if artifact.sha256 is None and artifact.in_cache and files.stat(artifact.target):
        text = "%s: the file in the cache is replaced: %s"
        problem = head_problem(head)
        if artifact.is_text:
            problem = text_problem(head)
        if problem:
            doit_adapter.log().warning(text, artifact.label, problem)


def _same_bytes(cache: str, artifact: Artifact) -> bool:
    """Verify a changed file; return False where it must be downloaded again."""
    from tasks.console.progress import progress

    before = stamps.read_stamp(cache, artifact)
    status = files.stat(artifact.target)
    expected = artifact.sha256
    if expected is None and before is not None:
        expected = before.sha256
    doit_adapter.log().info(
        "%s: verifying the existing file, which is new or has changed", artifact.label
    )
    size = status.size if status else None
    with progress(f"{artifact.label} sha256", 0) as bar:
        bar.update(0, size)
        got = files.sha256_file(artifact.target, lambda done: bar.update(done, size))
    if expected in (None, got.sha256):
        known = before or Stamp(got.stat, got.sha256, artifact.target, {})
        engines = known.engines if known.sha256 == got.sha256 else {}
        stamps.write_stamp(
            cache, artifact, Stamp(got.stat, got.sha256, known.source, engines)
        )
        doit_adapter.log().info(
            "%s: the digest is correct, nothing is downloaded", artifact.label
        )
        return True
    facts = [
        ("file", artifact.target),
        ("expected", f"sha256:{expected}"),
        ("got", f"sha256:{got.sha256}"),
    ]
    if not artifact.in_cache:
        fix = "remove the file to download it again, or pass its digest with --sha256"
        raise IntegrityError(
            f"{artifact.label} is not the file you asked for", facts, fix
        )
    doit_adapter.log().warning(
        "%s",
        IntegrityError(
            f"{artifact.label} has changed on disk; downloading it again", facts
        ),
    )
    return False


def move_to_pinned(cache: str, artifact: Artifact, stamp: Stamp, folder: str) -> None:
    """Move a download to the folder of its digest, where a pinned entry has it.

    What cannot be moved stays, and is copied when the entry is used.
    """
    import contextlib

    from tasks.transfer.locks import artifact_lock

    target = os.path.join(folder, os.path.basename(artifact.target))
    pinned = artifact._replace(target=target, sha256=stamp.sha256)
    with contextlib.suppress(OSError, RecipeError), artifact_lock(cache, pinned):
        check_place(cache, pinned)
        if files.stat(target) or files.stat(artifact.target) != stamp.stat:
            return
        os.makedirs(folder, exist_ok=True)
        os.replace(artifact.target, target)
        moved = files.stat(target)
        if moved and moved.is_same_but_renamed(stamp.stat):
            stamps.write_stamp(cache, pinned, stamp._replace(stat=moved))
        os.unlink(stamp_path(cache, artifact))
        os.rmdir(os.path.dirname(artifact.target))


def check_source(cache: str, artifact: Artifact, policy: DownloadPolicy) -> None:
    """Check that a missing file may be downloaded, before any download starts.

    Raises:
        TransferError: as `check_allowed`.
    """
    if stamps.target_state(cache, artifact) is TargetState.MISSING:
        check_allowed(cache, artifact, policy)


def check_allowed(cache: str, artifact: Artifact, policy: DownloadPolicy) -> None:
    """Check that a file may be downloaded, whether or not the target exists.

    Raises:
        TransferError: it has no source (R5), it must be pinned and is not, or network
            access is disabled.
    """
    if not artifact.sources:
        fix = "check the path, or say where to download it from: --llamafile-url URL"
        what = f"no such file: {artifact.target}"
        if os.path.lexists(artifact.target):
            what = f"{artifact.target} is not a regular file"
            fix = "give the path of a file"
        raise TransferError(what, fix=fix)
    if policy.frozen and artifact.sha256 is None:
        raise TransferError(
            f"{artifact.label} is not pinned; "
            "--frozen and CI=true allow pinned files only",
            [("url", artifact.sources[0])],
            fix=policy.pin_fix(artifact),
        )
    if policy.offline and not _is_near(artifact):
        raise _offline(cache, artifact, policy)


def _is_near(artifact: Artifact) -> bool:
    """Return whether this machine may have the bytes."""
    from tasks.transfer.local_sources import candidates

    return (
        any(map(is_local, artifact.sources))
        or next(candidates(artifact), None) is not None
    )


def _offline(cache: str, first: Artifact, policy: DownloadPolicy) -> TransferError:
    """Return the error that lists all missing files of the command line.

    Args:
        first: the file that was checked first; its target may have wrong bytes.
    """
    facts = [
        (
            artifact.label,
            f"{formatting.format_size(artifact.size)} from {artifact.sources[0]}",
        )
        for artifact in _missing(cache, first, policy.needed)
        if artifact.sources
    ]
    fix = f"unset {policy.offline}, or copy the cache of another machine to {cache}"
    return TransferError(
        f"{policy.offline} forbids the network, and these files are missing",
        facts,
        fix="; ".join(filter(None, [fix, policy.engine_fix])),
    )


def _missing(cache: str, first: Artifact, needed: Iterable[Artifact]) -> list[Artifact]:
    """Return `first` and the files that would have to be downloaded."""
    by_target = {artifact.target: artifact for artifact in (*needed, first)}
    return [
        artifact
        for artifact in by_target.values()
        if artifact.target == first.target or _must_download(cache, artifact)
    ]


def is_available(cache: str, artifact: Artifact) -> bool:
    """Return whether no byte of a file has to be downloaded."""
    return not _must_download(cache, artifact)


def _must_download(cache: str, artifact: Artifact) -> bool:
    return stamps.target_state(cache, artifact) is TargetState.MISSING and not _is_near(
        artifact
    )


def _fetch(cache: str, artifact: Artifact) -> None:
    """Download a file, write its stamp, and record the rate."""
    import time

    from tasks.cache.rate import record_rate
    from tasks.transfer.download import fetch
    from tasks.transfer.journal import load_progress

    had = load_progress(artifact).done
    start = time.monotonic()
    stamp = fetch(artifact)
    if stamp.source.startswith(("http:", "https:")):
        record_rate(cache, stamp.stat.size - had, time.monotonic() - start)
    stamps.write_stamp(cache, artifact, stamp)


def confirm(question: str) -> None:
    """Ask a question on the terminal (R4).

    Raises:
        RecipeError: the answer is no, or stdin is not a terminal.
        SystemExit: a signal came (128 + signal).
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RecipeError(
            question.replace("\n", "\n  "),
            fix="stdin is not a terminal: pass --yes to confirm",
        )
    from tasks.system.signals import handle_signals

    text = visible(as_typed(question))
    try:
        with handle_signals(_end_question):
            print(f"{text} [y/N] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline()
    except SystemExit:
        # not in the handler: it may have interrupted a write to stderr
        print(file=sys.stderr)  # the terminal's cursor is behind the question
        doit_adapter.log().warning("Interrupted.")
        raise
    if answer.strip().lower() not in ("y", "yes"):
        raise RecipeError("cancelled: nothing was downloaded")


def _end_question(number: int) -> NoReturn:
    raise SystemExit(128 + number)


def _is_right_there(cache: str, artifact: Artifact) -> bool:
    """Return whether a read-only cache has the right bytes, so needs no lock."""
    return stamps.target_state(
        cache, artifact
    ) is TargetState.UNVERIFIED and _same_bytes(cache, artifact)


def share_folder(cache: str, artifact: Artifact) -> None:
    """Let every user of the cache write to `models` or `engines`, where this is new."""
    import contextlib

    from tasks.system import own_files

    with contextlib.suppress(OSError):  # a download names what cannot be written
        own_files.make_folder(
            cache, os.path.relpath(artifact.target, cache).split(os.sep)[0]
        )


def check_place(cache: str, artifact: Artifact) -> None:
    """Check that a file may be created at the target.

    Raises:
        RecipeError: the target is not a regular file, leads out of the cache, or has a
            name that is too long for the file system.
    """
    from tasks.system import own_files

    _check_name(artifact)
    if artifact.in_cache:
        own_files.check_inside(cache, artifact.target)
    elif os.path.lexists(artifact.target) and not os.path.isfile(
        os.path.realpath(artifact.target)
    ):
        raise RecipeError(
            f"{artifact.target} is not a regular file, "
            "and is not replaced by a download",
            fix="--llamafile PATH of a file, or remove it",
        )


def _check_name(artifact: Artifact) -> None:
    """Check that the file system takes the names of a new target and of its journal.

    Raises:
        RecipeError: it does not.
    """
    import contextlib

    if os.path.lexists(artifact.target):
        return
    folder, name = os.path.split(artifact.target)
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # Windows cannot be asked
        most = (
            os.pathconf(files.nearest_existing_dir(folder), "PC_NAME_MAX")
            - ENDING_BYTES
        )
        if 0 < most < len(os.fsencode(name)):
            from tasks.transfer.disk_errors import name_too_long

            raise name_too_long(artifact, folder)
