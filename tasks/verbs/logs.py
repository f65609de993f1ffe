"""`doit logs`: show the log of a server that runs or has ended."""

from __future__ import annotations

import sys
from codecs import iterdecode
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from tasks import doit_adapter
from tasks.command_line import Ask
from tasks.context import Recipe, names
from tasks.engine import logfile, server_registry
from tasks.engine.server_record import Run
from tasks.errors import ServerError, UsageError
from tasks.system import process_identity

_BYTES = "surrogateescape"  # keeps bytes that are not UTF-8


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, or -n is not a number.
    """
    name = next(iter(names(recipe, ask)), "")
    lines = _count(ask.options.get("lines"))
    return [recipe, name, lines, bool(ask.options.get("follow"))]


def run(recipe: Recipe, name: str, count: int | None, follow: bool) -> None:
    """Write the log to stdout, without control sequences.

    Raises:
        ServerError: there is none, or it cannot be read.
        SystemExit: a signal came while the log was followed (128 + signal).
    """
    from tasks.system.signals import on_signals

    runs = [run for run, _ in server_registry.found(recipe.place.cache)]
    if name:
        runs = [run for run in runs if run.name == name]
    path = _path(recipe.place.cache, name, runs)
    supervisor = next((run.keeper for run in runs if run.log == path), None)
    stop: list[int] = []
    with on_signals(stop.append), doit_adapter.quiet_pipe():
        text, end = _last_lines(path, count)
        more: Iterable[bytes] = ()
        if follow:
            goes_on = lambda: not stop and process_identity.lives(supervisor)  # noqa: E731
            more = logfile.follow(path, end, goes_on)
        texts = iterdecode(chain([text], more), "utf-8", _BYTES)
        for block in doit_adapter.harmless(texts):
            sys.stdout.buffer.write(block.encode("utf-8", _BYTES))
            sys.stdout.buffer.flush()
    if stop:
        raise SystemExit(128 + stop[0])


def _path(cache: str, name: str, runs: Sequence[Run]) -> str:
    """Return the path of the newest log.

    Raises:
        ServerError: there is none, or no name was given and there are several servers.
    """
    several = dict.fromkeys(run.name for run in runs)
    if not name and len(several) > 1:
        what = f"there are several servers: {', '.join(several)}"
        raise ServerError(what, fix="--model NAME")
    paths = [run.log for run in runs]
    if name and not paths:
        paths = server_registry.logs(cache, name)
    if paths:
        return paths[-1]
    what = "nothing runs here"
    if name:
        what = f"{name} has no log on this machine"
    fix = "`doit status` shows what runs; doit logs --model NAME what ran before"
    raise ServerError(what, fix=fix)


def _last_lines(path: str, count: int | None) -> tuple[bytes, logfile.Mark]:
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
