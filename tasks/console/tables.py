"""Format tables to the width of the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.console.text import WORD, Styled, visible

if TYPE_CHECKING:
    from rich.text import Text

_PIPE_WIDTH = 160  # columns, if stdout is not a terminal
_MIN_LAST = 10  # columns of the last column


def size_environ(env: Mapping[str, str]) -> dict[str, str]:
    """Drop terminal sizes that rich accepts as numbers and Python does not: `²`."""
    sizes = ("COLUMNS", "LINES")
    return {k: v for k, v in env.items() if k not in sizes or v.isascii()}


def render_table(titles: Sequence[str], rows: Sequence[Sequence[Text]]) -> Styled:
    """Format a table; only its last column is shortened to fit.

    Args:
        titles: of the columns; one that begins with > is right-aligned.
    """
    console = _console()
    grid = _grid(titles, rows)
    taken = sum((column.min_width or 0) + 2 for column in grid.columns[:-1])
    # rich would drop columns that do not fit; a terminal wraps them
    console.width = max(console.width, taken + _MIN_LAST)
    grid.columns[-1].max_width = console.width - taken
    grid.columns[-1].overflow = "ellipsis"
    with console.capture() as output:
        console.print(grid)
    lines = output.get().rstrip().split("\n")
    # a row ends where its text ends; styles of a terminal end behind their blanks
    return Styled("\n".join(line.rstrip() for line in lines))


def _console() -> Any:
    from rich.console import Console

    env = size_environ(os.environ)
    console = Console(_environ=env)
    if console.is_terminal:
        return console
    return Console(width=_PIPE_WIDTH, _environ=env)


def _grid(titles: Sequence[str], rows: Sequence[Sequence[Text]]) -> Any:
    from rich.table import Table

    grid: Any = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify = "right" if title.startswith(">") else "left"
        grid.add_column(title.lstrip(">"), justify=justify, no_wrap=True)
    for row in rows:
        for cell in row:
            cell.plain = visible(cell.plain, WORD)
        for cell, column in zip(row[:-1], grid.columns, strict=False):
            width = column.min_width or len(str(column.header))
            column.min_width = max(width, cell.cell_len)
        grid.add_row(*row)
    return grid
