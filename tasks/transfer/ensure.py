"""Ensure that a file exists and is correct: keep, verify or download it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp, TargetState, stamp_path
from tasks.catalogue.model_format import head_problem, text_problem
from tasks.errors import IntegrityError, RecipeError
from tasks.system import files
from tasks.transfer.permission import check_allowed
from tasks.transfer.place import check_place, share_folder
from tasks.transfer.policy import DownloadPolicy


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


def _is_right_there(cache: str, artifact: Artifact) -> bool:
    """Return whether a read-only cache has the right bytes, so needs no lock."""
    return stamps.target_state(
        cache, artifact
    ) is TargetState.UNVERIFIED and _same_bytes(cache, artifact)
