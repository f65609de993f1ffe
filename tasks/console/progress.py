"""Show a download: a bar on a terminal, lines or events elsewhere (R7, R35)."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Protocol

from tasks.console import formatting
from tasks.console.log_format import is_json
from tasks.console.logs import log_event
from tasks.console.tables import size_environ
from tasks.console.text import WORD, visible

LINE_S = 10.0  # between two lines in a log
EVENT_S = 1.0  # between two events (LLAMAFILE_LOG=json)

_log = logging.getLogger("recipe")


class Progress(Protocol):
    """What a transfer reports to."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: object) -> None: ...

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Report that `done` bytes are here.

        Args:
            total: bytes of the file; None if unknown.
            note: one or two words about the state of the transfer.
        """


def progress(label: str, have: int) -> Progress:
    """Return the progress display that fits stderr.

    Args:
        have: bytes that were here before.
    """
    if is_json(os.environ):
        return LogProgress(label, have, EVENT_S)
    if sys.stderr.isatty():
        return TerminalProgress(label, have)
    return LogProgress(label, have, LINE_S)


class LogProgress:
    """Log a line, which is also an event, at most every few seconds."""

    def __init__(self, label: str, have: int, every_s: float) -> None:
        self._label = label
        self._have = have
        self._every_s = every_s
        self._start = time.monotonic()
        self._last = self._start

    def __enter__(self) -> LogProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Log the state if it is time."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        elapsed = now - self._start
        gained = max(0, done - self._have)
        log_event(
            "progress",
            "%s: %s",
            self._label,
            formatting.format_progress(done, total, elapsed, gained, note),
            artifact=self._label,
            bytes=done,
            total=total,
            bytes_per_s=round(gained / elapsed),
            note=note,
        )


class TerminalProgress:
    """Show rich's bar: percent, done/total, rate, time left, and a note."""

    def __init__(self, label: str, have: int) -> None:
        from rich.console import Console
        from rich.progress import Progress as RichProgress

        self._bar: Any = RichProgress(
            *_columns(),
            console=Console(file=sys.stderr, _environ=size_environ(os.environ)),
            transient=True,  # a log line, which stays, reports the result
            expand=True,
        )
        name = visible(label, WORD)
        self._task = self._bar.add_task(name, total=None, completed=have, note="")

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        _redirect_logs()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        _redirect_logs()

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Move the bar."""
        note = visible(note, WORD)
        self._bar.update(self._task, completed=done, total=total, note=note)


def _columns() -> list[Any]:
    from rich import progress as rich
    from rich.table import Column

    name = Column(no_wrap=True, overflow="ellipsis")
    bar = Column(ratio=1, min_width=4, max_width=40)  # the rest of the line
    note = Column(no_wrap=True, min_width=13)
    return [
        rich.TextColumn("{task.description}", markup=False, table_column=name),
        rich.BarColumn(None, table_column=bar),
        rich.TaskProgressColumn("{task.percentage:>3.0f} %"),  # empty without a total
        rich.DownloadColumn(table_column=Column(no_wrap=True)),
        rich.TransferSpeedColumn(table_column=Column(no_wrap=True)),
        rich.TimeRemainingColumn(compact=True),
        rich.TextColumn(
            "{task.fields[note]}", style="dim", markup=False, table_column=note
        ),
    ]


def _redirect_logs() -> None:
    """Send log lines to the current stderr, which rich replaces while a bar is shown.

    Rich then prints them above the bar.
    """
    for handler in _log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
