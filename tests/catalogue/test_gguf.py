"""What a GGUF says of its memory, and the estimate where there is none."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue import gguf
from tasks.catalogue.gguf import GgufError, ModelMetadata
from tasks.catalogue.model_memory import kv_cache_bytes
from tasks.catalogue.rule_of_thumb import kv_beyond_ram, kv_estimate, parse_parameter_count

MIB, GIB = 1024**2, 1024**3
HEADER = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)


def written(path: Path, architecture: str = "llama", tokens: int = 5000, **values: Any) -> bytes:
    """The metadata of a file that the `gguf` package writes, the vocabulary first."""
    import gguf as package  # it imports numpy: not in each worker that collects this

    writer = package.GGUFWriter(path, architecture)
    writer.add_token_list([f"token {n}" for n in range(tokens)])
    writer.add_token_scores([0.5] * tokens)
    for name, value in values.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_uint16("split.count", 3)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_string("general.name", "Ä model")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path.read_bytes()


def read(data: bytes) -> ModelMetadata:
    return gguf.read(io.BytesIO(data))


def test_what_the_writer_of_the_format_writes_is_read(tmp_path: Path) -> None:
    """Issue 5.5: behind a vocabulary that is passed over, each number that memory depends on is found."""
    data = written(
        tmp_path / "m.gguf", "gemma3", block_count=26, context_length=32768, embedding_length=1152,
        head_count=4, head_count_kv=1, key_length=256, value_length=128, sliding_window=512,
    )  # fmt: skip
    expected = ModelMetadata("gemma3", 26, 32768, 1152, 4, 1, 256, 128, 512, None, 3, vocab_size=5000)
    assert read(data) == expected


def test_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    """Issue 5.5: layers without attention (LFM2, OpenELM) have no cache."""
    data = written(
        tmp_path / "m.gguf", "lfm2", block_count=4, context_length=1000, embedding_length=64, head_count=2,
        head_count_kv=[0, 2, 0, 1],
    )  # fmt: skip
    metadata = read(data)
    assert metadata.head_count_kv == (0, 2, 0, 1)
    assert kv_cache_bytes(metadata, 0) == 1000 * 3 * (32 + 32) * 2


def llama(layers: int, kv: int, head: int, trained: int = 131072) -> ModelMetadata:
    return ModelMetadata("llama", layers, trained, None, 32, kv, head, head)


@pytest.mark.parametrize(
    ("metadata", "ctx", "expected"),
    [
        pytest.param(ModelMetadata("llama", 32, 131072, 4096, 32, 8), 0, 16 * GIB, id="Llama 3.1 8B"),
        pytest.param(ModelMetadata("llama", 32, 32768, 4096, 32, 8), 32768, 4 * GIB, id="Mistral 7B v0.2"),
        pytest.param(ModelMetadata("llama", 32, 4096, 4096, 32), 4096, 2 * GIB, id="no head_count_kv"),
        pytest.param(ModelMetadata("phi3", 32, 4096, 3072, 32, 32), 4096, 1536 * MIB, id="Phi-3 mini"),
        pytest.param(ModelMetadata("qwen3", 28, 40960, 1024, 16, 8, 128, 128), 8192, 896 * MIB, id="Qwen3"),
        pytest.param(ModelMetadata("x", 2, 10, 64, 4, 4, 16, 8), 1, 2 * 4 * 24 * 2, id="V shorter than K"),
        pytest.param(ModelMetadata("x", 2, 10, 64, (4, 8), (4, 2)), 1, 6 * 32 * 2, id="heads of each layer"),
        pytest.param(ModelMetadata("x", 32, 10, 64, 4, 2, 16, 16, None, 4), 1, 8 * 2 * 32 * 2, id="Qwen3.5"),
        pytest.param(ModelMetadata("x", None, 10, 64, 4), 1, None, id="no layers"),
        pytest.param(ModelMetadata("x", 2, None, 64, 4), 0, None, id="no context"),
        pytest.param(ModelMetadata("x", 2, None, 64, 4), 7, 7 * 2 * 4 * 32 * 2, id="a context of the user's"),
        pytest.param(ModelMetadata("x", 2, 10, 64), 1, None, id="no heads"),
        pytest.param(ModelMetadata("x", 2, 10, 64, 0, 0), 1, None, id="heads of no length"),
        pytest.param(ModelMetadata(), 1, None, id="nothing"),
    ],
)  # fmt: skip
def test_the_cache_follows_from_the_metadata(metadata: ModelMetadata, ctx: int, expected: int | None) -> None:
    """Issue 5.5: the sizes that llama.cpp prints as `KV self size`."""
    assert kv_cache_bytes(metadata, ctx) == expected


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "ends within"),
        (b"GGU", "ends within"),
        (b"GGML" + bytes(20), "does not begin with GGUF"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "little-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 40), "number of keys"),
        (HEADER + struct.pack("<Q", 1 << 50), "a text of length"),
        (HEADER + struct.pack("<Q1sI", 1, b"k", 13), "type 13"),
        (HEADER + struct.pack("<Q1sIQ", 1, b"k", 8, 1 << 60), "a text of length"),
        (HEADER + struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 3), "not nested"),
        (HEADER + struct.pack("<Q1sIIQ", 1, b"k", 9, 0, 1 << 60), "an array of length"),
        (HEADER + struct.pack("<Q1sIIQ", 1, b"k", 9, 12, 1 << 26), "metadata is longer"),
        (HEADER + struct.pack("<Q1sIIQQ", 1, b"k", 9, 8, 1 << 20, 1 << 60), "metadata is longer"),
        (HEADER + struct.pack("<Q1sIIQQ", 1, b"k", 9, 8, 1 << 20, 5), "ends within"),
    ],
)
def test_what_is_absurd_is_refused_by_name(data: bytes, text: str) -> None:
    """Issue 5.5: before anything of that length is read or kept."""
    with pytest.raises(GgufError, match=text):
        read(data)


def test_a_cut_anywhere_is_named(tmp_path: Path) -> None:
    """Issue 5.5: a partial file has its metadata whole, or it is not read."""
    data = written(tmp_path / "m.gguf", block_count=3, tokens=20)
    metadata = len(data.rstrip(b"\0"))
    for end in range(0, metadata - 8, 7):
        with pytest.raises(GgufError):
            read(data[:end])


@given(st.binary(max_size=200))
def test_random_bytes_are_a_meta_or_the_named_error(tail: bytes) -> None:
    """Issue 5.5: nothing else leaves the reader."""
    for data in (tail, b"GGUF" + tail, HEADER[:-8] + tail, HEADER + tail):
        with suppress(GgufError):
            kv_cache_bytes(read(data), 512)


_NUMBER = st.one_of(st.none(), st.integers(0, 2**31))
_HEADS = st.one_of(_NUMBER, st.lists(st.integers(0, 99), min_size=1).map(tuple))


@given(st.tuples(*[_NUMBER] * 3, *[_HEADS] * 2, *[_NUMBER] * 5), st.integers(0, 2**20))
def test_any_metadata_gives_bytes_or_nothing(values: tuple[Any, ...], ctx: int) -> None:
    """Issue 5.5: numbers that fit nothing are no traceback."""
    found = kv_cache_bytes(ModelMetadata("x", *values), ctx)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7.24B", 7.24), ("E2B", 2), ("7B+mmproj", 7), ("46.7B", 46.7), ("350M", 0.35), ("8x7B", 7),
        ("24B A2B", 24), ("0.8b", 0.8), ("", None), (None, None), ("unknown", None), ("B", None),
        ("7", None), ("7Bit", None),
    ],
)  # fmt: skip
def test_the_catalogues_words_for_parameters(text: str | None, expected: float | None) -> None:
    """Issue 5.5: as models.yaml and publishers write them."""
    assert parse_parameter_count(text) == expected


# (parameters, layers, heads of K and V, length of a head, how far off an estimate may be)
KNOWN = [
    pytest.param("1.24B", 16, 8, 64, 2, id="Llama 3.2 1B"),
    pytest.param("3.21B", 28, 8, 128, 2, id="Llama 3.2 3B"),
    pytest.param("8.03B", 32, 8, 128, 2, id="Llama 3.1 8B"),
    pytest.param("70.6B", 80, 8, 128, 2, id="Llama 3.1 70B"),
    pytest.param("7.24B", 32, 8, 128, 2, id="Mistral 7B"),
    pytest.param("1.7B", 28, 8, 128, 2, id="Qwen3 1.7B"),
    pytest.param("4.02B", 36, 8, 128, 2, id="Qwen3 4B"),
    pytest.param("8.19B", 36, 8, 128, 2, id="Qwen3 8B"),
    pytest.param("32.8B", 64, 8, 128, 2, id="Qwen3 32B"),
    pytest.param("14.7B", 40, 10, 128, 2, id="Phi-4"),
    pytest.param("0.49B", 24, 2, 64, 4, id="Qwen2.5 0.5B"),
    pytest.param("7.62B", 28, 4, 128, 4, id="Qwen2.5 7B"),
    pytest.param("1.1B", 22, 4, 64, 4, id="TinyLlama"),
    pytest.param("46.7B", 32, 8, 128, 4, id="Mixtral 8x7B"),
    pytest.param("20.9B", 24, 8, 64, 4.2, id="gpt-oss 20B"),
    pytest.param("3.82B", 32, 32, 96, 4, id="Phi-3 mini"),
    pytest.param("6.9B", 32, 32, 128, 4.1, id="OLMo 7B"),
]


@pytest.mark.parametrize(("params", "layers", "kv", "head", "factor"), KNOWN)
def test_the_estimate_is_near_models_that_are_known(
    params: str, layers: int, kv: int, head: int, factor: float
) -> None:
    """Issue 5.5: their numbers are those of their config.json."""
    real, estimate = kv_cache_bytes(llama(layers, kv, head), 8192), kv_estimate(params, 8192)
    assert real
    assert estimate
    assert 1 / factor <= estimate / real <= factor, estimate / real


def test_no_estimate_without_parameters_or_context() -> None:
    """Issue 5.5: what a model was trained for is not known before it is here."""
    assert kv_estimate(None, 8192) is None
    assert kv_estimate("unknown", 8192) is None
    assert kv_estimate("7B", 0) is None


@pytest.mark.parametrize(
    ("params", "ctx", "expected"),
    [("1B", 4096, 0), ("1B", 5096, 1000 * 56 * 1024), ("1B", 512, 0), ("1B", 0, 0), (None, 8192, 0)],
)
def test_ram_includes_4096_tokens(params: str | None, ctx: int, expected: int) -> None:
    """Issue 14.2: what a larger context takes comes on top."""
    assert kv_beyond_ram(params, ctx) == expected


DEMO = (Path(__file__).parents[2] / "demo" / "demo.gguf").read_bytes()


def problem(data: bytes) -> str:
    return gguf.model_problem(data[:512], io.BytesIO(data), len(data))


def part(size: int) -> str:
    return f"it is a part of a GGUF: {size} bytes, expected at least 2246145"


# a cut inside the last tensor is left to the engine
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DEMO, ""),
        (DEMO[:2246145], ""),
        (DEMO[:2246144], part(2246144)),
        (DEMO[: len(DEMO) // 2], part(1123456)),
        (DEMO[:46592], part(46592)),
        (DEMO[:9000], "it is a damaged GGUF: the GGUF ends within its metadata"),
        (DEMO[:24], "it is a damaged GGUF: the GGUF ends within its metadata"),
        (DEMO[:8], "it is a damaged GGUF: the GGUF ends within its metadata"),
        (DEMO[:5], "it is a GGUF that ends after 5 bytes"),
        (b"", "it is empty (0 bytes)"),
        (b"MZqFpD=' and more", ""),
        (b"Entry not found", "it is text: Entry not found"),
        (HEADER[:16] + bytes(8), ""),
        (
            struct.pack("<4sIQQ", b"GGUF", 3, 1 << 40, 0),
            "it is a damaged GGUF: the GGUF has 1099511627776 tensors",
        ),
        (
            struct.pack("<4sIQQQ1sI", b"GGUF", 3, 1, 0, 1, b"t", 99),
            "it is a damaged GGUF: the GGUF has a tensor of 99 dimensions",
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_whole(data: bytes, said: str) -> None:
    """F16: half a GGUF begins as a model does, but ends before its last tensor."""
    assert problem(data) == said


@given(st.integers(0, len(DEMO)), st.binary(max_size=9))
def test_a_damaged_file(at: int, change: bytes) -> None:
    """Any bytes give one line or none, never an exception."""
    assert problem(DEMO[:at] + change).isprintable()
    at %= 9000
    assert problem(DEMO[:at] + change + DEMO[at + len(change) :]).isprintable()
