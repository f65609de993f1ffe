"""Check whether a file is here, or may be downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, TargetState
from tasks.console import formatting
from tasks.errors import TransferError
from tasks.transfer.policy import DownloadPolicy
from tasks.urls import is_local


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
