"""Which models one screen shows: a table of catalogues and memories."""

from __future__ import annotations

import pytest
from tasks.catalogue.screen import Candidate, choose, family, fits

pytestmark = pytest.mark.once
GB = 10**9

# in the order of models.yaml
MODELS = (
    Candidate("mistral", "chat", 7, is_kept=True),
    Candidate("demo", "chat", 1, is_kept=True),
    Candidate("qwen3-4b", "chat", 4),
    Candidate("qwen3-8b", "chat", 7),
    Candidate("qwen3-32b", "chat", 24),
    Candidate("qwen3-vl-4b", "vision", 5),
    Candidate("qwen3-vl-8b", "vision", 8),
    Candidate("gemma-3-1b", "chat", 2),
    Candidate("gemma-3-12b", "vision", 11),
    Candidate("mistral-small", "chat", 6),  # of a family that is shown already
    Candidate("llama-a", "chat", 5),
    Candidate("llama-b", "chat", 5),
    Candidate("phi", "chat", None),  # unknown: never recommended
    Candidate("embedder-1", "embedding", 1),
    Candidate("embedder-2", "embedding", 2),
    Candidate("ranker", "rerank", 1),
)
KEPT = ["mistral", "demo"]

ROWS = (
    ("all, if there is room", 16, 4, [model.name for model in MODELS]),
    ("a small machine", 13, 4, [*KEPT, "gemma-3-1b", "embedder-2", "ranker"]),
    ("8 GB: three quarters are 6", 13, 8,
     [*KEPT, "qwen3-4b", "gemma-3-1b", "llama-b", "qwen3-vl-4b", "embedder-2", "ranker"]),
    ("16 GB", 13, 16,
     [*KEPT, "qwen3-8b", "gemma-3-1b", "llama-b", "qwen3-vl-8b", "gemma-3-12b", "embedder-2", "ranker"]),
    ("32 GB", 13, 32,
     [*KEPT, "qwen3-32b", "gemma-3-1b", "llama-b", "qwen3-vl-8b", "gemma-3-12b", "embedder-2", "ranker"]),
    ("little room: every kind", 6, 32, [*KEPT, "qwen3-32b", "gemma-3-1b", "qwen3-vl-8b", "embedder-2"]),
    ("no room for what is kept", 1, 32, ["mistral"]),
)  # fmt: skip


@pytest.mark.parametrize(("room", "memory", "names"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_choose(room: int, memory: int, names: list[str]) -> None:
    """Issue 15.7: the default and what is here, then recommendations by kind and memory."""
    assert choose(MODELS, memory * GB, room) == names


def test_at_most_a_dozen_is_recommended() -> None:
    """Issue 15.7: also where there is room for more."""
    names = [f"{letter}-{number}" for letter in "abcdefghijklmnopqrst" for number in range(2)]
    models = [Candidate(name, "chat", 1) for name in names]
    assert choose(models, 64 * GB, 30) == [f"{letter}-1" for letter in "abcdefghijkl"]


@pytest.mark.parametrize(
    ("name", "first"),
    [("qwen3.5-27b", "qwen"), ("Gemma-3-4b", "gemma"), ("gpt-oss-20b", "gpt"), ("42", "42")],
)
def test_family(name: str, first: str) -> None:
    """The first letters of a name."""
    assert family(name) == first


def test_fits() -> None:
    """Unknown is not yes."""
    assert [fits(ram, 7 * GB) for ram in (7, 8, None, 0)] == [True, False, None, None]
