"""Read what the memory of a locked model depends on: the head of its GGUF."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

from tasks.cache import stamps
from tasks.catalogue import gguf
from tasks.catalogue.artifact import Artifact, TargetState, model_dir
from tasks.catalogue.environment import Environment
from tasks.catalogue.locked_memory import LockedMemory, locked_memory
from tasks.catalogue.lockfile import LockedFile
from tasks.catalogue.model_memory import kv_cache_bytes
from tasks.errors import TransferError
from tasks.planning.estimate import head_of
from tasks.system.paths import inside
from tasks.transfer.local_sources import local_path
from tasks.upstream.ranged_file import BLOCK, Part, RangedFile
from tasks.urls import filename_of, is_local

# URL, first byte, byte after the last → these bytes
FetchPart = Callable[[str, int, int], Part]


def read_memory(
    row: LockedFile, environment: Environment, fetch: FetchPart
) -> LockedMemory | None:
    """Return what is written into models.lock; None if the file does not state it.

    Read from the file on this machine, if it is here, else from its server.

    Raises:
        OSError: the file cannot be read.
        TransferError: its server does not send it.
        GgufError: it has no GGUF, or values that no model has.
    """
    path = _path_here(row, environment)
    if path:
        with open(path, "rb") as stream:
            metadata = head_of(stream, row.size)
    else:
        metadata = _remote(row, fetch)
    if kv_cache_bytes(metadata, 0) is None:
        return None
    return locked_memory(metadata)


def _path_here(row: LockedFile, environment: Environment) -> str:
    """Return the path of a file with the right digest, or nothing."""
    if is_local(row.url):
        return environment.absolute(local_path(row.url), environment.root)
    for key in (row.sha256, None):  # a file that was not pinned yet
        folder = model_dir(environment.cache, key, row.url)
        target = inside(folder, filename_of(row.url))
        artifact = Artifact(target, (row.url,), target, row.sha256)
        if stamps.target_state(environment.cache, artifact) is TargetState.FRESH:
            return target
    return ""


def _remote(row: LockedFile, fetch: FetchPart) -> gguf.ModelMetadata:
    failed: list[TransferError] = []

    def part(start: int, stop: int) -> Part:
        try:
            return fetch(row.url, start, stop)
        except TransferError as error:
            failed.append(error)
            return Part(b"", None)

    file = RangedFile(part, row.size)
    # typeshed has no common type of buffered readers and files
    stream = cast(BinaryIO, io.BufferedReader(file, BLOCK))
    try:
        return head_of(stream, file.size)
    except gguf.GgufError:
        if failed:
            raise failed[0] from None
        raise
