"""`doit status`: list the servers and their states."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tasks import doit_adapter
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.console.text import Styled
from tasks.context import Recipe, names
from tasks.engine import server_registry
from tasks.engine.server_record import Liveness, Run, State


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    return [recipe, names(recipe, ask), bool(ask.options.get("json"))]


def run(recipe: Recipe, named: Sequence[str], as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        SystemExit: 1 unless all servers are ready: those of the named models, or
            without names all that there are, at least one.
    """
    server_registry.drop_keys(recipe.place.cache)
    rows = [
        _row(run, liveness)
        for run, liveness in server_registry.found(recipe.place.cache)
        if not named or run.name in named
    ]
    for name in named:
        if name not in {row["model"] for row in rows}:
            rows.append({"model": name, "state": State.STOPPED.value})
    if as_json:
        doit_adapter.show_json(rows)
    elif rows:
        doit_adapter.show(_table(rows))
    else:
        hint = "  doit start --model NAME    starts a server in the background"
        doit_adapter.show(f"nothing runs\n{hint}")
    ready = {row["model"] for row in rows if row["state"] == State.READY.value}
    if not rows or {row["model"] for row in rows} - ready:
        raise SystemExit(1)


def _row(run: Run, liveness: Liveness) -> dict[str, Any]:
    """Return the facts about one server, as JSON has them."""
    row: dict[str, Any] = {"model": run.name, "by": f"doit {run.mode.value}"}
    if liveness is not Liveness.RUNNING:
        ended = {"ended": run.ended, "ended_at": run.ended_at, "log": run.log}
        return {**row, "state": State.STOPPED.value, **ended}
    state, requests = _state_and_requests(run)
    pid = None
    if run.engine:
        pid = run.engine.pid
    uptime_s = None
    if run.since:
        uptime_s = round(time.time() - run.since)
    return {
        **row,
        "state": state.value,
        "url": run.url,
        "pid": pid,
        "uptime_s": uptime_s,
        "memory": _memory(pid or 0),
        "engine": run.spec.get("--engine"),
        "requests": requests,
        "log": run.log,
    }


def _state_and_requests(run: Run) -> tuple[State, int | None]:
    """Return the state, and of a ready server the number of requests in progress."""
    from tasks.engine import client

    if run.state is not State.READY:
        return run.state, None
    if client.health(run.host, run.port) != 200:
        return State.UNHEALTHY, None
    return State.READY, client.in_flight(run.host, run.port, run.key)


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

    from tasks.console.tables import table

    colours = {"ready": "green", "stopped": "dim", "unhealthy": "red"}
    titles = ("model", "state", "endpoint", "pid", ">uptime", ">memory", ">requests", "engine")
    cells = [
        [
            Text(row["model"]),
            Text(_state(row), colours.get(row["state"], "yellow")),
            Text(row.get("url") or ""),
            Text(str(row.get("pid") or "")),
            Text(_cell(formatting.seconds, row.get("uptime_s"))),
            Text(_cell(formatting.size, row.get("memory") or None)),
            Text(_cell(str, row.get("requests"))),
            Text(row.get("engine") or ""),
        ]
        for row in rows
    ]
    return table(titles, cells)


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

    ago = formatting.seconds(max(0.0, time.time() - (row["ended_at"] or 0)))
    return f"{row['state']} ({status_text(row['ended'])}, {ago} ago)"
