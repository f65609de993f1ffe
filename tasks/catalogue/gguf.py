"""Read a GGUF file's metadata. Pure: it reads only from the stream it is given.

Arrays that are not needed are skipped. `model_memory` computes the memory from it.

Source: ggml docs/gguf.md (layout, types, keys); llama.cpp llama-model.cpp (defaults of
missing keys).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeGuard

from tasks.catalogue.artifact import is_gguf
from tasks.catalogue.model_format import head_problem

# `X as X` exports it again
from tasks.catalogue.model_metadata import ModelMetadata as ModelMetadata
from tasks.errors import IntegrityError

_VERSIONS = (2, 3)
_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {
    10: "Q",
    11: "q",
    12: "d",
}
_STRING = 8
_ARRAY = 9

# Limits far above what files have: 262,144 tokens with their merges take about 15 MB.
_MAX_KEYS = 1 << 16
_MAX_KEY = (1 << 16) - 1  # limit of the format
_MAX_TEXT = 1 << 24
_MAX_BYTES = 1 << 27
_CUT_OFF = "the GGUF ends within its metadata"
_MOST_TENSORS = 1 << 16
_MOST_DIMENSIONS = 64  # 4 in llama.cpp
_ALIGNMENT = 32  # where general.alignment is missing
_KEPT = 4096  # longest array that is kept; a useful one has an element for each layer
_TOKENS = "tokenizer.ggml.tokens"


class GgufError(IntegrityError):
    """The bytes are not a GGUF that this module can read."""


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
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "attention.key_length_swa": "key_length_swa",
    "attention.value_length_swa": "value_length_swa",
    "attention.shared_kv_layers": "shared_kv_layers",
    "feed_forward_length": "feed_forward_length",
    "expert_feed_forward_length": "expert_feed_forward_length",
    "expert_count": "expert_count",
    "expert_used_count": "expert_used_count",
    "vocab_size": "vocab_size",
}
_PER_LAYER = ("head_count", "head_count_kv", "sliding_window_pattern")
# what no model reaches in ten years; a larger value is damage, or a lie
_PLAUSIBLE: Mapping[str, int] = {
    "block_count": 10_000,
    "context_length": 1 << 30,
    "embedding_length": 1 << 20,
    "head_count": 1 << 14,
    "head_count_kv": 1 << 14,
    "key_length": 1 << 16,
    "value_length": 1 << 16,
    "key_length_swa": 1 << 16,
    "value_length_swa": 1 << 16,
    "feed_forward_length": 1 << 24,
    "expert_feed_forward_length": 1 << 24,
    "expert_used_count": 1 << 14,
    "vocab_size": 1 << 24,
}


class _Reader:
    """Reads little-endian values from a stream, up to a limit of bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = _MAX_BYTES
        self.key = ""  # whose value is being read
        self.lengths: dict[str, int] = {}  # of arrays, by key

    def _consume(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise GgufError(f"the GGUF's metadata is longer than {_MAX_BYTES} bytes")

    def take(self, count: int) -> bytes:
        self._consume(count)
        data = self._stream.read(count)
        if len(data) < count:
            raise GgufError(_CUT_OFF)
        return data

    def skip(self, count: int) -> None:
        self._consume(count)
        self._stream.seek(count, 1)

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def length(self, most: int, what: str) -> int:
        """Read a count.

        Raises:
            GgufError: it is above `most`.
        """
        count = int(self.number("Q"))
        if count > most:
            expected = [("expected", f"{most} at most")]
            raise GgufError(f"the GGUF has {what} {count}", expected)
        return count

    def text(self, most: int = _MAX_TEXT) -> str:
        return self.take(self.length(most, "a text of length")).decode(
            "utf-8", "replace"
        )

    def value(self, kind: int) -> Any:
        """Read one value; None for an array that is not kept."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.number("I"))
        return self.number(self._code(kind))

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            expected = [("expected", "0 to 12, not nested")]
            raise GgufError(f"the GGUF has a value of type {kind}", expected)
        return _SCALARS[kind]

    def _array(self, kind: int) -> Any:
        count = self.length(_MAX_BYTES, "an array of length")
        self.lengths[self.key] = count
        if kind == _STRING:
            self._skip_texts(count)
            return None
        code = self._code(kind)
        if count <= _KEPT:
            return tuple(self.number(code) for _ in range(count))
        self.skip(count * struct.calcsize(f"<{code}"))
        return None

    def _skip_texts(self, count: int) -> None:
        """Skip a vocabulary of up to 800,000 texts: too many for a call for each."""
        read, seek = self._stream.read, self._stream.seek
        for _ in range(count):
            head = read(8)
            if len(head) < 8:
                raise GgufError(_CUT_OFF)
            length = int.from_bytes(head, "little")
            self._left -= 8 + length
            if self._left < 0:
                break
            seek(length, 1)
        self._consume(0)


def read(stream: BinaryIO) -> ModelMetadata:
    """Read the metadata of a GGUF from the current position of a seekable stream.

    Raises:
        GgufError: not a GGUF, of an unknown version, truncated, or above the limits.
    """
    reader = _Reader(stream)
    values: dict[str, Any] = {}
    _read_values(reader, values)
    return _meta(values, reader.lengths)


def read_head(stream: BinaryIO, size: int | None) -> ModelMetadata:
    """Read the metadata of a GGUF whose end may not be readable.

    Args:
        size: bytes of the whole file; None if unknown.

    Raises:
        GgufError: as `read`, unless it has what the KV cache depends on; or a value
            that no model can have.
    """
    start = stream.tell()
    reader = _Reader(stream)
    values: dict[str, Any] = {}
    data = None
    try:
        tensors = _read_values(reader, values)
        _skip_tensors(reader, tensors)
        data = _aligned(stream.tell() - start, values)
    except GgufError:
        if not _is_enough(_meta(values, reader.lengths)):
            raise
    metadata = _meta(values, reader.lengths)
    if data is not None and size is not None and (metadata.split_count or 1) == 1:
        metadata = metadata._replace(tensor_bytes=max(0, size - data))
    if problem := implausible(metadata):
        raise GgufError(problem)
    return metadata


def _is_enough(metadata: ModelMetadata) -> bool:
    """Whether it has what the KV cache depends on."""
    return None not in (
        metadata.block_count,
        metadata.context_length,
        metadata.embedding_length,
        metadata.head_count,
    )


def implausible(metadata: ModelMetadata) -> str:
    """Return which value no model can have, or an empty text."""
    for field, most in _PLAUSIBLE.items():
        value = getattr(metadata, field)
        counts = value if isinstance(value, tuple) else (value or 0,)
        if max(counts, default=0) > most:
            return f"the GGUF has {field} {max(counts)}: expected {most} at most"
    return ""


def _read_values(reader: _Reader, values: dict[str, Any]) -> int:
    """Read the header and the metadata into `values`; return the number of tensors."""
    if reader.take(4) != b"GGUF":
        raise GgufError("not a GGUF: it does not begin with GGUF")
    version = reader.number("I")
    if version not in _VERSIONS:
        expected = [("expected", "version 2 or 3, little-endian")]
        raise GgufError(f"a GGUF of version {version}", expected)
    tensors: int = reader.number("Q")
    for _ in range(reader.length(_MAX_KEYS, "a number of keys")):
        reader.key = reader.text(_MAX_KEY)
        values[reader.key] = reader.value(reader.number("I"))
    return tensors


def _skip_tensors(reader: _Reader, count: int) -> int:
    """Skip the list of tensors; return the largest offset, -1 if there is none."""
    if count > _MOST_TENSORS:
        raise GgufError(f"the GGUF has {count} tensors")
    last = -1
    for _ in range(count):
        reader.text(_MAX_KEY)
        dimensions = reader.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise GgufError(f"the GGUF has a tensor of {dimensions} dimensions")
        reader.take(8 * dimensions + 4)  # lengths and type
        last = max(last, reader.number("Q"))
    return last


def _aligned(end: int, values: Mapping[str, Any]) -> int:
    """Return where the data of the tensors begins, after their list."""
    alignment = _whole(values.get("general.alignment")) or _ALIGNMENT
    return end + -end % alignment


def least_size(stream: BinaryIO) -> int:
    """Return a lower bound of a GGUF's size in bytes.

    It is where the data of the last tensor begins: its length would need the size of
    each quantization.

    Raises:
        GgufError: as `read`.
    """
    reader = _Reader(stream)
    values: dict[str, Any] = {}
    last = _skip_tensors(reader, _read_values(reader, values))
    end = stream.tell()
    if last < 0:
        return end
    return _aligned(end, values) + last + 1


def model_problem(head: bytes, stream: BinaryIO, size: int) -> str:
    """Return why a file is not a model that an engine can read, or "".

    Args:
        head: its first bytes (`model_format.HEAD`).
        stream: the file, at its start.
        size: its bytes.
    """
    if problem := head_problem(head):
        return problem
    if not is_gguf(head):
        return ""
    try:
        least = least_size(stream)
    except GgufError as error:
        return f"it is a damaged GGUF: {error.what}"
    except (ValueError, OverflowError) as error:  # an offset that no file has
        return f"it is a damaged GGUF: {error}"
    if least > size:
        return f"it is a part of a GGUF: {size} bytes, expected at least {least}"
    return ""


def _meta(values: Mapping[str, Any], lengths: Mapping[str, int]) -> ModelMetadata:
    name = values.get("general.architecture")
    fields: dict[str, Any] = {"split_count": _whole(values.get("split.count"))}
    kind = values.get("general.type")
    if isinstance(kind, str):
        fields["type"] = kind
    for key, field in _KEYS.items():
        value = values.get(f"{name}.{key}")
        fields[field] = _whole(value)
        if field in _PER_LAYER and _is_count_array(value):
            fields[field] = tuple(map(int, value))
    if fields["vocab_size"] is None:
        fields["vocab_size"] = lengths.get(_TOKENS)
    return ModelMetadata(name if isinstance(name, str) else None, **fields)


def _is_count_array(value: object) -> TypeGuard[tuple[int, ...]]:
    if not isinstance(value, tuple) or not value:
        return False
    return all(isinstance(count, bool) or _whole(count) is not None for count in value)


def _whole(value: object) -> int | None:
    """Return a value that can be a count of layers, heads or tokens; else None."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not 0 <= value < 1 << 31:
        return None
    return value
