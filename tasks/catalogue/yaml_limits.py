"""Bounds on a YAML document, checked on its events before a tree is built.

A few hundred bytes of aliases can stand for gigabytes, and Python converts long numbers slowly.
Costs as much to import as yaml does. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

VALUES = 500_000  # keys and values, 50 for each of 10,000 entries; an alias counts as all it stands for
TEXT = 32 * 1024 * 1024  # characters of all of them together
DEPTH = 32  # of lists and mappings in each other; the catalogue needs 6
DIGITS = 100  # of a number; a digest of digits alone has 64

_NUMBER = re.compile(r"[-+]?[.\d][\w.:+-]*", re.ASCII)


class LimitError(ValueError):
    """A document is beyond a limit; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


class _Open:
    """A list or mapping whose end has not come yet."""

    def __init__(self, anchor: str | None, values: int, text: int) -> None:
        self.anchor, self.values, self.text, self.height = anchor, values, text, 1


def check(text: str, loader: Any) -> None:
    """See that the document is within the limits.

    Args:
        loader: the class that will read it.

    Raises:
        LimitError: it is beyond one.
        yaml.YAMLError: it is not YAML.
    """
    values, size = 0, 0
    known: dict[str, tuple[int, int, int]] = {}  # anchor → values, text, height
    stack = [_Open(None, 0, 0)]
    events: Iterator[Any] = yaml.parse(text, Loader=loader)
    for event in events:
        height = 0
        if isinstance(event, yaml.AliasEvent):
            more, characters, height = known.get(event.anchor or "", (1, 0, 0))
            values, size = values + more, size + characters
        elif isinstance(event, yaml.ScalarEvent):
            _check_number(event)
            values, size = values + 1, size + len(event.value)
            if event.anchor:
                known[event.anchor] = (1, len(event.value), 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Open(event.anchor, values, size))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            height = done.height
            if done.anchor:
                known[done.anchor] = (values - done.values, size - done.text, height)
        stack[-1].height = max(stack[-1].height, height + 1)
        _check_counts(event.start_mark.line + 1, values, size, len(stack) - 1 + height)


def _check_counts(line: int, values: int, size: int, depth: int) -> None:
    if values > VALUES:
        raise LimitError(line, f"more than {VALUES:,} values, counting what each alias stands for")
    if size > TEXT:
        raise LimitError(line, f"more than {TEXT:,} characters, counting what each alias stands for")
    if depth > DEPTH:
        raise LimitError(line, f"lists and mappings more than {DEPTH} deep")


def _check_number(event: Any) -> None:
    """Refuse a number that is too long; text of that length is fine."""
    if len(event.value) <= DIGITS:
        return
    is_number = (event.tag or "").endswith((":int", ":float"))
    is_plain = event.implicit[0] and not event.style and _NUMBER.fullmatch(event.value)
    if is_number or is_plain:
        what = f"a number of more than {DIGITS} digits; if it is text, put it in quotes"
        raise LimitError(event.start_mark.line + 1, what)
