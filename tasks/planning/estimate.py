"""What a command line will need, before anything is done: bytes of each file, disk, memory."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple

from tasks.cache import stamps
from tasks.cache.space import SPACE_MARGIN
from tasks.catalogue.artifact import Artifact, State
from tasks.catalogue.resolve import Job
from tasks.console import formatting
from tasks.planning import gguf
from tasks.system import files
from tasks.urls import is_local

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member; its name and its extra field follow

OVERHEAD = 300 * 10**6  # bytes an engine takes beside weights and cache: its code, and buffers to compute in
UNKNOWN = "?"


class Need(NamedTuple):
    """One file."""

    label: str
    path: str
    state: str  # have, changed, resume, adopt, copy, fetch, nowhere
    source: str  # where it will come from
    size: int | None  # bytes of the whole
    taken: int = 0  # bytes of it that are here, and stay

    @property
    def to_fetch(self) -> int | None:
        """Bytes that go over the network; None where nobody says how many."""
        if self.state not in ("fetch", "resume"):
            return 0
        return None if self.size is None else max(0, self.size - self.taken)

    @property
    def to_write(self) -> int | None:
        """Bytes of the disk that it will take; None where nobody says how many."""
        return (self.size if self.state in ("adopt", "copy") else self.to_fetch) or self.to_fetch

    def where(self) -> str:
        """The state in words."""
        if self.state == "resume":
            return f"resume from {formatting.percent(self.taken, self.size) or formatting.size(self.taken)}"
        return self.state


class Memory(NamedTuple):
    """What serving one model takes, in bytes."""

    model: str
    weights: int | None
    cache: int | None  # the KV cache for the asked context
    context: int  # tokens, 0: as trained
    exact: bool  # from the file's own metadata; else a rule of thumb
    gpu: bool  # layers were asked onto a GPU, whose memory is not known here
    said: int | None = None  # all of it, as the catalogue has it

    @property
    def needed(self) -> int | None:
        """All of it; None where that is not known."""
        if self.weights is None or self.cache is None:
            return self.said
        return self.weights + self.cache + OVERHEAD


def total(values: Sequence[int | None]) -> tuple[int, bool]:
    """(sum of those that are known, whether all are)."""
    return sum(value or 0 for value in values), None not in values


def problems(needs: Sequence[Need], free: int, memory: Sequence[Memory], here: int) -> list[tuple[str, str]]:
    """Why it cannot work: (what, remedy) for each reason.

    Args:
        free: bytes of the disk; here: bytes of memory this process may use.
    """
    found = []
    write = total([need.to_write for need in needs])[0]
    if write and write + SPACE_MARGIN > free:
        what = f"the disk has {formatting.size(free)} free, and {formatting.size(write)} come"
        found.append((what, "doit prune, or LLAMAFILE_CACHE on another disk"))
    for one in memory:
        if one.needed and one.needed > here and not one.gpu:
            less = "a smaller --ctx-size, or " if (one.cache or 0) > OVERHEAD else ""
            what = (
                f"{one.model} needs {formatting.size(one.needed)} of memory, "
                f"and {formatting.size(here)} are here"
            )
            found.append((what, f"{less}a smaller model (`doit` shows them)"))
    return found


def as_json(need: Need) -> dict[str, Any]:
    """A file for programs; sizes in bytes, null where they are not known."""
    return {
        "file": need.label,
        "path": need.path,
        "state": need.state,
        "source": need.source,
        "size": need.size,
        "here": need.size if need.state == "have" else need.taken,
        "to_fetch": need.to_fetch,
    }


def metadata(path: str) -> gguf.Meta | None:
    """What a .gguf file says, or the model inside a llamafile; None where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            is_gguf = stream.read(4) == b"GGUF"
            stream.seek(0 if is_gguf else _inside(stream))
            return gguf.read(stream)
    except (OSError, ValueError, OverflowError, gguf.BadGguf):
        return None
    except (zipfile.BadZipFile, NotImplementedError, struct.error):  # of a zip that is none, or too new
        return None


def _inside(stream: BinaryIO) -> int:
    """Where the model's bytes begin in a llamafile, which is also a zip that stores them as they are.

    Raises BadZipFile: it is no zip. ValueError: it has no such member.
    """
    with closing(zipfile.ZipFile(stream)) as box:
        stored = [one for one in box.infolist() if one.compress_type == zipfile.ZIP_STORED]
    # the largest: a vision projector is a .gguf as well. max() raises ValueError where there is none
    model = max((one for one in stored if one.filename.endswith(".gguf")), key=lambda one: one.file_size)
    stream.seek(model.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    return model.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def need_of(cache: str, artifact: Artifact, adopt: bool = True) -> Need:
    """What is to be done for one file."""
    from tasks.transfer.journal import claimed

    label, path, state = artifact.label, artifact.target, stamps.state(cache, artifact)
    if state is not State.MISSING:
        word = "have" if state is State.FRESH else "changed"
        return Need(label, path, word, path, artifact.size or _size(path))
    near, local = _near(artifact, adopt)
    if near or local:
        return Need(
            label, path, "adopt" if near else "copy", near or local, artifact.size or _size(near or local)
        )
    claim = claimed(artifact)
    word = "resume" if claim.done else "fetch" if artifact.sources else "nowhere"
    source = next((u for u in artifact.sources if not is_local(u)), next(iter(artifact.sources), ""))
    return Need(label, path, word, source, artifact.size or claim.size, claim.done)


def _near(artifact: Artifact, adopt: bool) -> tuple[str, str]:
    """(file of another program's, file of the user's) that has the bytes, empty where there is none."""
    from tasks.transfer.local_sources import candidates, path_of

    local = (path_of(url) for url in artifact.sources if is_local(url))
    near = next(candidates(artifact), "") if adopt else ""
    return near, next(filter(os.path.exists, local), "")


def _size(path: str) -> int | None:
    found = files.stat(path)
    return found.size if found else None


def memory_of(job: Job, needs: list[Need]) -> Memory:
    """What serving takes: from the file where it is on this machine, else by a rule of thumb."""
    settings, context = job.settings, job.settings.ctx_size or 0
    mine = [need for need in needs if need.path in {one.target for one in job.files}]
    meta = metadata(mine[0].source)
    cache = gguf.kv_bytes(meta, context) if meta else None
    exact, sizes = cache is not None, [need.size for need in mine]
    if cache is None:
        cache = gguf.kv_estimate(job.model.params, context)
    weights = None if None in sizes else total(sizes)[0]
    gpu = bool(settings.ngl) and settings.gpu != "disable"
    said = job.model.ram * 10**9 if job.model.ram else None
    return Memory(job.name, weights, cache, context, exact, gpu, said)
