"""Which pins an upgrade moves, and the report of untrusted text."""

from __future__ import annotations

import pytest
from tasks.catalogue.check_options import Check
from tasks.catalogue.lockfile import LockedFile, LockFile
from tasks.server.checks import Outcome
from tasks.upgrade import report
from tasks.upgrade.gate import Decision, Pair
from tasks.upgrade.moves import Move, moves, with_rows
from tasks.upgrade.trial import Subject, Trial


def row(digest: str, source: str = "hf:o/r@main/m.gguf", url: str = "https://x.org/1/m.gguf") -> LockedFile:
    return LockedFile(url, digest * 64, "MIT", "the Hub", "2026-11-25", source)


A, B, OTHER = row("a"), row("b"), row("b", "hf:o/r@main/n.gguf")
AT_B = row("a", url="https://x.org/2/m.gguf")


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        pytest.param((A,), (B,), True, id="other bytes"),
        pytest.param((A, OTHER), (B, OTHER), True, id="one of two files"),
        pytest.param((A,), (A,), False, id="the same"),
        pytest.param((A,), (AT_B,), False, id="the same bytes at another address"),
        pytest.param((), (A,), False, id="locked for the first time"),
        pytest.param((A,), (), False, id="removed from models.yaml"),
        pytest.param((A,), (OTHER,), False, id="models.yaml names another file"),
        pytest.param((A,), (B, OTHER), False, id="models.yaml names one file more"),
    ],
)
def test_what_moves(old: tuple[LockedFile, ...], new: tuple[LockedFile, ...], moved: bool) -> None:
    """Issue 18.3: the same sources with other bytes."""
    locks = [LockFile(1, {}, {"m": rows} if rows else {}) for rows in (old, new)]
    assert moves(*locks) == ([Move("models", "m", old, new)] if moved else [])


def test_engines_come_first() -> None:
    """Issue 18.3: models are tried with the engine that was accepted."""
    old, new = (LockFile(1, {"e": (one,)}, {"m": (one,)}) for one in (A, B))
    assert [move.title for move in moves(old, new)] == ["engine e", "model m"]
    assert with_rows(new, "models", "m", (A,)).models == {"m": (A,)}
    assert new.models == {"m": (B,)}


def test_an_answer_is_no_markup() -> None:
    """Issue 18.3: a model cannot end the code block, mention a user or send an escape sequence."""
    got = "@someone\n```\n# A title\x1b[2J ````"
    outcome = Outcome(Check(ask="?", contains="x"), got, "the answer does not have the text", 1.0)
    pair = Pair(Subject("m"), Trial(error="| no `server`\n@all"), Trial((outcome,), 12.345))
    move = Move("models", "m", (A,), (B,))
    text = report.render([Decision(move, "1 of 1 | `failed`", (pair,))])
    assert "| model m | `kept back: 1 of 1 \\| 'failed'` |" in text
    assert "| old | `?` | `\\| no 'server'` | `not measured` |" in text
    block = "`````text\nquestion: ?\nexpected: contains 'x'\nnew: @someone\n```\n# A title\\x1b[2J ````\n"
    assert f"{block}failed: the answer does not have the text\n`````" in text
    assert "```text\n| no `server`\n@all\n```" in text
