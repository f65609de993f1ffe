"""Show a model's reasoning on stderr, apart from its answer on stdout."""

from __future__ import annotations

import os
import sys

from tasks.console.log_format import is_json
from tasks.console.logs import log_event, logger
from tasks.console.styles import allows_styles
from tasks.console.text import PROSE, visible

_DIM = "\x1b[2m"
_RESET = "\x1b[0m"


class Reasoning:
    """The reasoning of one answer.

    A terminal shows each piece as it arrives. A file, a CI system and a JSON log get
    the whole text, as one event, when it ends.
    """

    def __init__(self, name: str) -> None:
        """Take the model's name."""
        self._name = name
        self._pieces: list[str] = []
        self._is_terminal = sys.stderr.isatty() and not is_json(os.environ)
        self._has_header = False

    def add(self, text: str) -> None:
        """Take the next piece."""
        if not self._is_terminal:
            self._pieces.append(text)
            return
        if not self._has_header:
            self._write(f"{self._name} is thinking:\n")
            self._has_header = True
        self._write(text)

    def end(self) -> None:
        """Separate it from the answer that follows; show what was not shown yet."""
        if self._has_header:
            self._write("\n\n")
            self._has_header = False
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces = []
            logger()
            line = "%s is thinking:\n%s\n"
            log_event("reasoning", line, self._name, text, model=self._name)

    def _write(self, text: str) -> None:
        safe = visible(text, PROSE)
        if allows_styles(os.environ, sys.platform):
            # each piece is reset, so that an interrupted one leaves no style behind
            safe = f"{_DIM}{safe}{_RESET}"
        sys.stderr.write(safe)
        sys.stderr.flush()
