"""Compare an unpacked archive with the archive, which has the pinned digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from tasks.cache import stamps, unpacked
from tasks.cache.unpacked import Manifest, UnpackedFile
from tasks.catalogue.artifact import Artifact
from tasks.errors import IntegrityError
from tasks.system import files, own_files
from tasks.system.file_stat import FileStat
from tasks.transfer.archive_reader import ArchiveReader, open_archive
from tasks.transfer.archive_rules import (
    Entry,
    Kind,
    RefusedArchiveError,
    entries_of,
    final_target,
)


def compare(cache: str, artifact: Artifact, program: str) -> tuple[Manifest, str]:
    """Compare the folder with the archive, byte for byte.

    Returns:
        What the folder has, and the first difference; "" if there is none.

    Raises:
        IntegrityError: the archive is not the verified one, or is refused.
    """
    found: dict[str, UnpackedFile] = {}
    links: dict[str, str] = {}
    folder = unpacked.folder_of(artifact)
    problem = own_files.link_inside(os.path.dirname(artifact.target), folder + "/-")
    here = dict(unpacked.contents(folder))
    with opened(cache, artifact) as file, reading(artifact, file) as archive:
        entries = entries_of(archive.members(), program)
        by_path = {entry.path: entry for entry in entries}
        more = sorted(here.keys() - by_path.keys())
        if more:
            problem = problem or f"{more[0]} is not in the archive"
        for entry in in_order(entries):
            path = f"{folder}/{entry.path}"
            if entry.member.kind is Kind.LINK and isinstance(here.get(entry.path), str):
                links[entry.path] = str(here[entry.path])
                if links[entry.path] != entry.member.link:
                    problem = problem or f"{entry.path} leads elsewhere"
                continue
            digest = _digest_of(archive, final_target(entry, by_path))
            got = _hashed(path, here.get(entry.path))
            if got is None or got.sha256 != digest:
                problem = problem or f"{entry.path} is missing, or has other bytes"
                continue
            is_program = entry.member.is_program or entry.path == program
            if is_program and os.name == "posix" and not files.is_executable(path):
                problem = problem or f"{entry.path} is not executable"
            found[entry.path] = UnpackedFile(got.sha256, got.stat)
    return Manifest(artifact.sha256 or "", found, links), problem


def _hashed(path: str, state: object) -> files.Hashed | None:
    """Read a file; None if it is not a regular one, or cannot be read."""
    if not isinstance(state, FileStat):
        return None
    try:
        got = files.sha256_file(path)
    except (OSError, IntegrityError):
        return None
    if got.stat != state:
        return None
    return got


def in_order(entries: list[Entry]) -> list[Entry]:
    """Return entries in the order of the archive, which is read from its beginning."""
    return sorted(entries, key=lambda entry: entry.number)


def _digest_of(archive: ArchiveReader, entry: Entry) -> str:
    digest = hashlib.sha256()
    for block in archive.blocks(entry.number):
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def opened(cache: str, artifact: Artifact) -> Iterator[BinaryIO]:
    """Open the archive; check that it is the verified one, before and after.

    Raises:
        IntegrityError: it is not.
    """
    stamps.check_unchanged(cache, [artifact._replace(unpacked="")])
    with open(own_files.open_regular(artifact.target), "rb") as file:
        before = files.stat_of(os.fstat(file.fileno()))
        yield file
    stamps.check_unchanged(cache, [artifact._replace(unpacked="")])
    if os.name == "posix" and before != files.stat(artifact.target):
        what = f"{artifact.label}: {artifact.target} was replaced while it was read"
        raise IntegrityError(what, fix="run it again")


@contextlib.contextmanager
def reading(artifact: Artifact, file: BinaryIO) -> Iterator[ArchiveReader]:
    """Open the archive's members.

    Raises:
        IntegrityError: the archive is refused.
    """
    try:
        with open_archive(file, artifact.target) as archive:
            yield archive
    except RefusedArchiveError as reason:
        raise IntegrityError(
            f"{artifact.label} is not unpacked: {reason}",
            [("archive", artifact.target), ("from", next(iter(artifact.sources), ""))],
            fix="use another release: the version and archives of engines.llama-server",
        ) from None
