"""Format tables to the width of the terminal."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.console.text import WORD, Styled, visible

if TYPE_CHECKING:
    from rich.text import Text

_PIPE_WIDTH = 160  # columns, if stdout is not a terminal
_MIN_LAST = 10  # columns of the last column
_GAP = 2  # blanks between columns


class Limit(NamedTuple):
    """How far a column of a table gives way on a narrow terminal."""

    least: int = 0  # characters to which it may be shortened; 0: it is never shortened
    optional: bool = False  # it may be left out


def size_environ(env: Mapping[str, str]) -> dict[str, str]:
    """Drop terminal sizes that rich accepts as numbers and Python does not: `²`."""
    sizes = ("COLUMNS", "LINES")
    return {k: v for k, v in env.items() if k not in sizes or v.isascii()}


def terminal_width() -> int | None:
    """Return the columns of the terminal; None if stdout is not a terminal."""
    console = _console()
    if console.is_terminal:
        return int(console.width)
    return None


def fit(widths: Sequence[int], limits: Sequence[Limit], width: int) -> dict[int, int]:
    """Return the width of each column that is shown, by its index.

    Optional columns are left out, the first one first, until the shortest form of the
    table fits. Then the longest columns are shortened. If that is not enough, the table
    is wider than the terminal, which wraps it: a value is never lost silently.

    Args:
        widths: of the columns' longest cells, in characters.
        width: of the terminal.
    """
    least = [min(w, limit.least or w) for w, limit in zip(widths, limits, strict=True)]
    shown = list(range(len(widths)))
    optional = [index for index in shown if limits[index].optional]
    while optional and _total([least[index] for index in shown]) > width:
        shown.remove(optional.pop(0))
    fitted = {index: widths[index] for index in shown}
    while _total(fitted.values()) > width:
        longer = [index for index in shown if fitted[index] > least[index]]
        if not longer:
            break
        fitted[max(longer, key=lambda index: fitted[index])] -= 1
    return fitted


def render_table(
    titles: Sequence[str], rows: Sequence[Sequence[Text]], limits: Sequence[Limit] = ()
) -> Styled:
    """Format a table to the width of the terminal.

    Args:
        titles: of the columns; one that begins with > is right-aligned.
        limits: of the columns; without them only the last one is shortened.
    """
    limits = limits or [*[Limit()] * (len(titles) - 1), Limit(_MIN_LAST)]
    for cell in chain(*rows):
        cell.plain = visible(cell.plain, WORD)
    widths = [
        max(len(title.lstrip(">")), *(cell.cell_len for cell in cells))
        for title, *cells in zip(titles, *rows, strict=True)
    ]
    console = _console()
    fitted = fit(widths, limits, console.width)
    # rich would drop columns that do not fit
    console.width = max(console.width, _total(fitted.values()))
    with console.capture() as output:
        console.print(_grid(titles, rows, fitted))
    lines = output.get().rstrip().split("\n")
    omitted = [title for n, title in enumerate(titles) if n not in fitted]
    if omitted:
        names = ", ".join(title.lstrip(">") for title in omitted)
        lines.append(f"not shown, as the terminal is too narrow: {names}")
    # a row ends where its text ends; styles of a terminal end behind their blanks
    return Styled("\n".join(line.rstrip() for line in lines))


def _total(widths: Collection[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _console() -> Any:
    from rich.console import Console

    console: Any = Console(_environ=size_environ(os.environ))
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def _grid(
    titles: Sequence[str], rows: Sequence[Sequence[Text]], widths: Mapping[int, int]
) -> Any:
    from rich.table import Table

    grid: Any = Table(
        box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold"
    )
    for index, width in widths.items():
        title = titles[index]
        justify = "left"
        if title.startswith(">"):
            justify = "right"
        grid.add_column(
            title.lstrip(">"),
            justify=justify,
            no_wrap=True,
            overflow="ellipsis",
            width=width,
        )
    for row in rows:
        grid.add_row(*(row[index] for index in widths))
    return grid
