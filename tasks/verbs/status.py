"""`doit status`: list the servers and their states."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.report import Column, Report, Row
from tasks.context import Context, server_choice
from tasks.engine.environment import system_config
from tasks.server import router_report, server_registry
from tasks.server.router_report import is_router
from tasks.server.selection import Choice
from tasks.server.server_record import Liveness, ServerRecord, ServerState


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
    report = Report(
        _COLUMNS, rows, list(router_report.all_lines(rows)), empty=_nothing(choice)
    )
    doit_adapter.show_report(report, as_json)
    config = system_config(os.environ, sys.platform)
    if rows and os.path.exists(config):
        text = "warning: %s changes the settings of llama.cpp's servers on this machine"
        doit_adapter.log().warning(text, config)
    ready = {row["model"] for row in rows if row["state"] == ServerState.READY.value}
    if not rows or not all(_is_well(row, ready) for row in rows):
        raise SystemExit(1)


def _is_well(row: dict[str, Any], ready: set[str]) -> bool:
    """Whether a server is ready; one that has ended may have a successor."""
    if row["state"] == ServerState.STOPPED.value:
        return row["model"] in ready
    return bool(row["state"] == ServerState.READY.value)


def _nothing(choice: Choice) -> str:
    """Return what people are told where no server runs."""
    hint = "  doit start --model NAME    starts a server in the background"
    where = ""
    if choice.port:
        where = f" on port {choice.port}"
    return f"nothing runs{where}\n{hint}"


def _row(record: ServerRecord, liveness: Liveness) -> dict[str, Any]:
    """Return the facts about one server, as JSON has them."""
    row: dict[str, Any] = {"model": record.name, "by": f"doit {record.mode.value}"}
    if "--variant" in record.spec:
        row["variant"] = record.spec["--variant"]
    if liveness is not Liveness.RUNNING:
        ended = {"ended": record.ended, "ended_at": record.ended_at, "log": record.log}
        return {**row, "state": ServerState.STOPPED.value, **ended}
    state, requests = _state_and_requests(record)
    if state is ServerState.READY and is_router(record):
        models = router_report.model_rows(record)
        state, requests = router_report.state_and_requests(models)
        row["models"] = models
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
    from tasks.server import client

    if record.state is not ServerState.READY:
        return record.state, None
    if client.health(record.host, record.port) != 200:
        return ServerState.UNHEALTHY, None
    return ServerState.READY, client.in_flight(record.host, record.port, record.key)


def _memory(pid: int) -> int | None:
    """Return the bytes of memory of a process and its descendants, if it has any."""
    import psutil

    try:
        root = psutil.Process(pid)
        processes = (root, *root.children(recursive=True))
        return sum(process.memory_info().rss for process in processes) or None
    except psutil.Error:
        return None


def _model(row: Row) -> str:
    return f"{row['model']} {row.get('variant', '')}".strip()


def _state(row: Row) -> str:
    """Return the state; of a server that ended by itself also its exit status."""
    if row.get("ended") is None:
        return str(row["state"])
    from tasks.system.exit_status import status_text

    ago = formatting.format_duration(max(0.0, time.time() - (row["ended_at"] or 0)))
    return f"{row['state']} ({status_text(row['ended'])}, {ago} ago)"


def _style(row: Row) -> str:
    colours = {"ready": "green", "stopped": "dim", "unhealthy": "red"}
    return colours.get(row["state"], "yellow")


_COLUMNS = (
    Column("model", "model", describe=_model, least=12),
    Column("state", "state", describe=_state, style=_style, least=20),
    Column("url", "endpoint"),
    Column("pid", "pid", optional=True),
    Column("uptime_s", ">uptime", formatting.format_duration),
    Column("memory", ">memory", formatting.format_size),
    Column("requests", ">requests", optional=True),
    Column("engine", "engine", least=10, optional=True),
)
