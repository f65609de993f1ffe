"""`checks:` of a model: questions, and what the answers must have. Pure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tasks.catalogue.constraints import Constraint, between
from tasks.catalogue.serve_options import Strict

MOST_CHECKS = 50
_MOST_TEXT = 4000  # characters of a question, or of an expected text
_MOST_PATTERN = 500
_SPAN = {"minLength": 1, "maxLength": _MOST_TEXT}


def _text(about: str) -> Constraint:
    """Return the constraint of a text of a sensible length."""
    expected = f"text of 1 to {_MOST_TEXT} characters"
    return Constraint(about, expected, lambda v: 0 < len(v) <= _MOST_TEXT, _SPAN)


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression of Python that is not too long."""
    if not 0 < len(text) <= _MOST_PATTERN:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of what a later Python reads differently
            re.compile(text)
    except (re.error, Warning, OverflowError, RecursionError, ValueError):
        return False
    return True


_PATTERN = Constraint(
    "regular expression that is found in the answer",
    f"a regular expression of Python, up to {_MOST_PATTERN} characters",
    is_pattern,
    {"minLength": 1, "maxLength": _MOST_PATTERN},
)


@dataclass(eq=False, repr=False)
class Check(Strict):
    """One entry of `checks:`."""

    ask: Annotated[str, _text("the question")]
    contains: Annotated[str | None, _text("text that the answer has")] = None
    matches: Annotated[str | None, _PATTERN] = None
    system: Annotated[str | None, _text("system prompt")] = None
    max_seconds: Annotated[
        float, between(0.1, 3600, "seconds until the answer is complete [120]")
    ] = 120
    temperature: Annotated[float, between(0, 10, "0: the likeliest token [0]")] = 0

    @property
    def expected(self) -> str:
        """What the answer must have, for people."""
        if self.contains is not None:
            return f"contains {self.contains!r}"
        return f"matches {self.matches}"


CHECKS = Constraint(
    "questions that it must answer, for doit check",
    f"at most {MOST_CHECKS} checks",
    lambda checks: len(checks) <= MOST_CHECKS,
    {"maxItems": MOST_CHECKS},
)


def check_errors(entry: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with `checks:` of an entry, beyond the types."""
    checks = entry.get("checks")
    if not isinstance(checks, list) or not checks:
        return
    kind = entry.get("kind", "chat")
    if kind in ("embedding", "rerank"):
        yield ("checks",), f"only for kind: chat, and this is kind: {kind}"
    for index, check in enumerate(checks):
        if not isinstance(check, dict):
            continue
        given = [key for key in ("contains", "matches") if check.get(key) is not None]
        if len(given) != 1:
            yield ("checks", str(index)), "expected either contains or matches"
