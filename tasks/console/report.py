"""Describe a report once: a table for people, and JSON for programs.

A verb builds the rows, which are values as JSON has them, and hands them over with the
columns of the table. `doit_adapter.show_report` prints one of the two forms.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.console.tables import Limit, render_table, terminal_width
from tasks.console.text import LINES, Styled, visible

Row = Mapping[str, Any]


def _no_style(_: Row) -> str:
    return ""


class Column(NamedTuple):
    """One column of the table: which value of a row it has, and how it is shown."""

    key: str  # of the value in a row
    title: str  # one that begins with > is right-aligned
    show: Callable[[Any], str] = str  # for people, of a value that is known
    unknown: str = ""  # for people, of a value that is null or missing
    describe: Callable[[Row], str] | None = None  # instead, where one value is too few
    style: Callable[[Row], str] = _no_style  # of rich
    least: int = 0  # characters to which it may be shortened; 0: it is never shortened
    optional: bool = False  # left out on a terminal that is too narrow

    def text(self, row: Row) -> str:
        """Return the text of its cell."""
        if self.describe:
            return self.describe(row)
        value = row.get(self.key)
        if value is None:
            return self.unknown
        return self.show(value)


class Fact(NamedTuple):
    """A line of text beside the table, wrapped to the width of a terminal.

    A command is a plain str instead, which is not wrapped: a user copies it.
    """

    lead: str  # such as `memory   `: further lines are indented by its length
    text: str


class Report(NamedTuple):
    """What a verb reports."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]
    facts: Sequence[Fact | str] = ()  # below the table
    empty: str = ""  # instead of a table without rows
    data: object = None  # for JSON; None: the rows

    def as_json(self) -> object:
        """Return what programs get: values, no text that was formatted for people."""
        if self.data is None:
            return list(self.rows)
        return self.data

    def as_text(self) -> list[str]:
        """Return what people get: the table and the facts, a block each."""
        blocks: list[str] = []
        if self.rows:
            blocks.append(_table(self.columns, self.rows))
        elif self.empty:
            blocks.append(self.empty)
        width = terminal_width()
        return [*blocks, *(_line(fact, width) for fact in self.facts)]


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> Styled:
    from rich.text import Text

    cells = [
        [Text(column.text(row), column.style(row)) for column in columns]
        for row in rows
    ]
    titles = [column.title for column in columns]
    limits = [Limit(column.least, column.optional) for column in columns]
    return render_table(titles, cells, limits)


def _line(fact: Fact | str, width: int | None) -> str:
    """Return a fact as text.

    Args:
        width: of the terminal; None if stdout is something else.
    """
    if isinstance(fact, str):
        return fact
    line = visible(fact.lead + fact.text, LINES)
    if width is None:
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * len(fact.lead),
        break_long_words=False,
        break_on_hyphens=False,
    )
