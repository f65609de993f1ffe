"""Read the options that concern a server as a process. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.catalogue.settings import api_key_error
from tasks.command_line import TaskRequest
from tasks.errors import UsageError
from tasks.options import seconds

LAST_PORT = 65535
DRAIN_S = 20  # with the steps of a stop, less than the 30 s that Kubernetes waits


def drain_of(request: TaskRequest) -> int:
    """Return how long a stop waits; `with` and `chat` end after their last answer."""
    if request.verb not in ("serve", "start", "restart", "roll"):
        return 0
    return seconds("drain", request.options.get("drain", str(DRAIN_S)))


def replicas_of(options: Mapping[str, Any], port: int | None) -> int:
    """Return how many servers of a model are asked for.

    Raises:
        UsageError: it is not a number from 1 to 99, or there are not so many ports.
    """
    text = options.get("replicas", "1")
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 3 and int(text)):
        what = f"--replicas: expected a number from 1 to 99, got {text!r}"
        raise UsageError(what, fix="--replicas 2")
    last = (port or 0) + int(text) - 1
    if last > LAST_PORT:
        what = f"--replicas {text}: the last port would be {last}"
        raise UsageError(what, fix=f"--port {LAST_PORT - int(text) + 1}")
    return int(text)


def api_key(options: Mapping[str, Any]) -> str:
    """Return the value of --api-key, or an empty string.

    Raises:
        UsageError: it is not a valid key.
    """
    if "api_key" not in options:
        return ""
    key: str = options["api_key"]
    problem = api_key_error(key)
    if problem:
        raise UsageError(f"--api-key: {problem}")
    return key
