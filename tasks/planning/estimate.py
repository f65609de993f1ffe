"""Estimate what a command line needs before it runs: downloads, disk, memory."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple

from tasks.cache import stamps
from tasks.cache.space import SPACE_MARGIN, space_missing
from tasks.catalogue import gguf, model_memory, rule_of_thumb
from tasks.catalogue.artifact import Artifact, TargetState
from tasks.catalogue.resolve import ResolvedModel
from tasks.console import formatting
from tasks.system import files
from tasks.urls import is_local

# of a zip member: lengths of its name and its extra field, which follow the header
_LOCAL_HEADER = struct.Struct("<4s22xHH")

OVERHEAD = model_memory.OVERHEAD
FILE = "the file"
LOCK = "models.lock"
RULE = "a rule of thumb"
UNKNOWN = "?"


class FilePlan(NamedTuple):
    """What has to be done for one file."""

    label: str
    path: str
    state: str  # have, changed, resume, adopt, copy, fetch, nowhere
    source: str  # where its bytes will come from
    size: int | None  # bytes of the whole file
    taken: int = 0  # bytes of a partial download that are kept
    allocated: int = 0  # bytes of the disk that the partial download has

    @property
    def to_fetch(self) -> int | None:
        """Bytes to download; None if unknown."""
        if self.state not in ("fetch", "resume"):
            return 0
        if self.size is None:
            return None
        return max(0, self.size - self.taken)

    @property
    def to_write(self) -> int | None:
        """Bytes to write to the disk; None if unknown."""
        if self.state in ("adopt", "copy"):
            return self.size or 0
        if self.to_fetch is None or self.size is None:
            return self.to_fetch
        return min(self.to_fetch, max(0, self.size - self.allocated))


class MemoryEstimate(NamedTuple):
    """The memory that serving one model needs, in bytes."""

    model: str
    weights: int | None
    cache: int | None  # KV cache for the requested context
    context: int  # tokens; 0: as trained
    exact: bool  # from the model's metadata, not a rule of thumb
    gpu: bool  # layers are offloaded to a GPU, whose memory is not known here
    declared: int | None = None  # the total that the catalogue declares (`ram:`)
    beyond: int = 0  # KV cache beyond the context that `declared` includes
    source: str = RULE  # where the numbers are from
    engine: int = OVERHEAD  # the engine's own bytes: program, buffers

    @property
    def needed(self) -> int | None:
        """The total; None if unknown."""
        if self.weights is not None and self.cache is not None:
            return self.weights + self.cache + self.engine
        if self.declared is not None:
            return self.declared + self.beyond
        return None

    @property
    def is_declared(self) -> bool:
        """Whether the total is that of the catalogue."""
        return self.weights is None or self.cache is None

    @property
    def least(self) -> int:
        """The total with the smallest context; 0 if unknown."""
        if self.is_declared:
            return self.declared or 0
        return (self.weights or 0) + min(self.engine, OVERHEAD)


def total(values: Sequence[int | None]) -> tuple[int, bool]:
    """Return (sum of the known values, whether all are known)."""
    return sum(value or 0 for value in values), None not in values


def blockers(
    needs: Sequence[FilePlan], free: int, memory: Sequence[MemoryEstimate], here: int
) -> list[tuple[str, str]]:
    """Return (what, remedy) for each reason why the command line cannot succeed.

    Args:
        free: bytes of the disk.
        here: bytes of memory that this process may use.
    """
    reasons = []
    write = total([file_plan.to_write for file_plan in needs])[0]
    missing = space_missing(write, 0, free)
    if write and missing:
        sizes = map(formatting.format_size, (free, missing, write, SPACE_MARGIN))
        text = "the disk has {} free: {} are missing for {} and {} that stay free"
        remedy = "`doit prune`, or LLAMAFILE_CACHE on another disk"
        reasons.append((text.format(*sizes), remedy))
    for estimate in memory:
        if estimate.needed and estimate.needed > here and not estimate.gpu:
            reasons.append(_memory_problem(estimate, estimate.needed, here))
    return reasons


def _memory_problem(
    estimate: MemoryEstimate, needed: int, here: int
) -> tuple[str, str]:
    size = formatting.format_size(needed)
    available = formatting.format_size(here)
    what = f"{estimate.model} needs {size} of memory, and {available} are here"
    remedy = "a smaller model (`doit` shows them)"
    if estimate.least <= here:
        remedy = f"a smaller --ctx-size, or {remedy}"
    return what, remedy


def as_json(file_plan: FilePlan) -> dict[str, Any]:
    """Return a file's row of the JSON report; sizes in bytes, null if unknown."""
    return {
        "file": file_plan.label,
        "path": file_plan.path,
        "state": file_plan.state,
        "source": file_plan.source,
        "size": file_plan.size,
        "here": file_plan.size if file_plan.state == "have" else file_plan.taken,
        "to_fetch": file_plan.to_fetch,
    }


