"""Choose the variant of a model that a machine's memory can hold. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.catalogue import model_memory
from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.rule_of_thumb import kv_beyond_ram, kv_estimate
from tasks.catalogue.settings import ServeSettings
from tasks.catalogue.types import Model
from tasks.errors import UsageError, did_you_mean

_RESERVE = 8  # one part of so many stays for the system and for other programs
GB = 10**9


class VariantNeed(NamedTuple):
    """What one variant takes, in bytes; None: not known."""

    name: str
    size: int | None  # of its files
    needed: int | None  # of memory, with its context


class Choice(NamedTuple):
    """The variant that is used, and why."""

    name: str
    reason: str
    budget: int  # bytes that a model may take on this machine
    needs: tuple[VariantNeed, ...]  # of all variants, in the catalogue's order

    def fits(self, need: VariantNeed) -> bool:
        """Whether a variant fits this machine."""
        return need.needed is not None and need.needed <= self.budget


def budget(memory: int) -> int:
    """Return the bytes that a model may take of a machine's, or a GPU's, memory."""
    return memory - memory // _RESERVE


def choose(needs: Sequence[VariantNeed], budget: int) -> tuple[str, str]:
    """Return the variant that is used, and the reason.

    It is the one that needs the most and fits; of equal ones, the first. Which files
    are on the machine does not matter, nor how much of its memory is in use.

    Args:
        needs: of at least one variant.
        budget: bytes.
    """
    known = [need for need in needs if need.needed is not None]
    fitting = [need for need in known if (need.needed or 0) <= budget]
    if fitting:
        best = max(fitting, key=lambda need: need.needed or 0)
        return best.name, "the largest that fits"
    if known:
        least = min(known, key=lambda need: need.needed or 0)
        return least.name, "none fits: the smallest"
    return needs[0].name, "the first (`doit lock` records what each needs)"


def named(word: str, model: str, names: Sequence[str]) -> str:
    """Return the variant that a user names, in any case.

    Raises:
        UsageError: the model has no such variant.
    """
    for name in names:
        if name.lower() == word.lower():
            return name
    if not names:
        raise UsageError(f"{model} has no variants", fix="remove --variant")
    hint = did_you_mean(word, names) or f"the variants are {', '.join(names)}"
    raise UsageError(f"{model} has no variant {word!r}", fix=hint)


def unnamed_error(model: str, names: Sequence[str]) -> UsageError:
    """Return the error where the machine must not decide."""
    what = f"{model} has variants: {', '.join(names)}; in CI, one has to be named"
    return UsageError(what, fix=f"--variant {names[0]}")


def needed_bytes(
    model: Model,
    size: int | None,
    metadata: ModelMetadata | None,
    settings: ServeSettings,
    engine: str,
) -> int | None:
    """Return the memory that serving a variant needs, in bytes; None if unknown.

    Args:
        size: bytes of its files.
    """
    context = settings.ctx_size or 0
    declared = None
    if model.ram:
        declared = model.ram * GB + kv_beyond_ram(model.params, context)
    if metadata:
        own = model_memory.own_words(model.kind, settings)
        use = model_memory.cache_use(engine, (*own, *settings.args))
        cache = model_memory.kv_cache_bytes(metadata, context, use)
        program = model_memory.engine_bytes(metadata, context, engine, use)
        weights = size or metadata.tensor_bytes
        if cache is not None and weights:
            return weights + cache + program
    cache = kv_estimate(model.params, context)
    if size is None or cache is None:
        return declared
    return size + cache + model_memory.OVERHEAD
