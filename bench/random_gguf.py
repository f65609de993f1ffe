"""Write small GGUF files of several architectures with random weights.

The shapes are those of real models, in small: llama.cpp loads the files as any other.
The vocabulary is that of the demo model. Needs the packages gguf and numpy.

Source: llama.cpp llama-arch.cpp (names of the tensors), llama-model.cpp (their shapes).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy

DEMO = Path(__file__).resolve().parent.parent / "demo" / "demo.gguf"
_TOKENIZER = "tokenizer.ggml."


class Shape(NamedTuple):
    """One model: what its memory depends on."""

    name: str
    architecture: str
    layers: int = 6
    width: int = 256  # embedding length
    heads: int = 8
    kv_heads: int = 8
    head: int = 64  # length of one
    hidden: int = 512  # feed-forward length
    trained: int = 32768
    window: int = 0  # tokens of a layer with sliding attention
    experts: int = 0
    quant: str = "F16"
    vocabulary: int = 0  # tokens; 0: the demo model's


SHAPES = (
    Shape("llama", "llama"),
    Shape("llama-gqa", "llama", kv_heads=2),
    Shape("llama-q8", "llama", quant="Q8_0"),
    Shape("llama-q4", "llama", quant="Q4_0", width=512, hidden=1536),
    Shape("qwen2", "qwen2", width=512, kv_heads=4),
    Shape("qwen3", "qwen3", kv_heads=4, head=128),
    Shape("qwen3moe", "qwen3moe", kv_heads=4, experts=8),
    Shape("gemma3", "gemma3", kv_heads=4, head=128, window=1024),
    Shape("phi3", "phi3", width=512),
    Shape("llama-vocabulary", "llama", kv_heads=2, vocabulary=128_000),
)


def write(path: Path, shape: Shape) -> None:
    """Write the file of a shape."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    _describe(writer, shape)
    random = numpy.random.default_rng(1)
    for name, size in _tensors(shape):
        values = random.normal(0, 0.02, size).astype(numpy.float32)
        kind = gguf.GGMLQuantizationType.F32
        if len(size) > 1:
            kind = gguf.GGMLQuantizationType[shape.quant]
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("random weights")  # llama.cpp looks for tokens by some names
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.trained)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(shape.hidden)
    for key, field in gguf.GGUFReader(DEMO).fields.items():
        if key.startswith(_TOKENIZER):
            _copy(writer, key, field, shape.vocabulary)


def _copy(writer: gguf.GGUFWriter, key: str, field: Any, count: int) -> None:
    value = field.contents()
    if isinstance(value, list):
        more = range(len(value), count)
        if key.endswith(".token_type"):
            value += [gguf.TokenType.NORMAL] * len(more)
        elif key.endswith(".tokens"):
            value += [f"token{number}" for number in more]
        else:
            value += [f"left{number} right" for number in more]
        writer.add_array(key, value)
    else:
        writer.add_key_value(key, value, field.types[0])


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors' names and shapes, as numpy has them: rows first."""
    known = gguf.GGUFReader(DEMO).fields[f"{_TOKENIZER}tokens"]
    vocabulary = shape.vocabulary or len(known.data)
    yield "token_embd.weight", (vocabulary, shape.width)
    yield "output_norm.weight", (shape.width,)
    if shape.architecture != "gemma3":
        yield "output.weight", (vocabulary, shape.width)
    for number in range(shape.layers):
        for name, size in _layer(shape):
            yield f"blk.{number}.{name}", size


def _layer(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, query, key = (
        shape.width,
        shape.heads * shape.head,
        shape.kv_heads * shape.head,
    )
    kind = shape.architecture
    yield "attn_norm.weight", (width,)
    yield "ffn_norm.weight", (width,)
    if kind == "phi3":
        yield "attn_qkv.weight", (query + 2 * key, width)
    else:
        yield "attn_q.weight", (query, width)
        yield "attn_k.weight", (key, width)
        yield "attn_v.weight", (key, width)
    if kind == "qwen2":
        yield "attn_q.bias", (query,)
        yield "attn_k.bias", (key,)
        yield "attn_v.bias", (key,)
    if kind in ("qwen3", "qwen3moe", "gemma3"):
        yield "attn_q_norm.weight", (shape.head,)
        yield "attn_k_norm.weight", (shape.head,)
    if kind == "gemma3":
        yield "post_attention_norm.weight", (width,)
        yield "post_ffw_norm.weight", (width,)
    yield "attn_output.weight", (width, query)
    yield from _feed_forward(shape)


def _feed_forward(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, hidden = shape.width, shape.hidden
    if shape.experts:
        yield "ffn_gate_inp.weight", (shape.experts, width)
        yield "ffn_gate_exps.weight", (shape.experts, hidden, width)
        yield "ffn_up_exps.weight", (shape.experts, hidden, width)
        yield "ffn_down_exps.weight", (shape.experts, width, hidden)
        return
    if shape.architecture == "phi3":
        yield "ffn_up.weight", (2 * hidden, width)
    else:
        yield "ffn_gate.weight", (hidden, width)
        yield "ffn_up.weight", (hidden, width)
    yield "ffn_down.weight", (width, hidden)
