"""What the recipe says while it works: lines for people, or one JSON object per line (LLAMAFILE_LOG=json).

Every message goes through the logger `recipe`; `say` adds the name of the event and its facts.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import Any

from tasks.console.ci import neutral
from tasks.console.text import visible

_log = logging.getLogger("recipe")


def is_json() -> bool:
    """Whether events were asked for."""
    return os.environ.get("LLAMAFILE_LOG", "").strip().lower() == "json"


def say(event: str, text: str, *args: object, level: int = logging.INFO, **facts: object) -> None:
    """Log a message that is an event.

    Args:
        text: with the arguments, the line that people read.
        facts: what programs read; sizes in bytes, times in seconds.
    """
    _log.log(level, text, *args, extra={"event": event, "facts": facts})


def logger() -> logging.Logger:
    """The recipe's logger, set up for stderr; stdout belongs to reports."""
    if not _log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Json() if is_json() else _Line())
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        _log.propagate = False
    return _log


class _Line(logging.Formatter):
    """The message; it may hold what an engine or a server said."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a text that is safe for a terminal, and has no command for GitHub."""
        return neutral(visible(super().format(record)), os.environ)


class _Json(logging.Formatter):
    """One object per line: time (RFC 3339), level, event, message, and the event's own facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line in which GitHub sees no command."""
        return neutral(super().format(record), os.environ)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        facts: dict[str, Any] = getattr(record, "facts", {})
        data = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            **{key: value for key, value in facts.items() if value not in (None, "")},
        }
        return json.dumps(data, ensure_ascii=False, default=str)
