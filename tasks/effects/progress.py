"""How a download is shown: a bar on a terminal, a line every ten seconds elsewhere (R7, R35)."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Protocol

from tasks.core import report

LINE_S = 10.0  # between two lines where there is no terminal

_log = logging.getLogger("recipe")


class Progress(Protocol):
    """What a transfer tells about itself."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: object) -> None: ...

    def at(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` are here; total is None where nobody says."""


def progress(label: str, have: int) -> Progress:
    """The fitting one for stderr. `have`: bytes that were here before."""
    return Bar(label, have) if sys.stderr.isatty() else Lines(label, have)


class Lines:
    """Plain lines, for logs."""

    def __init__(self, label: str, have: int) -> None:
        self._label, self._have = label, have
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def at(self, done: int, total: int | None) -> None:
        """Say something, if it is time."""
        now = time.monotonic()
        if now - self._last >= LINE_S:
            self._last = now
            gained = max(0, done - self._have)
            _log.info("%s: %s", self._label, report.progress(done, total, now - self._start, gained))


class Bar:
    """rich's bar: percent, done/total, rate, time left."""

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

        self._bar: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn("{task.percentage:>3.0f} %"),  # nothing where the size is unknown
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task(label, total=None, completed=have)

    def __enter__(self) -> Bar:
        self._bar.start()
        _say_above()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        _say_above()

    def at(self, done: int, total: int | None) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total)


def _say_above() -> None:
    """While a bar is shown, rich stands in for stderr and puts messages above it: tell the logger."""
    for handler in _log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
