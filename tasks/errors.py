"""Define the exceptions. Pure, without imports from tasks: any layer may use it.

RecipeError              its text is the whole message: what failed, facts, fix
  UsageError             wrong command line or catalogue: nothing was run, exit 3
  TransferError          the download failed; a retry may succeed
  IntegrityError         the bytes are wrong; a plain retry does not help
  NoRoomError            the disk has too little free space
  ServerError            the engine failed, or cannot be started
"""

from __future__ import annotations

from collections.abc import Sequence

_INDENT = "\n      "  # of a fact with several lines


class RecipeError(Exception):
    """A failure that a user can understand and fix.

    Args:
        what: one line: what failed, and where.
        facts: (name, value) pairs, one line each; a value of several lines is indented.
        fix: the command or the edit that fixes it.
    """

    def __init__(
        self, what: str, facts: Sequence[tuple[str, object]] = (), fix: str = ""
    ) -> None:
        self.what = what
        self.facts = tuple(facts)
        self.fix = fix
        super().__init__(self.render())

    def render(self) -> str:
        """Return the message as it is printed; empty facts are omitted."""
        lines = [self.what]
        for name, value in (*self.facts, ("fix", self.fix)):
            if value in ("", None):
                continue
            text = str(value).rstrip("\n")
            if "\n" in text:
                lines.append(f"  {name}:{_INDENT}" + text.replace("\n", _INDENT))
            else:
                lines.append(f"  {name}: {text}")
        return "\n".join(lines)

    def fields(self) -> dict[str, object]:
        """Return the facts and the fix, for a log in JSON; an absent one is None.

        A fact that occurs twice has its values on separate lines.
        """
        facts: dict[str, str] = {}
        for name, value in self.facts:
            if value in ("", None):
                continue
            text = str(value).rstrip("\n")
            if name in facts:
                text = f"{facts[name]}\n{text}"
            facts[name] = text
        return {"facts": facts or None, "fix": self.fix or None}


class UsageError(RecipeError):
    """The command line or the catalogue is wrong; nothing was run."""


class TransferError(RecipeError):
    """The download failed; a retry may succeed."""


class IntegrityError(RecipeError):
    """The bytes differ from what they must be."""


class NoRoomError(RecipeError):
    """The disk has too little free space."""


class ServerError(RecipeError):
    """The engine failed, or cannot be started."""


def nearest(word: str, words: Sequence[str], count: int = 3) -> list[str]:
    """Return the spellings closest to `word`, best first; empty if none is close."""
    from difflib import get_close_matches  # 4 ms, needed only for error messages

    spellings = {candidate.lower(): candidate for candidate in words}
    typed = word.lower()
    close = get_close_matches(typed, spellings, n=count, cutoff=0.6)
    starts = [key for key in spellings if typed and key.startswith(typed)]
    matches = dict.fromkeys((*close, *starts[:count]))
    return [spellings[key] for key in matches][:count]


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """Return `did you mean a, b?`, or an empty text if no spelling is close."""
    matches = nearest(word, words)
    return f"did you mean {', '.join(matches)}?" if matches else ""
