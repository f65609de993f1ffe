"""How a download is shown: a bar on a terminal, a line every ten seconds elsewhere (R7, R35), and an event
every second for programs (LLAMAFILE_LOG=json)."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Protocol

from tasks.console import formatting
from tasks.console.logs import is_json, say
from tasks.console.tables import size_environ
from tasks.console.text import WORD, visible

LINE_S = 10.0  # between two lines where there is no terminal
EVENT_S = 1.0  # between two events

_log = logging.getLogger("recipe")


class Progress(Protocol):
    """What a transfer tells about itself."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: object) -> None: ...

    def at(self, done: int, total: int | None, note: str = "") -> None:
        """`done` bytes of `total` are here; total is None where nobody says. `note`: a word or two."""


def progress(label: str, have: int) -> Progress:
    """The fitting one for stderr. `have`: bytes that were here before."""
    if is_json():
        return Lines(label, have, EVENT_S)
    return Bar(label, have) if sys.stderr.isatty() else Lines(label, have, LINE_S)


class Lines:
    """Plain lines, for logs; in a log of events, the same as an event."""

    def __init__(self, label: str, have: int, every_s: float) -> None:
        self._label, self._have, self._every_s = label, have, every_s
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def at(self, done: int, total: int | None, note: str = "") -> None:
        """Say something, if it is time."""
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            elapsed, gained = now - self._start, max(0, done - self._have)
            text = formatting.progress(done, total, elapsed, gained, note)
            say("progress", "%s: %s", self._label, text, artifact=self._label, bytes=done, total=total,
                bytes_per_s=round(gained / elapsed), note=note)  # fmt: skip


class Bar:
    """rich's bar: percent, done/total, rate, time left, and a word about how."""

    def __init__(self, label: str, have: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._bar: Any = RichProgress(
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            BarColumn(
                None, table_column=Column(ratio=1, min_width=4, max_width=40)
            ),  # what is left of the line
            TaskProgressColumn("{task.percentage:>3.0f} %"),  # nothing where the size is unknown
            DownloadColumn(table_column=Column(no_wrap=True)),
            TransferSpeedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            TextColumn(
                "{task.fields[note]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, min_width=13),
            ),
            console=Console(file=sys.stderr, _environ=size_environ(os.environ)),
            transient=True,  # what it was is said in a line that stays
            expand=True,
        )
        self._task = self._bar.add_task(visible(label, WORD), total=None, completed=have, note="")

    def __enter__(self) -> Bar:
        self._bar.start()
        _say_above()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        _say_above()

    def at(self, done: int, total: int | None, note: str = "") -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total, note=visible(note, WORD))


def _say_above() -> None:
    """While a bar is shown, rich stands in for stderr and puts messages above it: tell the logger."""
    for handler in _log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
