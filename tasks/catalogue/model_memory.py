"""Compute the memory that an engine takes for a model, from its metadata. Pure.

The numbers are those of llama.cpp on a CPU; bench/memory.md compares them to engines.
Not counted, since they grow with use: the prompt cache and the checkpoints of contexts
with sliding windows (--cache-ram, --ctx-checkpoints), and states of recurrent layers.

Source: llama.cpp llama-kv-cache.cpp and llama-kv-cache-iswa.cpp (sizes of the caches),
llama-model.cpp (which layers have a window), llama-graph.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.settings import ServeSettings

F16 = 2.0  # bytes of one number
_F32 = 4
# bytes of one number in a block-quantized cache. Source: ggml-common.h
_CACHE_TYPES = {
    "f32": 4.0,
    "f16": F16,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q4_0": 18 / 32,
    "q4_1": 20 / 32,
    "iq4_nl": 18 / 32,
    "q5_0": 22 / 32,
    "q5_1": 24 / 32,
}
_CELLS = 256  # a KV cache is a multiple of these
_UBATCH = 512  # tokens that are processed at once
_AUTOMATIC_SLOTS = 4  # of llama-server
# every n-th layer attends to all tokens, where the file does not say it
_WINDOW_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gemma-embedding": 6,
    "cohere2": 4,
    "exaone4": 4,
    "gpt-oss": 2,
    "olmo2": 4,
    "smallthinker": 4,
}

# bytes of an engine beside weights and KV cache, where the metadata is not known
OVERHEAD = 300 * 10**6
# measured (bench/memory.md): bytes of a running engine beside the model
_ENGINE_BYTES = {"llama-server": 27 * 10**6}
_OTHER_ENGINE = 43 * 10**6
_TOKEN_BYTES = 260  # of the vocabulary, with its merges
_KQ_FACTOR = 1.5  # attention scores in f32, and their copy in f16


class CacheUse(NamedTuple):
    """How an engine lays out its caches and buffers."""

    key_bytes: float = F16  # of one number
    value_bytes: float = F16
    slots: int = 1  # requests at once
    unified: bool = False  # the slots share one cache
    ubatch: int = _UBATCH
    flash_attention: bool = True
    full_windows: bool = False  # layers with a window have a cache of the full context


def cache_use(engine: str, words: Sequence[str]) -> CacheUse:
    """Return what the arguments of an engine say about its caches; the last one wins.

    A value that no engine accepts changes nothing: the engine will refuse it.
    """
    use = CacheUse()
    if engine == "llama-server":
        use = use._replace(slots=_AUTOMATIC_SLOTS, unified=True)
    unified = None
    for word, value in zip_longest(words, words[1:], fillvalue=""):
        if word in ("-ctk", "--cache-type-k") and value in _CACHE_TYPES:
            use = use._replace(key_bytes=_CACHE_TYPES[value])
        elif word in ("-ctv", "--cache-type-v") and value in _CACHE_TYPES:
            use = use._replace(value_bytes=_CACHE_TYPES[value])
        elif word in ("-np", "--parallel") and _is_count(value):
            use = use._replace(slots=int(value), unified=False)
        elif word in ("-ub", "--ubatch-size") and _is_count(value):
            use = use._replace(ubatch=int(value))
        elif word in ("-fa", "--flash-attn"):
            use = use._replace(flash_attention=value not in ("off", "0", "disabled"))
        elif word == "--swa-full":
            use = use._replace(full_windows=True)
        elif word in ("-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"):
            unified = "no-" not in word
    if unified is not None:
        use = use._replace(unified=unified)
    return use


def own_words(kind: str, settings: ServeSettings) -> tuple[str, ...]:
    """Return the recipe's own arguments that change the caches of an engine."""
    words: tuple[str, ...] = ()
    if settings.parallel is not None:
        words += ("--parallel", str(settings.parallel))
    if kind != "chat" and settings.ctx_size:
        # a text is not split: its tokens have to fit into one batch
        words += ("--ubatch-size", str(settings.ctx_size))
    return words


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 10


def kv_cache_bytes(
    metadata: ModelMetadata, ctx: int, use: CacheUse | None = None
) -> int | None:
    """Return the bytes of the KV cache; None if the metadata is incomplete.

    For an architecture whose layers with a window are not known, this is an upper
    bound.

    Args:
        ctx: tokens; 0: as trained.
    """
    use = use or CacheUse()
    tokens = ctx or metadata.context_length
    heads = _kv_heads(metadata)
    key, value = _lengths(metadata)
    if tokens is None or heads is None or key is None or value is None:
        return None
    full, windowed = heads
    of_head = key * use.key_bytes + value * use.value_bytes
    key_swa = metadata.key_length_swa or key
    value_swa = metadata.value_length_swa or value
    of_window_head = key_swa * use.key_bytes + value_swa * use.value_bytes
    window = _window_cells(metadata, tokens, use)
    return round(tokens * full * of_head + window * windowed * of_window_head)


