"""`doit idle`: wait until servers work on no request, before they are stopped."""

from __future__ import annotations

import time
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.context import Context, server_choice
from tasks.errors import ServerError
from tasks.options import seconds
from tasks.server import drain, server_registry
from tasks.server.selection import Choice
from tasks.server.server_record import ServerRecord, ServerState

_LIMIT_S = 300


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, or --timeout is not a number.
    """
    choice = server_choice(context, request)
    limit_s = seconds("timeout", request.options.get("timeout", str(_LIMIT_S)))
    return [context, choice, limit_s, bool(request.options.get("json"))]


def run(context: Context, choice: Choice, limit_s: int, as_json: bool) -> None:
    """Wait for the servers of the named models, or all; one that has ended is idle.

    Args:
        limit_s: most seconds for all of them.
        as_json: print each server's requests to stdout.

    Raises:
        ServerError: a server does not tell what it works on.
        SystemExit: 1 if a server is not idle in time.
    """
    deadline = time.monotonic() + limit_s
    running = choice.of(server_registry.running(context.environment.cache))
    if not running:
        doit_adapter.log().info("nothing runs")
    rows = []
    for server in running:
        requests = _wait(context.environment.cache, server, deadline)
        rows.append({"model": server.name, "url": server.url, "requests": requests})
    if as_json:
        doit_adapter.print_json(rows)
    busy = [row for row in rows if row["requests"]]
    most = formatting.format_duration(limit_s)
    for row in busy:
        text = "%s at %s still works after %s: %s"
        doit_adapter.log().error(text, row["model"], row["url"], most, row["requests"])
    if busy:
        raise SystemExit(1)


def _wait(cache: str, server: ServerRecord, deadline: float) -> int:
    """Wait until a server is idle; return how many requests are left."""
    left = max(0.0, deadline - time.monotonic())
    requests = drain.wait_idle(lambda: _count(cache, server), left)
    if requests is not None:
        return requests
    what = f"{server.name} at {server.url} does not tell what it works on"
    meant = f"--port {server.port}"
    fix = f"`doit logs {meant}` shows why, `doit restart {meant}` starts it again"
    raise ServerError(what, fix=fix)


def _count(cache: str, server: ServerRecord) -> int | None:
    """Return the requests of a server: 0 where it has ended or loads.

    One that stops accepts no question, and works until it has ended.
    """
    now = {record.mark: record for record in server_registry.running(cache)}
    record = now.get(server.mark)
    if record is None or record.state is ServerState.STARTING:
        return 0
    if record.state is ServerState.STOPPING:
        return 1
    return drain.requests_of(server)
