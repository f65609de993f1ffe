"""`doit status`: list the servers and their states."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.text import Styled
from tasks.context import Context, server_choice
from tasks.engine import server_registry
from tasks.engine.selection import Choice
from tasks.engine.server_record import Liveness, ServerRecord, ServerState


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    choice = server_choice(context, request)
    return [context, choice, bool(request.options.get("json"))]


def run(context: Context, choice: Choice, as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        SystemExit: 1 unless all servers are ready: those of the named models, or
            without names all that there are, at least one.
    """
    server_registry.drop_keys(context.environment.cache)
    rows = [
        _row(record, liveness)
        for record, liveness in server_registry.list_servers(context.environment.cache)
        if choice.of([record])
    ]
    for name in choice.names:
        if name not in {row["model"] for row in rows}:
            rows.append({"model": name, "state": ServerState.STOPPED.value})
    if as_json:
        doit_adapter.print_json(rows)
    elif rows:
        doit_adapter.print_report(_table(rows))
    else:
        hint = "  doit start --model NAME    starts a server in the background"
        where = ""
        if choice.port:
            where = f" on port {choice.port}"
        doit_adapter.print_report(f"nothing runs{where}\n{hint}")
    ready = {row["model"] for row in rows if row["state"] == ServerState.READY.value}
    if not rows or {row["model"] for row in rows} - ready:
        raise SystemExit(1)


def _row(record: ServerRecord, liveness: Liveness) -> dict[str, Any]:
    """Return the facts about one server, as JSON has them."""
    row: dict[str, Any] = {"model": record.name, "by": f"doit {record.mode.value}"}
    if "--variant" in record.spec:
        row["variant"] = record.spec["--variant"]
    if liveness is not Liveness.RUNNING:
        ended = {"ended": record.ended, "ended_at": record.ended_at, "log": record.log}
        return {**row, "state": ServerState.STOPPED.value, **ended}
    state, requests = _state_and_requests(record)
    pid = None
    if record.engine:
        pid = record.engine.pid
    uptime_s = None
    if record.since:
        uptime_s = round(time.time() - record.since)
    return {
        **row,
        "state": state.value,
        "url": record.url,
        "pid": pid,
        "uptime_s": uptime_s,
        "memory": _memory(pid or 0),
        "engine": record.spec.get("--engine"),
        "requests": requests,
        "log": record.log,
    }


def _state_and_requests(record: ServerRecord) -> tuple[ServerState, int | None]:
    """Return the state, and of a ready server the number of requests in progress."""
    from tasks.engine import client

    if record.state is not ServerState.READY:
        return record.state, None
    if client.health(record.host, record.port) != 200:
        return ServerState.UNHEALTHY, None
    return ServerState.READY, client.in_flight(record.host, record.port, record.key)


def _memory(pid: int) -> int | None:
    """Return the bytes of memory of a process and its descendants."""
    import psutil

    try:
        root = psutil.Process(pid)
        processes = (root, *root.children(recursive=True))
        return sum(process.memory_info().rss for process in processes)
    except psutil.Error:
        return None


def _table(rows: list[dict[str, Any]]) -> Styled:
    from rich.text import Text

    from tasks.console.tables import render_table

    colours = {"ready": "green", "stopped": "dim", "unhealthy": "red"}
    titles = (
        "model",
        "state",
        "endpoint",
        "pid",
        ">uptime",
        ">memory",
        ">requests",
        "engine",
    )
    cells = [
        [
            Text(f"{row['model']} {row.get('variant', '')}".strip()),
            Text(_state(row), colours.get(row["state"], "yellow")),
            Text(row.get("url") or ""),
            Text(str(row.get("pid") or "")),
            Text(_cell(formatting.format_duration, row.get("uptime_s"))),
            Text(_cell(formatting.format_size, row.get("memory") or None)),
            Text(_cell(str, row.get("requests"))),
            Text(row.get("engine") or ""),
        ]
        for row in rows
    ]
    return render_table(titles, cells)


def _cell(text: Callable[[Any], str], value: object) -> str:
    """Return the text of a value; empty if it is not known."""
    if value is None:
        return ""
    return text(value)


def _state(row: dict[str, Any]) -> str:
    """Return the state; of a server that ended by itself also its exit status."""
    if row.get("ended") is None:
        return str(row["state"])
    from tasks.system.exit_status import status_text

    ago = formatting.format_duration(max(0.0, time.time() - (row["ended_at"] or 0)))
    return f"{row['state']} ({status_text(row['ended'])}, {ago} ago)"
