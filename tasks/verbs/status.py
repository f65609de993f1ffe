"""`doit status`: which servers there are, and whether they may take requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tasks import doit_adapter
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.console.text import Styled
from tasks.context import Recipe, names
from tasks.engine import server_registry
from tasks.engine.server_record import Liveness, Run, State


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`. Raises UsageError: there is no such model."""
    return [recipe, names(recipe, ask), bool(ask.options.get("json"))]


def run(recipe: Recipe, named: Sequence[str], as_json: bool) -> None:
    """Print the report to stdout.

    Raises SystemExit: 1 unless what was asked for is ready: the named models, or else at least one server and
    no other than ready ones.
    """
    server_registry.drop_keys(recipe.place.cache)
    found = [one for one in server_registry.found(recipe.place.cache) if not named or one[0].name in named]
    rows = [_row(one, what) for one, what in found]
    for name in named:
        if name not in {row["model"] for row in rows}:
            rows.append({"model": name, "state": State.STOPPED.value})
    if as_json:
        doit_adapter.show_json(rows)
    elif rows:
        doit_adapter.show(_table(rows))
    else:
        doit_adapter.show("nothing runs\n  doit start --model NAME    starts a server in the background")
    ready = {row["model"] for row in rows if row["state"] == State.READY.value}
    if not rows or {row["model"] for row in rows} - ready:
        raise SystemExit(1)


def _row(run: Run, what: Liveness) -> dict[str, Any]:
    """What is known of one server."""
    from tasks.engine import client

    state, now = run.state, time.time()
    row: dict[str, Any] = {"model": run.name, "by": f"doit {run.mode.value}"}
    if what is not Liveness.RUNNING:
        ended = {"ended": run.ended, "ended_at": run.ended_at, "log": run.log}
        return {**row, "state": State.STOPPED.value, **ended}
    if state is State.READY and client.health(run.host, run.port) != 200:
        state = State.UNHEALTHY
    return {
        **row,
        "state": state.value,
        "url": run.url,
        "pid": run.engine.pid if run.engine else None,
        "uptime_s": round(now - run.since) if run.since else None,
        "memory": _memory(run),
        "engine": run.spec.get("--engine"),
        "requests": client.in_flight(run.host, run.port, run.key) if state is State.READY else None,
        "log": run.log,
    }


def _memory(run: Run) -> int | None:
    """Bytes of memory of the engine and what it started."""
    import psutil

    try:
        root = psutil.Process(run.engine.pid if run.engine else 0)
        return sum(one.memory_info().rss for one in (root, *root.children(recursive=True)))
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
            Text(formatting.seconds(row["uptime_s"]) if row.get("uptime_s") is not None else ""),
            Text(formatting.size(row["memory"]) if row.get("memory") else ""),
            Text(str(row["requests"]) if row.get("requests") is not None else ""),
            Text(row.get("engine") or ""),
        ]
        for row in rows
    ]
    return table(titles, cells)


def _state(row: dict[str, Any]) -> str:
    """The state, and how it came to that where it ended by itself."""
    if row.get("ended") is None:
        return str(row["state"])
    from tasks.system.exit_status import status_text

    ago = formatting.seconds(max(0.0, time.time() - (row["ended_at"] or 0)))
    return f"{row['state']} ({status_text(row['ended'])}, {ago} ago)"
