"""Render the report of an upgrade as Markdown, for a pull request.

An answer is text of a model: it is in a code block whose fence it cannot end, so that
it is neither markup nor a mention.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tasks.catalogue.lockfile import LockedFile
from tasks.console import formatting
from tasks.console.text import LINES, WORD, visible
from tasks.server.checks import Outcome
from tasks.upgrade.gate import Decision, Pair
from tasks.upgrade.moves import Move
from tasks.upgrade.trial import Trial
from tasks.urls import filename_of

_MOST_TEXT = 1000  # characters of an answer, and of an error
_NOTHING = "Every pin has the bytes that its publisher has now."


def render(decisions: Sequence[Decision]) -> str:
    """Return the report."""
    lines = ["# Upgrade of models.lock", ""]
    if not decisions:
        return "\n".join([*lines, _NOTHING, ""])
    lines += ["| pin | result |", "| --- | --- |"]
    for decision in decisions:
        lines.append(f"| {decision.move.title} | {_cell(_result(decision))} |")
    for decision in decisions:
        lines += ["", f"## {decision.move.title}", "", *_rows(decision.move)]
        for pair in decision.pairs:
            lines += ["", *_pair(pair)]
    return "\n".join([*lines, ""])


def _result(decision: Decision) -> str:
    if decision.kept:
        return f"kept back: {decision.kept}"
    return "moves: all checks pass"


def _rows(move: Move) -> Iterator[str]:
    """Yield the table of the files whose bytes differ."""
    yield "| | file | version | sha256 | size | licence |"
    yield "| --- | --- | --- | --- | --- | --- |"
    before = {row.source or row.url: row for row in move.old}
    after = {row.source or row.url: row for row in move.new}
    for source in dict.fromkeys([*before, *after]):
        old = before.get(source)
        new = after.get(source)
        if old and new and old.sha256 == new.sha256:
            continue
        if old:
            yield _row("old", old)
        if new:
            yield _row("new", new)


def _row(label: str, row: LockedFile) -> str:
    version = row.version or (row.commit or "")[:12] or row.since
    size = formatting.format_size(row.size)
    cells = (filename_of(row.url), version, row.sha256, size, row.license)
    return f"| {label} | {' | '.join(map(_cell, cells))} |"


def _pair(pair: Pair) -> Iterator[str]:
    """Yield the checks of one model with the old and with the new bytes."""
    yield f"### {pair.subject.title}"
    yield ""
    yield "| | engine | checks | tokens per second |"
    yield "| --- | --- | --- | --- |"
    for label, trial in (("old", pair.old), ("new", pair.new)):
        cells = (trial.engine or "?", _summary(trial), _rate(trial.per_second))
        yield f"| {label} | {' | '.join(map(_cell, cells))} |"
    for label, trial in (("old", pair.old), ("new", pair.new)):
        if trial.error:
            yield from ("", f"Error with the {label} one:", "", *_block(trial.error))
    known = {outcome.check.ask: outcome for outcome in pair.old.outcomes}
    for outcome in pair.new.outcomes:
        yield from _questions(known.get(outcome.check.ask), outcome)


def _summary(trial: Trial) -> str:
    if trial.error:
        return trial.problem
    passed = sum(outcome.passed for outcome in trial.outcomes)
    return f"{passed} of {len(trial.outcomes)} passed"


def _rate(rate: float | None) -> str:
    if rate is None:
        return "not measured"
    return f"{rate:.4g}"


def _questions(old: Outcome | None, new: Outcome) -> Iterator[str]:
    """Yield a question, what is expected, and both answers."""
    texts = [f"question: {new.check.ask}", f"expected: {new.check.expected}"]
    if old and old.got == new.got:
        texts.append(f"old and new: {_answer(new)}")
    else:
        if old:
            texts.append(f"old: {_answer(old)}")
        texts.append(f"new: {_answer(new)}")
    yield ""
    yield from _block("\n".join(texts))


def _answer(outcome: Outcome) -> str:
    """Return an answer; after it, why the check failed."""
    text = outcome.got
    if len(text) > _MOST_TEXT:
        text = text[:_MOST_TEXT] + "…"
    if outcome.problem:
        return f"{text}\nfailed: {outcome.problem}"
    return text


def _block(text: str) -> list[str]:
    """Return text in a code block, with a fence that is longer than any in it."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max([2, *runs]) + 1)
    return [f"{fence}text", visible(text, LINES), fence]


def _cell(text: str) -> str:
    """Return text for a cell of a table: one line of code."""
    plain = visible(" ".join(text.split()), WORD).replace("`", "'")
    return f"`{plain}`".replace("|", "\\|")
