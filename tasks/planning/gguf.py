"""How much memory a model takes beside its weights: what a GGUF file says of itself, and a rule of thumb for
models that are not here.

Reads from the stream it is given and nothing else; an array that is of no use is passed over, not kept.

Source: ggml docs/gguf.md (layout, types, keys); llama.cpp llama-model.cpp (what follows where a
key is absent).

Pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from tasks.errors import IntegrityError

_VERSIONS = (2, 3)
_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Far above what files have (a vocabulary of 262,144 words with its merges is some 15 MB), and little to read
_MOST_KEYS = 1 << 16
_LONGEST_KEY = (1 << 16) - 1  # the format's own limit
_LONGEST_TEXT = 1 << 24
_MOST_BYTES = 1 << 27
_CUT_OFF = "the GGUF ends within its metadata"
_KEPT = 4096  # elements of an array that is kept: one for each layer

F16 = 2  # bytes of one number in the engine's cache


class BadGguf(IntegrityError):
    """The bytes are no GGUF that this module reads."""


class Meta(NamedTuple):
    """What memory depends on; None where the file does not say."""

    architecture: str | None = None
    block_count: int | None = None
    context_length: int | None = None  # tokens it was trained for
    embedding_length: int | None = None
    head_count: int | tuple[int, ...] | None = None  # or one for each layer
    head_count_kv: int | tuple[int, ...] | None = None
    key_length: int | None = None  # of one head
    value_length: int | None = None
    sliding_window: int | None = None  # tokens that some of the layers look back at
    full_attention_interval: int | None = None  # each n-th layer has a cache, the others a fixed state
    split_count: int | None = None  # files it is split into


_KEYS = {
    "block_count": "block_count",
    "context_length": "context_length",
    "embedding_length": "embedding_length",
    "attention.head_count": "head_count",
    "attention.head_count_kv": "head_count_kv",
    "attention.key_length": "key_length",
    "attention.value_length": "value_length",
    "attention.sliding_window": "sliding_window",
    "full_attention_interval": "full_attention_interval",
}
_PER_LAYER = ("head_count", "head_count_kv")


class _Reader:
    """Takes values from a stream, little-endian, up to a limit."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = _MOST_BYTES

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BadGguf(f"the GGUF's metadata is longer than {_MOST_BYTES} bytes")

    def take(self, count: int) -> bytes:
        self._spend(count)
        data = self._stream.read(count)
        if len(data) < count:
            raise BadGguf(_CUT_OFF)
        return data

    def skip(self, count: int) -> None:
        self._spend(count)
        self._stream.seek(count, 1)

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def length(self, most: int, what: str) -> int:
        """A count. Raises BadGguf: above `most`."""
        count = int(self.number("Q"))
        if count > most:
            raise BadGguf(f"the GGUF has {what} {count}", [("expected", f"{most} at most")])
        return count

    def text(self, most: int = _LONGEST_TEXT) -> str:
        return self.take(self.length(most, "a text of length")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """One value; None for an array that is not kept."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.number("I"))
        return self.number(self._code(kind))

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise BadGguf(f"the GGUF has a value of type {kind}", [("expected", "0 to 12, not nested")])
        return _SCALARS[kind]

    def _array(self, kind: int) -> Any:
        count = self.length(_MOST_BYTES, "an array of length")
        if kind == _STRING:
            self._skip_texts(count)
            return None
        code = self._code(kind)
        if count <= _KEPT:
            return tuple(self.number(code) for _ in range(count))
        self.skip(count * struct.calcsize(f"<{code}"))
        return None

    def _skip_texts(self, count: int) -> None:
        """Pass over a vocabulary: some 800,000 texts, so nothing is called that is not needed."""
        read, seek = self._stream.read, self._stream.seek
        for _ in range(count):
            head = read(8)
            if len(head) < 8:
                raise BadGguf(_CUT_OFF)
            length = int.from_bytes(head, "little")
            self._left -= 8 + length
            if self._left < 0:
                break
            seek(length, 1)
        self._spend(0)


def read(stream: BinaryIO) -> Meta:
    """Read the metadata of a GGUF that begins where the stream is; it must be able to seek.

    Raises BadGguf: it is none, of a version that is not known, cut off, or absurd.
    """
    reader = _Reader(stream)
    if reader.take(4) != b"GGUF":
        raise BadGguf("not a GGUF: it does not begin with GGUF")
    version = reader.number("I")
    if version not in _VERSIONS:
        raise BadGguf(f"a GGUF of version {version}", [("expected", "version 2 or 3, little-endian")])
    reader.number("Q")  # tensors
    found = {}
    for _ in range(reader.length(_MOST_KEYS, "a number of keys")):
        key = reader.text(_LONGEST_KEY)
        found[key] = reader.value(reader.number("I"))
    return _meta(found)


def _meta(found: Mapping[str, Any]) -> Meta:
    name = found.get("general.architecture")
    values: dict[str, Any] = {"split_count": _whole(found.get("split.count"))}
    for key, field in _KEYS.items():
        value = found.get(f"{name}.{key}")
        many = isinstance(value, tuple) and value and all(_whole(v) is not None for v in value)
        values[field] = value if many and field in _PER_LAYER else _whole(value)
    return Meta(name if isinstance(name, str) else None, **values)


def _whole(value: object) -> int | None:
    """A number that can be a count of layers, heads or tokens."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    return value if fits else None  # type: ignore[return-value]


def kv_bytes(meta: Meta, ctx: int) -> int | None:
    """Bytes of the K and V cache in f16; None where the metadata does not say.

    An upper bound: an engine that keeps only the window of a sliding layer, or shares layers, takes less.

    Args:
        ctx: tokens; 0 as trained.
    """
    heads = meta.head_count[0] if isinstance(meta.head_count, tuple) else meta.head_count
    kv = meta.head_count if meta.head_count_kv is None else meta.head_count_kv
    tokens, layers = ctx or meta.context_length, meta.block_count
    usual = meta.embedding_length // heads if meta.embedding_length and heads else None
    key = usual if meta.key_length is None else meta.key_length
    value = usual if meta.value_length is None else meta.value_length
    if tokens is None or layers is None or kv is None or key is None or value is None:
        return None
    all_heads = (
        sum(kv[:layers]) if isinstance(kv, tuple) else kv * (layers // (meta.full_attention_interval or 1))
    )
    return tokens * all_heads * (key + value) * F16


def parameters(text: str | None) -> float | None:
    """Billions of parameters, from the catalogue's words: `7.24B`, `350M`, `E2B`, `7B+mmproj`.

    `8x7B` is 7: experts share the cache.
    """
    found = re.search(r"(?<![\d.])(\d{1,6}(?:\.\d{1,6})?) ?([BM])(?![A-Za-z])", text or "", re.IGNORECASE)
    return float(found[1]) / (1 if found[2] in "Bb" else 1000) if found else None


def kv_estimate(params: str | None, ctx: int) -> int | None:
    """An estimate of `kv_bytes` for a model that is not here; None where nothing can be said.

    56 KiB a token at 1B parameters, growing with their power 0.42: within a factor of 2 of Llama 3, Mistral,
    Phi-4 and Qwen 3 (from 1.7B on). Some 4 times too much for other small models and mixtures of experts,
    some 4 times too little for models without grouped-query attention (Llama 2, Phi-3 mini, OLMo).

    Args:
        params: as the catalogue has it.
        ctx: tokens; what a model was trained for is not known here, so 0 gives None.
    """
    billions = parameters(params)
    return round(56 * 1024 * billions**0.42) * ctx if billions and ctx > 0 else None
