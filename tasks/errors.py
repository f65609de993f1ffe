"""What can go wrong, as one small tree; imports nothing, so that every layer may raise it. Pure.

RecipeError              the text is the whole message: what, the facts, the fix
  UsageError             the command line or the catalogue is wrong: nothing was run, exit 3
  TransferError          the bytes did not come: worth another try
  IntegrityError         the bytes are wrong: never retried blindly
  NoRoom                 the disk has no room for the bytes
  ServerError            the engine failed, or cannot be started
"""

from __future__ import annotations

from collections.abc import Sequence


class RecipeError(Exception):
    """A failure a user can understand and mend.

    Args:
        what: one line, what failed and where.
        facts: (name, value) pairs, shown a line each; a value of several lines is indented.
        fix: the command or the edit that mends it.
    """

    def __init__(self, what: str, facts: Sequence[tuple[str, object]] = (), fix: str = "") -> None:
        self.what = what
        self.facts = tuple(facts)
        self.fix = fix
        super().__init__(self.render())

    def render(self) -> str:
        """The message as people read it."""
        lines = [self.what]
        for name, value in (*self.facts, ("fix", self.fix)):
            if value not in ("", None):
                text = str(value).rstrip("\n").replace("\n", "\n      ")
                lines.append(f"  {name}: {text}" if "\n" not in text else f"  {name}:\n      {text}")
        return "\n".join(lines)


class UsageError(RecipeError):
    """The command line or the catalogue is wrong; nothing was run."""


class TransferError(RecipeError):
    """The bytes did not come."""


class IntegrityError(RecipeError):
    """The bytes came and are not what they must be."""


class NoRoom(RecipeError):
    """The disk has no room for the bytes."""


class ServerError(RecipeError):
    """The engine failed, or cannot be started."""


def nearest(word: str, words: Sequence[str], count: int = 3) -> list[str]:
    """The spellings closest to `word`, best first; empty where none is close."""
    from difflib import get_close_matches  # 4 ms, and only on the way to an error

    folded: dict[str, str] = {w.lower(): w for w in words}
    starts = [w for w in folded if word and w.startswith(word.lower())][:count]
    close = get_close_matches(word.lower(), folded, n=count, cutoff=0.6)
    return [folded[w] for w in dict.fromkeys((*close, *starts))][:count]


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """`did you mean a, b?`, or nothing where no spelling is near."""
    found = nearest(word, words)
    return f"did you mean {', '.join(found)}?" if found else ""
