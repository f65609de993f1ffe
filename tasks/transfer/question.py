"""Ask the user of a terminal before something is downloaded."""

from __future__ import annotations

import sys
from typing import NoReturn

from tasks import doit_adapter
from tasks.console.program import as_typed
from tasks.console.text import visible
from tasks.errors import RecipeError


def confirm(question: str) -> None:
    """Ask a question on the terminal (R4).

    Raises:
        RecipeError: the answer is no, or stdin is not a terminal.
        SystemExit: a signal came (128 + signal).
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RecipeError(
            question.replace("\n", "\n  "),
            fix="stdin is not a terminal: pass --yes to confirm",
        )
    from tasks.system.signals import handle_signals

    text = visible(as_typed(question))
    try:
        with handle_signals(_end_question):
            print(f"{text} [y/N] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline()
    except SystemExit:
        # not in the handler: it may have interrupted a write to stderr
        print(file=sys.stderr)  # the terminal's cursor is behind the question
        doit_adapter.log().warning("Interrupted.")
        raise
    if answer.strip().lower() not in ("y", "yes"):
        raise RecipeError("cancelled: nothing was downloaded")


def _end_question(number: int) -> NoReturn:
    raise SystemExit(128 + number)
