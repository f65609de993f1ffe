"""Choose the models that one screen shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ROOM = 13  # models; with header, footer and prompt, a screen of 24 lines
RECOMMENDED = 12  # models, at most
# of the recommended models, how many are of a kind; kinds are shown in this order
_QUOTAS = {"chat": 6, "vision": 3, "embedding": 2, "rerank": 1}
KINDS = tuple(_QUOTAS)
# of the memory, for one model; the rest is for other programs
_SHARE = 0.75


class Candidate(NamedTuple):
    """One model, as far as the choice depends on it."""

    name: str
    kind: str  # one of KINDS
    ram_gb: float | None  # memory that it needs; None if unknown
    is_kept: bool = False  # it is the default or on this machine, and always shown


def fits(ram_gb: float | None, memory: float) -> bool | None:
    """Whether a model needs at most this memory, in bytes; None if unknown."""
    if not ram_gb:
        return None
    return ram_gb * 10**9 <= memory


def choose(models: Sequence[Candidate], memory: int, room: int = ROOM) -> list[str]:
    """Return the names of the models to show, in order.

    If there is room, all. Else those that are kept, then recommendations: for each
    kind, the largest model (the last of equals) of each family that fits three
    quarters of the memory.
    Families that come first in models.yaml come first.

    Args:
        memory: bytes of this machine.
        room: the number of models to show.
    """
    if len(models) <= room:
        return [model.name for model in models]
    kept = [model for model in models if model.is_kept][:room]
    ranked = sorted(_recommended(models, kept, memory), key=lambda pair: pair[0])
    best = [model for _, model in ranked[: min(RECOMMENDED, room - len(kept))]]
    best.sort(key=lambda model: KINDS.index(model.kind))
    return [model.name for model in (*kept, *best)]


def family(name: str) -> str:
    """Return the first word of a name: `qwen` of qwen3-8b and of qwen3.5-27b."""
    found = re.match(r"[a-z]+", name.lower())
    return found[0] if found else name


def _recommended(
    models: Sequence[Candidate], kept: Sequence[Candidate], memory: int
) -> Iterator[tuple[float, Candidate]]:
    """Yield (rank, model): the lower the rank, the sooner a model is shown."""
    for kind, quota in _QUOTAS.items():
        shown = {family(model.name) for model in kept if model.kind == kind}
        best: dict[str, Candidate] = {}
        for model in models:
            name = family(model.name)
            if model.kind != kind or name in shown:
                continue
            if not fits(model.ram_gb, memory * _SHARE):
                continue
            if name not in best or _needs(model) >= _needs(best[name]):
                best[name] = model
        for position, model in enumerate(best.values()):
            yield (position + 0.5) / quota, model


def _needs(model: Candidate) -> float:
    return model.ram_gb or 0