def metadata(path: str) -> gguf.ModelMetadata | None:
    """Return the metadata of a .gguf file, or of the model in a llamafile.

    None if it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return head_of(stream, os.stat(path).st_size)
    except (OSError, gguf.GgufError):
        return None


def head_of(stream: BinaryIO, size: int | None) -> gguf.ModelMetadata:
    """Return the metadata of a GGUF, or of the model in a llamafile.

    Args:
        size: bytes of the file; None if unknown.

    Raises:
        GgufError: it has none, or none that a model can have.
    """
    try:
        if stream.read(4) == b"GGUF":
            stream.seek(0)
            return gguf.read_head(stream, size)
        stream.seek(_model_offset(stream))
        return gguf.read_head(stream, None)
    except (ValueError, OverflowError, zipfile.BadZipFile) as error:
        raise gguf.GgufError(f"it has no GGUF: {error}") from None
    except (NotImplementedError, struct.error, MemoryError) as error:
        # a version of zip files that zipfile does not support, or a damaged one
        raise gguf.GgufError(f"it has no readable GGUF: {error}") from None


def _model_offset(stream: BinaryIO) -> int:
    """Return where the model's bytes begin in a llamafile.

    A llamafile is also a zip file, which has the model as an uncompressed member.

    Raises:
        BadZipFile: it is not a zip file.
        ValueError: it has no such member.
    """
    with closing(zipfile.ZipFile(stream)) as archive:
        members = [
            member
            for member in archive.infolist()
            if member.compress_type == zipfile.ZIP_STORED
            and member.filename.endswith(".gguf")
        ]
    # The largest one: a vision projector is a .gguf as well.
    # max() raises ValueError if there is none.
    model = max(members, key=lambda member: member.file_size)
    stream.seek(model.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    return model.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def plan_file(cache: str, artifact: Artifact, adopt: bool = True) -> FilePlan:
    """Return what has to be done for one file.

    Args:
        adopt: use a copy of another program, as a download does.
    """
    label = artifact.label
    path = artifact.target
    state = stamps.target_state(cache, artifact)
    if state is not TargetState.MISSING:
        action = "have" if state is TargetState.FRESH else "changed"
        return FilePlan(label, path, action, path, artifact.size or _size(path))
    if adopt and (source := _adoptable(artifact)):
        return FilePlan(label, path, "adopt", source, artifact.size or _size(source))
    if source := _local_source(artifact):
        return FilePlan(label, path, "copy", source, artifact.size or _size(source))
    return _download(artifact)


def _adoptable(artifact: Artifact) -> str:
    """Return a file of another program that has the bytes, or nothing."""
    from tasks.transfer.local_sources import candidates

    return next(candidates(artifact), "")


def _local_source(artifact: Artifact) -> str:
    """Return a file of the user that the catalogue names as source, or nothing."""
    from tasks.transfer.local_sources import local_path

    paths = (local_path(url) for url in artifact.sources if is_local(url))
    return next(filter(os.path.exists, paths), "")


def _download(artifact: Artifact) -> FilePlan:
    from tasks.transfer.journal import load_progress

    saved = load_progress(artifact)
    action = "nowhere"
    remote = [url for url in artifact.sources if not is_local(url)]
    if saved.done:
        action = "resume"
    elif remote:
        action = "fetch"
    source = next(iter([*remote, *artifact.sources]), "")
    size = artifact.size or saved.size
    allocated = files.allocated(artifact.partial)
    return FilePlan(
        artifact.label, artifact.target, action, source, size, saved.done, allocated
    )


def _size(path: str) -> int | None:
    status = files.stat(path)
    return status.size if status else None


def estimate_memory(resolved: ResolvedModel, needs: list[FilePlan]) -> MemoryEstimate:
    """Estimate the memory that serving a model needs.

    From the metadata of the file if it is on this machine, else from that in
    models.lock, else by a rule of thumb.
    """
    settings = resolved.settings
    context = settings.ctx_size or 0
    targets = {artifact.target for artifact in resolved.files}
    # two models may have one file
    by_path = {file_plan.path: file_plan for file_plan in needs}
    own = [file_plan for path, file_plan in by_path.items() if path in targets]
    weights, all_known = total([file_plan.size for file_plan in own])
    known = MemoryEstimate(
        model=resolved.name,
        weights=weights if all_known else None,
        cache=rule_of_thumb.kv_estimate(resolved.model.params, context),
        context=context,
        exact=False,
        gpu=bool(settings.ngl) and settings.gpu != "disable",
        declared=resolved.model.ram * 10**9 if resolved.model.ram else None,
        beyond=rule_of_thumb.kv_beyond_ram(resolved.model.params, context),
    )
    of_file = _from_metadata(known, resolved, metadata(own[0].source), FILE)
    return of_file or _from_metadata(known, resolved, resolved.memory, LOCK) or known


def _from_metadata(
    known: MemoryEstimate,
    resolved: ResolvedModel,
    of_model: gguf.ModelMetadata | None,
    source: str,
) -> MemoryEstimate | None:
    """Return the estimate from a model's metadata; None if it does not suffice."""
    if of_model is None:
        return None
    words = (
        *model_memory.own_words(resolved.model.kind, resolved.settings),
        *resolved.settings.args,
        *resolved.engine_args,
    )
    use = model_memory.cache_use(resolved.engine, words)
    cache = model_memory.kv_cache_bytes(of_model, known.context, use)
    if cache is None:
        return None
    weights = known.weights
    if weights is None:
        weights = of_model.tensor_bytes
    own = model_memory.engine_bytes(of_model, known.context, resolved.engine, use)
    return known._replace(
        weights=weights, cache=cache, exact=True, source=source, engine=own
    )
