"""The estimate of memory against what engines took, as bench/memory.py measured it (issue 15.6)."""

from __future__ import annotations

import pytest
from tasks.catalogue.gguf import ModelMetadata
from tasks.catalogue.model_memory import CacheUse, cache_use, engine_bytes, kv_cache_bytes, own_words
from tasks.catalogue.settings import ServeSettings

MB = 10**6
BASE = ModelMetadata("llama", 6, 32768, 256, 8, 8, 64, 64, feed_forward_length=512, vocab_size=1536)
LLAMA = (BASE, 12.6)  # with the MB of its file
GROUPED = (BASE._replace(head_count_kv=2), 10.3)
QWEN3 = (BASE._replace(architecture="qwen3", head_count_kv=4, key_length=128, value_length=128), 15.8)
MIXTURE = (
    BASE._replace(architecture="qwen3moe", head_count_kv=4, expert_count=8, expert_used_count=2,
                  expert_feed_forward_length=512), 44.1,
)  # fmt: skip
GEMMA = (QWEN3[0]._replace(architecture="gemma3", sliding_window=1024), 15.0)
TOKENS = (BASE._replace(head_count_kv=2, vocab_size=128_000), 145.5)
Q8 = "--cache-type-k q8_0 --cache-type-v q8_0"


@pytest.mark.parametrize(
    ("model", "engine", "ctx", "words", "measured"),
    [
        (LLAMA, "embedded", 512, "", 68),
        (LLAMA, "embedded", 4096, "", 113),
        (LLAMA, "embedded", 32768, "", 467),
        (LLAMA, "embedded", 32768, Q8, 279),
        (LLAMA, "embedded", 4096, "-ub 128", 109),
        (LLAMA, "embedded", 1024, "-fa off", 89),
        (LLAMA, "llama-server", 512, "", 52),
        (LLAMA, "llama-server", 32768, "", 451),
        (LLAMA, "llama-server", 32768, Q8, 262),
        (LLAMA, "llama-server", 4096, "--parallel 4", 98),
        (LLAMA, "llama-server", 4096, "-ub 128", 93),
        (LLAMA, "llama-server", 1024, "-fa off", 72),
        (GROUPED, "embedded", 32768, "", 162),
        (QWEN3, "llama-server", 32768, "", 456),
        (QWEN3, "embedded", 32768, Q8, 284),
        (QWEN3, "llama-server", 32768, Q8, 268),
        (MIXTURE, "embedded", 32768, "", 301),
        (GEMMA, "embedded", 512, "", 78),
        (GEMMA, "embedded", 32768, "", 159),
        (GEMMA, "embedded", 32768, "--swa-full", 477),
        (GEMMA, "embedded", 32768, Q8, 121),
        (GEMMA, "llama-server", 32768, "", 178),
        (GEMMA, "llama-server", 32768, "--parallel 1", 143),
        (GEMMA, "llama-server", 32768, "--swa-full", 461),
        (GEMMA, "llama-server", 32768, Q8, 123),
        (TOKENS, "embedded", 4096, "", 257),
        (TOKENS, "llama-server", 4096, "", 224),
    ],
)  # fmt: skip
def test_within_a_tenth(
    model: tuple[ModelMetadata, float], engine: str, ctx: int, words: str, measured: int
) -> None:
    """Issue 15.6: files of random weights, after a prompt of 600 tokens; MB."""
    metadata, weights = model
    use = cache_use(engine, words.split())
    cache = kv_cache_bytes(metadata, ctx, use)
    assert cache is not None
    total = weights * MB + cache + engine_bytes(metadata, ctx, engine, use, prompt=600)
    assert total == pytest.approx(measured * MB, rel=0.1)


@pytest.mark.parametrize(
    ("engine", "words", "expected"),
    [
        ("embedded", "", CacheUse()),
        ("llama-server", "", CacheUse(slots=4, unified=True)),
        ("llama-server", "-np 2", CacheUse(slots=2)),
        ("llama-server", "-np 2 -kvu", CacheUse(slots=2, unified=True)),
        ("llama-server", "--no-kv-unified", CacheUse(slots=4)),
        ("embedded", "-ctk q8_0 -ctv q4_0", CacheUse(key_bytes=1.0625, value_bytes=0.5625)),
        ("embedded", "-ctk q8_0 -ctk f16", CacheUse()),
        ("embedded", "-fa off", CacheUse(flash_attention=False)),
        ("embedded", "-fa", CacheUse()),
        ("embedded", "--swa-full -ub 64", CacheUse(full_windows=True, ubatch=64)),
        ("embedded", "-ctk q9 -np 0 -np many -ub -1 -np " + "9" * 5000, CacheUse()),
        ("embedded", "-np", CacheUse()),
    ],
)
def test_what_the_arguments_say(engine: str, words: str, expected: CacheUse) -> None:
    """Issue 15.6: the last one counts; what no engine accepts changes nothing."""
    assert cache_use(engine, words.split()) == expected


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("chat", ServeSettings(ctx_size=512), ()),
        ("chat", ServeSettings(ctx_size=512, parallel=3), ("--parallel", "3")),
        ("embedding", ServeSettings(ctx_size=512), ("--ubatch-size", "512")),
        ("rerank", ServeSettings(ctx_size=0, parallel=1), ("--parallel", "1")),
    ],
)
def test_what_the_settings_say(kind: str, settings: ServeSettings, words: tuple[str, ...]) -> None:
    """Issue 15.6: `parallel:` and `kind:` become arguments that memory depends on."""
    assert own_words(kind, settings) == words


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (BASE, 6 * 8 * 1000),
        (BASE._replace(sliding_window=100), 6 * 8 * 1000),  # of an unknown pattern: all layers are full
        (GEMMA[0]._replace(sliding_window=100), 4 * 2 * (1 * 1000 + 5 * 768)),  # 100 + 512, in steps of 256
        (BASE._replace(sliding_window=100, sliding_window_pattern=2), 8 * 3 * (1000 + 768)),
        (BASE._replace(sliding_window=9, sliding_window_pattern=(1, 1, 0, 1, 1, 0)), 16 * (1000 + 2 * 768)),
        (BASE._replace(sliding_window=100, sliding_window_pattern=2, key_length_swa=32, value_length_swa=32),
         8 * 3 * (1000 + 384)),
        (BASE._replace(shared_kv_layers=4), 2 * 8 * 1000),
        (BASE._replace(head_count_kv=(0, 8, 0, 4, 0, 8), sliding_window=9), 20 * 1000),
    ],
)  # fmt: skip
def test_the_cells_of_a_cache(metadata: ModelMetadata, expected: int) -> None:
    """Issue 15.6: cells times heads; a head of 64 numbers for K and for V takes 256 bytes a cell."""
    assert kv_cache_bytes(metadata, 1000) == expected * 256
