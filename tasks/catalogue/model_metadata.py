"""What is known of a model from the metadata of its GGUF file. Pure.

`gguf` reads it. Every run loads this module, which therefore has no reader.
"""

from __future__ import annotations

from typing import NamedTuple


class ModelMetadata(NamedTuple):
    """The metadata that memory depends on; None where the file has no value."""

    architecture: str | None = None
    block_count: int | None = None
    context_length: int | None = None  # tokens, as trained
    embedding_length: int | None = None
    head_count: int | tuple[int, ...] | None = None  # a tuple: one for each layer
    head_count_kv: int | tuple[int, ...] | None = None
    key_length: int | None = None  # of one head
    value_length: int | None = None
    sliding_window: int | None = None  # tokens that some layers attend to
    # only each n-th layer has a KV cache; the others have a state of fixed size
    full_attention_interval: int | None = None
    split_count: int | None = None  # files
    type: str | None = None  # model, adapter, mmproj …
    # each n-th layer attends to all tokens; a tuple: 1 for a layer with a window
    sliding_window_pattern: int | tuple[int, ...] | None = None
    key_length_swa: int | None = None  # of one head of a layer with a window
    value_length_swa: int | None = None
    shared_kv_layers: int | None = None  # the last ones, which have no KV cache
    feed_forward_length: int | None = None
    expert_feed_forward_length: int | None = None
    expert_count: int | None = None
    expert_used_count: int | None = None  # for one token
    vocab_size: int | None = None
    tensor_bytes: int | None = None  # of this file
