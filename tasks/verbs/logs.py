"""`doit logs`: what a server has printed, also one that has ended."""

from __future__ import annotations

import sys
from codecs import iterdecode
from itertools import chain
from typing import Any

from tasks import doit_adapter
from tasks.command_line import Ask
from tasks.context import Recipe, names
from tasks.engine import logfile, server_registry
from tasks.errors import ServerError, UsageError
from tasks.system import process_identity

_BYTES = "surrogateescape"  # every byte, there and back


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`. Raises UsageError: no such model, or not a number."""
    named = names(recipe, ask)
    lines = _count(ask.options.get("lines"))
    return [recipe, named[0] if named else "", lines, bool(ask.options.get("follow"))]


def run(recipe: Recipe, name: str, count: int | None, follow: bool) -> None:
    """Write the log to stdout, as it is.

    Raises:
        ServerError: there is none, or it cannot be read.
        SystemExit: a signal came while it was followed (128 + signal).
    """
    from tasks.system.signals import on_signals

    cache = recipe.place.cache
    known = [one for one, _ in server_registry.found(cache) if not name or one.name == name]
    paths = [one.log for one in known] or (server_registry.logs(cache, name) if name else [])
    if not paths:
        what = f"{name} has no log on this machine" if name else "nothing runs here"
        raise ServerError(what, fix="`doit status` shows what runs; doit logs --model NAME what ran before")
    if not name and len({one.name for one in known}) > 1:
        several = ", ".join(dict.fromkeys(one.name for one in known))
        raise ServerError(f"there are several servers: {several}", fix="--model NAME")
    path = paths[-1]
    keeper = next((one.keeper for one in known if one.log == path), None)
    stop: list[int] = []
    with on_signals(stop.append), doit_adapter.quiet_pipe():
        text, end = _last_lines(path, count)
        more = (
            logfile.follow(path, end, lambda: not stop and process_identity.lives(keeper)) if follow else ()
        )
        for block in doit_adapter.harmless(iterdecode(chain([text], more), "utf-8", _BYTES)):
            sys.stdout.buffer.write(block.encode("utf-8", _BYTES))
            sys.stdout.buffer.flush()
    if stop:
        raise SystemExit(128 + stop[0])


def _last_lines(path: str, count: int | None) -> tuple[bytes, logfile.Mark]:
    try:
        return logfile.last_lines(path, count)
    except OSError as error:
        what = f"cannot read the log {path}: {error.strerror or error}"
        raise ServerError(what, fix="run it as the user who started the server, or start it again") from None


def _count(lines: str | None) -> int | None:
    if lines is None:
        return None
    if not lines.isascii() or not lines.isdigit():
        raise UsageError(f"-n: expected a number of lines, got {lines!r}")
    return int(lines)
