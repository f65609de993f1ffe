"""Tables for people, as wide as the terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.console.text import WORD, Styled, visible

if TYPE_CHECKING:
    from rich.text import Text


def size_environ(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without sizes that rich takes for numbers and Python does not, such as `²`."""
    return {k: v for k, v in env.items() if k not in ("COLUMNS", "LINES") or v.isascii()}


def table(titles: Sequence[str], rows: Sequence[Sequence[Text]]) -> Styled:
    """A table of which only the last column gives way; a pipe has no width, and lines stay whole there.

    Args:
        titles: of the columns; one that begins with > is set flush right.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(_environ=size_environ(os.environ))
    if not console.is_terminal:
        console = Console(width=160, _environ=size_environ(os.environ))
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify = "right" if title.startswith(">") else "left"
        grid.add_column(title.lstrip(">"), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        for cell in row:
            cell.plain = visible(cell.plain, WORD)
        for cell, column in zip(row[:-1], grid.columns, strict=False):
            column.min_width = max(column.min_width or len(str(column.header)), cell.cell_len)
        grid.add_row(*row)
    taken = sum((column.min_width or 0) + 2 for column in grid.columns[:-1])
    console.width = max(
        console.width, taken + 10
    )  # the terminal breaks what does not fit; rich would drop it
    grid.columns[-1].max_width = console.width - taken
    grid.columns[-1].overflow = "ellipsis"
    with console.capture() as shown:
        console.print(grid)
    return Styled(shown.get().rstrip())
