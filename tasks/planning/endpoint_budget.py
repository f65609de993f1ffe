"""Decide how many models of an endpoint may be loaded at the same time. Pure.

llama.cpp's router limits the number of loaded models (`--models-max`), not their
memory. To load one more, it unloads the one that was used least recently and that
answers no request, and it exempts none: also a model of `keep` can be unloaded, until
the supervisor loads it again. So any models up to that number can meet, and the
largest ones must fit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

# GB of the router itself, which loads no model; measured 0.02 (build 11669)
ROUTER_GB = 0.05


class Verdict(NamedTuple):
    """The limit of loaded models, or why there is none.

    Args:
        models_max: value of --models-max; 0 with a problem.
        problem: one line with the sum; empty without one.
        fix: the edit that fixes it.
    """

    models_max: int
    problem: str = ""
    fix: str = ""


def judge(needs: Mapping[str, float], keep: Collection[str], budget: float) -> Verdict:
    """Return how many models may be loaded at the same time.

    It is the largest number n such that the n largest models fit together: then every
    set of n models fits, whichever the router unloads.

    Args:
        needs: GB of memory of each model.
        keep: names of the models that stay loaded.
        budget: GB of memory of the endpoint.
    """
    left = budget - ROUTER_GB
    kept = [name for name in needs if name in keep]
    if kept and _sum(needs, kept) > left:
        what = f"keep needs {_sum_text(needs, kept)}, {_but(budget)}"
        return Verdict(0, what, "keep fewer models, or raise memory")
    for name in needs:
        together = list(dict.fromkeys((*kept, name)))
        if _sum(needs, together) > left:
            return Verdict(0, *_too_large(needs, name, kept, budget))
    largest = sorted(needs, key=lambda name: -needs[name])
    fitting = _fitting(needs, largest, left)
    if fitting <= len(kept) and fitting < len(needs):
        return Verdict(0, *_cannot_keep(needs, kept, largest, budget))
    return Verdict(fitting)


def _fitting(needs: Mapping[str, float], largest: list[str], left: float) -> int:
    """Return how many of the largest models fit together."""
    count = len(largest)
    while _sum(needs, largest[:count]) > left:
        count -= 1
    return count


def _too_large(
    needs: Mapping[str, float], name: str, kept: list[str], budget: float
) -> tuple[str, str]:
    if not kept:
        what = f"{name} needs {_size(needs[name])}"
    else:
        others = [one for one in kept if one != name]
        what = f"{name} and keep need {_sum_text(needs, [name, *others])}"
    if name in kept or not kept:
        fix = f"raise memory, or remove {name}"
    else:
        fix = f"raise memory, remove {name}, or keep fewer models"
    return f"{what}, {_but(budget)}", fix


def _cannot_keep(
    needs: Mapping[str, float], kept: list[str], largest: list[str], budget: float
) -> tuple[str, str]:
    count = len(kept) + 1
    what = f"keep ({', '.join(kept)}) and one more are {count} models"
    what += f", and the {count} largest need {_sum_text(needs, largest[:count])}"
    what += f", {_but(budget)}"
    what += " (llama-server may unload any model to load another)"
    return what, "raise memory, remove a large model, or remove keep"


def _sum(needs: Mapping[str, float], names: Iterable[str]) -> float:
    # rounded, so that 0.1 + 0.2 fits into 0.3
    return round(sum(needs[name] for name in names), 6)


def _sum_text(needs: Mapping[str, float], names: list[str]) -> str:
    """Return `14.0 GB (a 8.0 GB + b 6.0 GB)`; of one model only its size."""
    total = _size(_sum(needs, names))
    if len(names) == 1:
        return f"{total} ({names[0]})"
    parts = " + ".join(f"{name} {_size(needs[name])}" for name in names)
    return f"{total} ({parts})"


def _but(budget: float) -> str:
    own = _size(ROUTER_GB)
    return f"but memory is {_size(budget)}, of which llama-server itself takes {own}"


def _size(gigabytes: float) -> str:
    if gigabytes < 0.95:
        return f"{gigabytes * 1000:.0f} MB"
    return f"{gigabytes:.1f} GB"
