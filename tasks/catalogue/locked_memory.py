"""What models.lock says about the memory of a model: `memory:` of a file. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from tasks.catalogue.constraints import Constraint
from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.serve_options import Strict

_MOST = 1 << 31
_MOST_BYTES = 1 << 53
_MOST_LAYERS = 4096
_EXPECTED = "a whole number of 0 or more"


def _is_count(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) <= _MOST_LAYERS and all(map(_is_count, value))
    return isinstance(value, int) and 0 <= value < _MOST


_COUNT = Constraint("as the GGUF states it", _EXPECTED, _is_count)
_BYTES = Constraint("bytes of all tensors", _EXPECTED, lambda v: 0 <= v < _MOST_BYTES)


def _is_word(text: str) -> bool:
    return 0 < len(text) <= 64 and text.isascii() and text.isprintable()


_WORD = Constraint("architecture", "a short word", _is_word)
Count = Annotated[int | None, _COUNT]
Counts = Annotated[int | tuple[int, ...] | None, _COUNT]  # a list: one for each layer


@dataclass(eq=True, repr=False)
class LockedMemory(Strict):
    """The head of a GGUF, as far as memory depends on it; the keys are those of GGUF.

    They have the names of `ModelMetadata`.
    """

    architecture: Annotated[str | None, _WORD] = None
    block_count: Count = None
    context_length: Count = None
    embedding_length: Count = None
    head_count: Counts = None
    head_count_kv: Counts = None
    key_length: Count = None
    value_length: Count = None
    sliding_window: Count = None
    full_attention_interval: Count = None
    split_count: Count = None
    sliding_window_pattern: Counts = None
    key_length_swa: Count = None
    value_length_swa: Count = None
    shared_kv_layers: Count = None
    feed_forward_length: Count = None
    expert_feed_forward_length: Count = None
    expert_count: Count = None
    expert_used_count: Count = None
    vocab_size: Count = None
    tensor_bytes: Annotated[int | None, _BYTES] = None

    def as_plain(self) -> dict[str, Any]:
        """Return the values that are stated, as JSON has them."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = list(value)
            if value is not None:
                plain[field.name] = value
        return plain


def locked_memory(metadata: ModelMetadata) -> LockedMemory:
    """Return what is written into models.lock."""
    values = metadata._asdict()
    del values["type"]  # a model's; memory does not depend on it
    if not _is_word(metadata.architecture or ""):
        values["architecture"] = None
    return LockedMemory(**values)
