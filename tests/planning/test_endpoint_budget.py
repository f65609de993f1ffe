"""How many models of an endpoint may be loaded at the same time."""

from __future__ import annotations

import pytest
from tasks.planning.endpoint_budget import judge

pytestmark = pytest.mark.once

OWN = "of which llama-server itself takes 50 MB"
THREE = {"qwen": 8.0, "gemma": 6.0, "embedder": 1.0}


@pytest.mark.parametrize(
    ("needs", "keep", "budget", "models_max"),
    [
        (THREE, (), 24, 3),
        (THREE, (), 15.1, 3),
        (THREE, (), 15.0, 2),  # the router itself takes 0.05
        (THREE, (), 14.0, 1),  # the two largest must fit, as they may meet
        (THREE, (), 8.1, 1),
        (THREE, ("embedder",), 15.1, 3),
        (THREE, ("embedder",), 14.1, 2),
        (THREE, tuple(THREE), 15.1, 3),
        ({"a": 0.1, "b": 0.2}, (), 0.4, 2),
        ({"only": 2.0}, ("only",), 2.1, 1),
    ],
)
def test_models_max(needs: dict[str, float], keep: tuple[str, ...], budget: float, models_max: int) -> None:
    """Issue 16.2: the largest number such that any models up to it fit."""
    assert judge(needs, keep, budget) == (models_max, "", "")


@pytest.mark.parametrize(
    ("keep", "budget", "problem", "fix"),
    [
        ((), 0.001, f"qwen needs 8.0 GB, but memory is 1 MB, {OWN}", "raise memory, or remove qwen"),
        ((), 8.0, f"qwen needs 8.0 GB, but memory is 8.0 GB, {OWN}", "raise memory, or remove qwen"),
        (
            ("qwen",), 5,
            f"keep needs 8.0 GB (qwen), but memory is 5.0 GB, {OWN}", "keep fewer models, or raise memory",
        ),
        (
            ("qwen", "gemma"), 14,
            f"keep needs 14.0 GB (qwen 8.0 GB + gemma 6.0 GB), but memory is 14.0 GB, {OWN}",
            "keep fewer models, or raise memory",
        ),
        (
            ("embedder",), 9,
            f"qwen and keep need 9.0 GB (qwen 8.0 GB + embedder 1.0 GB), but memory is 9.0 GB, {OWN}",
            "raise memory, remove qwen, or keep fewer models",
        ),
        (
            ("embedder",), 12,
            "keep (embedder) and one more are 2 models, and the 2 largest need 14.0 GB"
            f" (qwen 8.0 GB + gemma 6.0 GB), but memory is 12.0 GB, {OWN}"
            " (llama-server may unload any model to load another)",
            "raise memory, remove a large model, or remove keep",
        ),
    ],
)  # fmt: skip
def test_problems(keep: tuple[str, ...], budget: float, problem: str, fix: str) -> None:
    """Issue 16.2: with the sum."""
    assert judge(THREE, keep, budget) == (0, problem, fix)
