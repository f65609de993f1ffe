"""Why a command cannot work on this machine: its disk, its memory, its packages."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence

from tasks.cache import stamps
from tasks.catalogue import rule_of_thumb
from tasks.catalogue.engine_choice import (
    LLAMA_SERVER_MISSING,
    install_embedded,
    install_llama_server,
)
from tasks.catalogue.resolve import ResolvedModel
from tasks.planning import estimate
from tasks.planning.estimate import OVERHEAD, FilePlan, MemoryEstimate
from tasks.system import files
from tasks.system.packages import find_program, has_package

Problem = tuple[str, str]  # what, and its fix

# the lowest bytes of a parameter, and how much the rule of thumb may be too low
_BYTES_OF_PARAMETER = 0.25
_KV_FACTOR = 4


def disk_problems(needs: Sequence[FilePlan]) -> list[Problem]:
    """Return a problem for each disk without space for the files that it gets."""
    by_disk: dict[int, list[FilePlan]] = {}
    places: dict[int, str] = {}
    for file_plan in needs:
        place = files.nearest_existing_dir(os.path.dirname(file_plan.path))
        disk = os.stat(place).st_dev
        by_disk.setdefault(disk, []).append(file_plan)
        places[disk] = place
    found = []
    for disk, rows in by_disk.items():
        free = shutil.disk_usage(places[disk]).free
        problems = estimate.blockers(rows, free, (), 0)
        found += [(f"{what} (in {places[disk]})", fix) for what, fix in problems]
    return found


def write_problem(cache: str, needs: Iterable[FilePlan]) -> list[Problem]:
    """Return the problem of a cache that lacks a file and cannot be written."""
    place = files.nearest_existing_dir(cache)
    targets = [need for need in needs if need.state not in ("have", "changed")]
    inside = [need for need in targets if need.path.startswith(cache)]
    if not inside or os.access(place, os.W_OK):
        return []
    error = OSError(errno.EACCES, os.strerror(errno.EACCES))
    refusal = stamps.cache_write_error(cache, error)
    return [(refusal.what, refusal.fix)]


def engine_problems(jobs: Iterable[ResolvedModel]) -> list[Problem]:
    """Return the problems of models whose engine is not installed."""
    jobs = tuple(jobs)
    has_embedded = has_package("xllamacpp")
    missing = [
        (
            f"{resolved.name}: {LLAMA_SERVER_MISSING}",
            install_llama_server(has_embedded=has_embedded),
        )
        for resolved in jobs
        if resolved.engine == "llama-server" and resolved.program is None
    ]
    embedded = [resolved.name for resolved in jobs if resolved.engine == "embedded"]
    if not embedded or has_embedded:
        return missing
    what = f"{', '.join(embedded)}: the embedded engine needs the package xllamacpp"
    fix = install_embedded(has_llama_server=bool(find_program("llama-server")))
    return [*missing, (what, fix)]


def surely_fits(resolved: ResolvedModel, needs: Sequence[FilePlan], here: int) -> bool:
    """Whether a model needs less memory than there is, whatever its metadata.

    The metadata of a large model takes a tenth of a second to read.

    Args:
        here: bytes of memory that this process may use.
    """
    targets = {artifact.target for artifact in resolved.files}
    sizes = [need.size for need in needs if need.path in targets]
    weights, all_known = estimate.total(sizes)
    billions = weights / _BYTES_OF_PARAMETER / 10**9
    cache = rule_of_thumb.kv_estimate(
        f"{billions:.6f}B", resolved.settings.ctx_size or 0
    )
    if not all_known or cache is None:
        return False
    return weights + _KV_FACTOR * cache + OVERHEAD <= here


def memory_problems(takes: Sequence[MemoryEstimate], here: int) -> list[Problem]:
    """Return a problem for each model that needs more memory than there is."""
    return estimate.blockers((), 0, takes, here)
