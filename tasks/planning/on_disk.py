"""What of a model is on this machine, how many bytes it has, and what it needs."""

from __future__ import annotations

from typing import NamedTuple

from tasks.catalogue.resolve import ResolvedModel
from tasks.planning.estimate import estimate_memory, plan_file, total

_HERE = {"have", "changed"}


class OnDisk(NamedTuple):
    """The state of a model's files."""

    state: str  # complete, changed, bundled (no download is needed), partial, absent
    downloaded: int  # bytes
    size: int | None  # bytes of all files; None: that of one is not known
    memory: int | None = None  # bytes that serving it needs; None: not known


def on_disk(cache: str, resolved: ResolvedModel) -> OnDisk:
    """Return the state of a model, by stat calls and small files.

    Its memory is that of `doit plan`, from models.lock or by a rule of thumb.
    """
    plans = [plan_file(cache, file, adopt=False) for file in resolved.files]
    states = {plan.state for plan in plans}
    downloaded = 0
    for plan in plans:
        downloaded += plan.taken
        if plan.state in _HERE:
            downloaded += plan.size or 0
    state = "absent"
    if states == {"have"}:
        state = "complete"
    elif states <= _HERE:
        state = "changed"
    elif states <= _HERE | {"copy"}:
        state = "bundled"
    elif downloaded:
        state = "partial"
    memory = estimate_memory(resolved, plans, reads_file=False).needed
    size, all_known = total([plan.size for plan in plans])
    if not all_known:
        return OnDisk(state, downloaded, None, memory)
    return OnDisk(state, downloaded, size, memory)
