"""Limits of a YAML document, checked on its events before a tree is built.

A few hundred bytes of aliases can expand to gigabytes, and Python converts long numbers
slowly. Imports yaml. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

# keys and values; 10,000 entries have 50 each; an alias counts as its expansion
MAX_VALUES = 500_000
MAX_TEXT = 32 * 1024 * 1024  # characters of all keys and values
MAX_DEPTH = 32  # of nested lists and mappings; the catalogue needs 6
MAX_DIGITS = 100  # of a number; a digest that has digits only has 64

_NUMBER = re.compile(r"[-+]?[.\d][\w.:+-]*", re.ASCII)


class LimitError(ValueError):
    """A document exceeds a limit; `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        super().__init__(what)


class _Size(NamedTuple):
    """Size of what an anchor names."""

    values: int
    text: int
    height: int = 0


class _Open:
    """A list or mapping whose end event has not come yet."""

    def __init__(self, anchor: str | None, values: int, text: int) -> None:
        self.anchor = anchor
        self.values = values
        self.text = text
        self.height = 1


def check(text: str, loader: Any) -> None:
    """Check that the document is within the limits.

    Args:
        loader: the class that will load it.

    Raises:
        LimitError: it exceeds a limit.
        yaml.YAMLError: it is not YAML.
    """
    values = 0
    size = 0
    anchors: dict[str, _Size] = {}
    stack = [_Open(None, 0, 0)]
    events: Iterator[Any] = yaml.parse(text, Loader=loader)
    for event in events:
        height = 0
        if isinstance(event, yaml.AliasEvent):
            target = anchors.get(event.anchor or "", _Size(1, 0))
            values += target.values
            size += target.text
            height = target.height
        elif isinstance(event, yaml.ScalarEvent):
            _check_number(event)
            values += 1
            size += len(event.value)
            if event.anchor:
                anchors[event.anchor] = _Size(1, len(event.value))
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Open(event.anchor, values, size))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            height = done.height
            if done.anchor:
                own = _Size(values - done.values, size - done.text, height)
                anchors[done.anchor] = own
        stack[-1].height = max(stack[-1].height, height + 1)
        line = event.start_mark.line + 1
        _check_counts(line, values, size, len(stack) - 1 + height)


def _check_counts(line: int, values: int, size: int, depth: int) -> None:
    counting = "counting what each alias expands to"
    if values > MAX_VALUES:
        raise LimitError(line, f"more than {MAX_VALUES:,} values, {counting}")
    if size > MAX_TEXT:
        raise LimitError(line, f"more than {MAX_TEXT:,} characters, {counting}")
    if depth > MAX_DEPTH:
        raise LimitError(line, f"lists and mappings nested more than {MAX_DEPTH} deep")


def _check_number(event: Any) -> None:
    """Reject a number that is too long; text may be that long."""
    if len(event.value) <= MAX_DIGITS:
        return
    has_number_tag = (event.tag or "").endswith((":int", ":float"))
    is_plain = event.implicit[0] and not event.style
    if has_number_tag or (is_plain and _NUMBER.fullmatch(event.value)):
        what = f"a number of more than {MAX_DIGITS} digits; if it is text, quote it"
        raise LimitError(event.start_mark.line + 1, what)
