"""Verify a download: the size and the digest, and whether it is a model."""

from __future__ import annotations

from tasks.catalogue.artifact import Artifact
from tasks.console.progress import Progress
from tasks.errors import IntegrityError
from tasks.network import content
from tasks.system import files
from tasks.system.file_stat import FileStat
from tasks.transfer import contents
from tasks.transfer.partial import Partial


def check_bytes(
    artifact: Artifact, expected: str | None, partial: Partial, bar: Progress
) -> None:
    """Check a partial that has all of its bytes.

    Args:
        expected: SHA-256; None if neither the catalogue nor the publisher has one.

    Raises:
        IntegrityError: it is not the artifact, or not a model.
    """
    size = partial.tracker.size or 0
    while not partial.hasher.wait(size, 0.1):
        bar.update(size, size, "verifying")
    bar.update(size, size)
    if artifact.size not in (None, size):
        facts = [("expected", f"{artifact.size} bytes"), ("got", f"{size} bytes")]
        raise IntegrityError(f"{artifact.label}: wrong size", facts)
    got = partial.hasher.hexdigest()
    if expected not in (None, got):
        facts = [
            ("received", _received(partial, size)),
            ("expected", f"sha256:{expected}"),
            ("got", f"sha256:{got}"),
        ]
        raise IntegrityError(f"{artifact.label}: wrong SHA-256", facts)
    if problem := contents.problem(artifact, artifact.partial, size):
        raise contents.wrong_file(artifact, problem)


def has_right_bytes(artifact: Artifact, partial: Partial) -> bool:
    """Return whether the file is complete though the source states more bytes."""
    with partial.changed:
        done = partial.tracker.done
        is_one_span = partial.tracker.contiguous_end(0) == done
    if not (done and is_one_span and artifact.sha256 and not artifact.size):
        return False
    while not partial.hasher.wait(done, 0.1):
        pass
    return partial.hasher.hexdigest() == artifact.sha256


def _received(partial: Partial, size: int) -> str:
    """Return how many bytes arrived and how they begin, for a message."""
    head = bytearray(min(size, content.HEAD_BYTES))
    count = partial.file.read_into(0, memoryview(head))
    return content.received(bytes(head[:count]), size)


def target_stat(artifact: Artifact, held: FileStat, digest: str) -> FileStat:
    """Return the state of the target, which must be the hashed file.

    If its state differs, the target is read: it was replaced, or the file system sets
    times late.

    Raises:
        IntegrityError: it has other bytes.
    """
    status = files.stat(artifact.target)
    if status is not None and status.is_same_but_renamed(held):
        return status
    hashed = files.sha256_file(artifact.target)
    if hashed.sha256 != digest:
        facts = [("expected", f"sha256:{digest}"), ("got", f"sha256:{hashed.sha256}")]
        what = f"{artifact.target} was replaced during the download"
        fix = "find the program that writes to the cache, and run it again"
        raise IntegrityError(what, facts, fix)
    return hashed.stat
