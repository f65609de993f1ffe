"""A message says what, the facts and the fix; nearest spellings are found."""

from __future__ import annotations

import pytest
from tasks.errors import (
    IntegrityError,
    RecipeError,
    ServerError,
    TransferError,
    UsageError,
    did_you_mean,
    nearest,
)

MODELS = ("mistral", "mistral-q3", "mistral-q4", "tinyllama", "Phi3-mini", "llava-1.5-7b")


@pytest.mark.parametrize(
    ("facts", "fix", "text"),
    [
        pytest.param((), "", "it broke", id="nothing more is known"),
        pytest.param((), "fix it", "it broke\n  fix: fix it", id="with a fix"),
        pytest.param((("got", 3),), "", "it broke\n  got: 3", id="a fact that is not text"),
        pytest.param((("got", 0),), "", "it broke\n  got: 0", id="a fact that is false, and still a fact"),
        pytest.param((("log", ""), ("pid", None)), "", "it broke", id="unknown facts are omitted"),
        pytest.param(
            (("output", "one\ntwo\n"), ("log", "/x")),
            "fix\nit",
            "it broke\n  output:\n      one\n      two\n  log: /x\n  fix:\n      fix\n      it",
            id="several lines are indented, and the last has no end",
        ),
    ],
)
def test_message(facts: tuple[tuple[str, object], ...], fix: str, text: str) -> None:
    """What, a line per fact, the fix at the end (R28)."""
    error = RecipeError("it broke", facts, fix)
    assert error.render() == str(error) == text
    assert (error.what, error.facts, error.fix) == ("it broke", facts, fix)


@pytest.mark.parametrize("kind", [UsageError, TransferError, IntegrityError, ServerError])
def test_every_failure_is_one_family(kind: type[RecipeError]) -> None:
    """One `except RecipeError` catches what a user can fix, and the families stay apart."""
    assert kind.__mro__[1] is RecipeError


@pytest.mark.parametrize(
    ("word", "first"),
    [
        pytest.param("mistrla", "mistral", id="two letters swapped"),
        pytest.param("MISTRAL-Q3", "mistral-q3", id="another case"),
        pytest.param("phi3-mni", "Phi3-mini", id="the spelling of the list is shown"),
        pytest.param("llav", "llava-1.5-7b", id="a beginning, though far from the whole"),
        pytest.param("xyzzy", "", id="nothing is near"),
        pytest.param("", "", id="nothing typed"),
    ],
)
def test_nearest_spelling(word: str, first: str) -> None:
    """The best first; nothing rather than something far."""
    assert (nearest(word, MODELS) or [""])[0] == first


def test_a_few_spellings_are_offered_each_once() -> None:
    """No more than asked for, and a close one that is also a beginning comes once."""
    assert sorted(nearest("mistral", MODELS)) == ["mistral", "mistral-q3", "mistral-q4"]
    assert nearest("mistral", MODELS, 1) == ["mistral"]
    assert did_you_mean("llava-1.5", MODELS) == "did you mean llava-1.5-7b?"
    assert did_you_mean("xyzzy", MODELS) == ""
