"""`doit logs`: show the log of a server that runs or has ended."""

from __future__ import annotations

import sys
from codecs import iterdecode
from collections.abc import Iterable
from itertools import chain
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.context import Context, server_choice
from tasks.errors import ServerError, UsageError
from tasks.server import log_files, logfile, selection, server_registry
from tasks.server.selection import Choice
from tasks.server.server_record import Liveness, ServerRecord
from tasks.system import process_identity

_BYTES = "surrogateescape"  # keeps bytes that are not UTF-8


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, -n is not a number, or several servers
            match.
    """
    choice = server_choice(context, request)
    lines = _count(request.options.get("lines"))
    if context.command_line.tasks:
        _candidates(context.environment.cache, choice)
    return [context, choice, lines, bool(request.options.get("follow"))]


def run(context: Context, choice: Choice, count: int | None, follow: bool) -> None:
    """Write the log to stdout, without control sequences.

    Raises:
        ServerError: there is none, or it cannot be read.
        SystemExit: a signal came while the log was followed (128 + signal).
    """
    from tasks.system.signals import handle_signals

    runs = _candidates(context.environment.cache, choice)
    path = _path(context.environment.cache, choice, runs)
    supervisor = next((record.keeper for record in runs if record.log == path), None)
    stop: list[int] = []
    with handle_signals(stop.append), doit_adapter.ignore_broken_pipe():
        goes_on = lambda: not stop and process_identity.is_alive(supervisor)  # noqa: E731
        try:
            text, end = logfile.last_lines(path, count)
            more: Iterable[bytes] = ()
            if follow:
                more = logfile.follow(path, end, goes_on)
        except OSError as error:
            raise _unreadable(path, error) from None
        texts = iterdecode(chain([text], more), "utf-8", _BYTES)
        for block in doit_adapter.escape_stream(texts):
            sys.stdout.buffer.write(block.encode("utf-8", _BYTES))
            sys.stdout.buffer.flush()
    if stop:
        raise SystemExit(128 + stop[0])


def _candidates(cache: str, choice: Choice) -> list[ServerRecord]:
    """Return the servers that are meant: those that run, else those that have ended.

    Raises:
        UsageError: several run, or several models have run.
    """
    servers = server_registry.list_servers(cache)
    running = [record for record, state in servers if state is Liveness.RUNNING]
    runs = choice.of(running)
    selection.check_unambiguous(runs, choice.names, "logs")
    ended = choice.of(record for record, _ in servers)
    if not runs:
        # the newest of each model
        runs = list({record.name: record for record in ended}.values())
    if len(runs) > 1:
        facts = [(one.name, f"doit logs --model {one.name}") for one in runs]
        what = "several servers have ended, and none runs"
        raise UsageError(what, facts, fix="run one of these commands")
    return runs


def _path(cache: str, choice: Choice, runs: list[ServerRecord]) -> str:
    """Return the path of the newest log; say which one it is if there are others.

    Raises:
        ServerError: there is none.
    """
    paths = [path for name in choice.names for path in log_files.logs(cache, name)]
    if choice.port:
        paths = [path for path in paths if path.endswith(f"-{choice.port}.log")]
    several = len(paths) > 1
    if runs:
        paths = [runs[0].log]
    if paths:
        if several:
            doit_adapter.log().info("the log %s", paths[-1])
        return paths[-1]
    what, fix = "nothing runs here", "doit start"
    if choice.names:
        what = f"{choice.names[0]} has no log on this machine"
        fix = f"doit start --model {choice.names[0]}"
    if choice.port:
        what = f"there is no log of a server on port {choice.port}"
        fix = "`doit status` shows the ports of the servers"
    raise ServerError(what, fix=fix)


def _unreadable(path: str, error: OSError) -> ServerError:
    what = f"cannot read the log {path}: {error.strerror or error}"
    fix = "run it as the user who started the server, or start it again"
    return ServerError(what, fix=fix)


def _count(lines: str | None) -> int | None:
    if lines is None:
        return None
    if not lines.isascii() or not lines.isdigit():
        raise UsageError(f"-n: expected a number of lines, got {lines!r}")
    return int(lines)
