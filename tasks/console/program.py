"""Name the command that the user typed: `doit`, or `llamafile-recipe`.

Messages are written for `doit`. Where they are printed, `as_typed` replaces its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WRITTEN = "doit"  # in the messages
_typed = _WRITTEN
_commands: re.Pattern[str] = re.compile("")


def set_program(name: str, words: Iterable[str]) -> None:
    """Set the command that the user typed.

    Args:
        words: what follows its name in a message: verbs, doit's own commands.
    """
    global _typed, _commands
    _typed = name
    if name == _WRITTEN:
        return
    verbs = "|".join(map(re.escape, words))
    # `doit VERB` anywhere; in backquotes also `doit` and `doit -n`
    _commands = re.compile(
        rf"(?<![\w./-]){_WRITTEN}(?= (?:{verbs}|…)(?![\w-]))"
        rf"|(?<=`){_WRITTEN}(?=`| -)"
    )


def as_typed(text: str) -> str:
    """Return a text in which each command begins with the name that was typed."""
    if _typed == _WRITTEN:
        return text
    return _commands.sub(_typed, text)
