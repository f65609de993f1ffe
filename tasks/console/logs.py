"""Log messages on stderr: lines, or one JSON object per line (LLAMAFILE_LOG=json).

Every message goes through the logger `recipe`; `say` adds an event name and its facts.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import Any, TextIO

from tasks.console.ci import escape_workflow_commands
from tasks.console.log_format import is_json
from tasks.console.program import as_typed
from tasks.console.styles import allows_styles, style_message
from tasks.console.text import visible
from tasks.errors import RecipeError

_log = logging.getLogger("recipe")


def log_event(
    event: str, text: str, *args: object, level: int = logging.INFO, **facts: object
) -> None:
    """Log an event.

    Args:
        event: its name, for programs.
        text: a format for `args`; the line that people read.
        facts: for programs; sizes in bytes, times in seconds.
    """
    _log.log(level, text, *args, extra={"event": event, "facts": facts})


def logger() -> logging.Logger:
    """Return the logger, set up for stderr; stdout is for reports."""
    if not _log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        if is_json(os.environ):
            handler.setFormatter(_JsonFormatter())
        else:
            handler.setFormatter(_LineFormatter(is_styled(sys.stderr)))
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        _log.propagate = False
    return _log


def is_styled(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that gets styles."""
    is_terminal = getattr(stream, "isatty", bool)()
    return is_terminal and allows_styles(os.environ, sys.platform)


class _LineFormatter(logging.Formatter):
    """Format a message, which may contain text from an engine or a server."""

    def __init__(self, styled: bool) -> None:
        super().__init__()
        self._styled = styled

    def format(self, record: logging.LogRecord) -> str:
        """Return a line that is safe for a terminal and has no command for GitHub."""
        text = visible(as_typed(super().format(record)))
        if self._styled:
            facts: dict[str, Any] = getattr(record, "facts", {})
            text = style_message(text, visible(str(facts.get("url") or "")))
        return escape_workflow_commands(text, os.environ)


class _JsonFormatter(logging.Formatter):
    """Format a record as an object: time (RFC 3339), level, event, message, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line that has no command for GitHub."""
        return escape_workflow_commands(super().format(record), os.environ)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        message, about = _split(record)
        facts: dict[str, Any] = {**about, **getattr(record, "facts", {})}
        data = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": message,
            **{k: value for k, value in facts.items() if value not in (None, "")},
        }
        return as_typed(json.dumps(data, ensure_ascii=False, default=str))


def _split(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Return a record's message, and the facts and the fix that its text has.

    The level is a field of its own, too.
    """
    text = record.getMessage().strip()
    for level in ("ERROR: ", "warning: "):
        text = text.removeprefix(level)
    errors = [arg for arg in record.args or () if isinstance(arg, RecipeError)]
    if errors:
        return text.replace(str(errors[0]), errors[0].what), errors[0].fields()
    text, _, fix = text.partition("\n  fix: ")
    return text, {"fix": fix}