def _window_cells(metadata: ModelMetadata, tokens: int, use: CacheUse) -> int:
    """Return the tokens that the cache of a layer with a window holds."""
    streams = use.slots
    sequences = 1
    if use.unified:
        streams = 1
        sequences = use.slots
    of_stream = max(1, tokens // streams)
    if use.full_windows or not metadata.sliding_window:
        return of_stream * streams
    wanted = metadata.sliding_window * sequences + use.ubatch
    padded = wanted + -wanted % _CELLS
    return min(of_stream, padded) * streams


def _kv_heads(metadata: ModelMetadata) -> tuple[int, int] | None:
    """Return the numbers of K and V heads: of all full layers, of all with a window."""
    heads = metadata.head_count_kv
    if heads is None:
        heads = metadata.head_count
    if heads is None or metadata.block_count is None:
        return None
    layers = max(0, metadata.block_count - (metadata.shared_kv_layers or 0))
    pattern = _pattern(metadata)
    if isinstance(heads, tuple) or isinstance(pattern, tuple):
        return _heads_by_layer(heads, pattern, layers)
    layers //= metadata.full_attention_interval or 1
    full = layers
    if pattern:
        full = layers // pattern
    return heads * full, heads * (layers - full)


def _pattern(metadata: ModelMetadata) -> int | tuple[int, ...]:
    """Return which layers have a window; 0 if none, or if it is not known."""
    if not metadata.sliding_window:
        return 0
    known = _WINDOW_PATTERNS.get(metadata.architecture or "", 0)
    return metadata.sliding_window_pattern or known


def _heads_by_layer(
    heads: int | tuple[int, ...], pattern: int | tuple[int, ...], layers: int
) -> tuple[int, int]:
    full = windowed = 0
    stated = [len(one) for one in (heads, pattern) if isinstance(one, tuple)]
    for layer in range(min(layers, *stated)):
        count = heads if isinstance(heads, int) else heads[layer]
        if _has_window(pattern, layer):
            windowed += count
        else:
            full += count
    return full, windowed


def _has_window(pattern: int | tuple[int, ...], layer: int) -> bool:
    if isinstance(pattern, tuple):
        return bool(pattern[layer])
    return bool(pattern) and layer % pattern < pattern - 1


def _lengths(metadata: ModelMetadata) -> tuple[int | None, int | None]:
    """Return the lengths of a K and of a V head."""
    key, value = metadata.key_length, metadata.value_length
    if key is None:
        key = _head_length(metadata)
    if value is None:
        value = _head_length(metadata)
    return key, value


def _head_length(metadata: ModelMetadata) -> int | None:
    """Return the usual length of a head, where the file does not state it."""
    heads = metadata.head_count
    if isinstance(heads, tuple):
        heads = heads[0]
    if not heads or not metadata.embedding_length:
        return None
    return metadata.embedding_length // heads


def _most(count: int | tuple[int, ...] | None) -> int:
    if isinstance(count, tuple):
        return max(count)
    return count or 0


def engine_bytes(
    metadata: ModelMetadata,
    ctx: int,
    engine: str,
    use: CacheUse | None = None,
    prompt: int | None = None,
) -> int:
    """Return the bytes that an engine takes beside weights and KV cache.

    Its program, the vocabulary, and the buffers for a batch.

    Args:
        ctx: tokens; 0: as trained.
        prompt: tokens of the longest prompt; None: it fills the context.
    """
    use = use or CacheUse()
    tokens = ctx or metadata.context_length or 0
    if prompt is not None:
        tokens = min(tokens, prompt)
    batch = min(use.ubatch, tokens)
    program = _ENGINE_BYTES.get(engine, _OTHER_ENGINE)
    vocabulary = _TOKEN_BYTES * (metadata.vocab_size or 0)
    attention = 2 * batch * tokens  # the mask, in f16
    if not use.flash_attention:
        scores = batch * tokens * _most(metadata.head_count) * _F32
        attention += round(_KQ_FACTOR * scores)
    return program + vocabulary + batch * _F32 * _row_numbers(metadata) + attention


def _row_numbers(metadata: ModelMetadata) -> int:
    """Return how many numbers a layer holds at once for a token of a batch."""
    key, value = _lengths(metadata)
    query = _most(metadata.head_count) * (key or 0)
    kv_heads = _most(metadata.head_count_kv) or _most(metadata.head_count)
    hidden = metadata.feed_forward_length or 0
    if metadata.expert_count and metadata.expert_used_count:
        hidden = metadata.expert_feed_forward_length or hidden
        hidden *= metadata.expert_used_count
    width = metadata.embedding_length or 0
    return 3 * width + 2 * hidden + 2 * query + kv_heads * ((key or 0) + (value or 0))
