"""`doit logs`: show the log of a server that runs or has ended."""

from __future__ import annotations

import sys
from codecs import iterdecode
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.context import Context, server_names
from tasks.engine import logfile, server_registry
from tasks.engine.server_record import ServerRecord
from tasks.errors import ServerError, UsageError
from tasks.system import process_identity

_BYTES = "surrogateescape"  # keeps bytes that are not UTF-8


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, or -n is not a number.
    """
    name = next(iter(server_names(context, request)), "")
    lines = _count(request.options.get("lines"))
    return [context, name, lines, bool(request.options.get("follow"))]


def run(context: Context, name: str, count: int | None, follow: bool) -> None:
    """Write the log to stdout, without control sequences.

    Raises:
        ServerError: there is none, or it cannot be read.
        SystemExit: a signal came while the log was followed (128 + signal).
    """
    from tasks.system.signals import handle_signals

    runs = [
        record for record, _ in server_registry.list_servers(context.environment.cache)
    ]
    if name:
        runs = [record for record in runs if record.name == name]
    path = _path(context.environment.cache, name, runs)
    supervisor = next((record.keeper for record in runs if record.log == path), None)
    stop: list[int] = []
    with handle_signals(stop.append), doit_adapter.ignore_broken_pipe():
        text, end = _last_lines(path, count)
        more: Iterable[bytes] = ()
        if follow:
            goes_on = lambda: not stop and process_identity.is_alive(supervisor)  # noqa: E731
            more = logfile.follow(path, end, goes_on)
        texts = iterdecode(chain([text], more), "utf-8", _BYTES)
        for block in doit_adapter.escape_stream(texts):
            sys.stdout.buffer.write(block.encode("utf-8", _BYTES))
            sys.stdout.buffer.flush()
    if stop:
        raise SystemExit(128 + stop[0])


def _path(cache: str, name: str, runs: Sequence[ServerRecord]) -> str:
    """Return the path of the newest log.

    Raises:
        ServerError: there is none, or no name was given and there are several servers.
    """
    several = dict.fromkeys(record.name for record in runs)
    if not name and len(several) > 1:
        what = f"there are several servers: {', '.join(several)}"
        raise ServerError(what, fix="--model NAME")
    paths = [record.log for record in runs]
    if name and not paths:
        paths = server_registry.logs(cache, name)
    if paths:
        return paths[-1]
    what = "nothing runs here"
    if name:
        what = f"{name} has no log on this machine"
    fix = "`doit status` shows what runs; doit logs --model NAME what ran before"
    raise ServerError(what, fix=fix)


def _last_lines(path: str, count: int | None) -> tuple[bytes, logfile.LogPosition]:
    try:
        return logfile.last_lines(path, count)
    except OSError as error:
        what = f"cannot read the log {path}: {error.strerror or error}"
        fix = "run it as the user who started the server, or start it again"
        raise ServerError(what, fix=fix) from None


def _count(lines: str | None) -> int | None:
    if lines is None:
        return None
    if not lines.isascii() or not lines.isdigit():
        raise UsageError(f"-n: expected a number of lines, got {lines!r}")
    return int(lines)
