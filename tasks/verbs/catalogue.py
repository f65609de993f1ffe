"""`doit catalogue`, the default verb: list the models and the next commands."""

from __future__ import annotations

import os
from typing import Any

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, TargetState
from tasks.catalogue.resolve import ResolvedModel, resolve_entry
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.report import Column, Report, Row
from tasks.context import Context
from tasks.urls import is_local

_HERE = ("complete", "changed", "bundled")  # states that need no download
_WORDS = {"complete": "yes", "absent": "no"}


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`."""
    return [context, bool(request.options.get("json"))]


def run(context: Context, as_json: bool) -> None:
    """Print the report to stdout."""
    rows = [_row(context, name) for name in context.catalogue.names]
    default = context.catalogue.default
    data = {"default": default, "models": rows}
    facts = ("", _next(rows, context))
    report = Report(_columns(default), rows, facts, data=data)
    doit_adapter.show_report(report, as_json)


def _row(context: Context, name: str) -> dict[str, Any]:
    resolved = resolve_entry(name, context.catalogue, context.environment)
    model = resolved.model
    state, downloaded = _state(context.environment.cache, resolved)
    return {
        "name": name,
        "aliases": list(model.aliases),
        "title": model.title,
        "size": resolved.size,
        "license": model.license,
        "params": model.params,
        "quant": model.quant,
        "ram_gb": model.ram,
        "sha256": model.sha256,
        "url": model.url,
        "path": resolved.artifact.target,
        "here": state in _HERE,
        "state": state,
        "downloaded": downloaded,
    }


def _state(cache: str, resolved: ResolvedModel) -> tuple[str, int]:
    """Return the state of the model on this machine, and how many bytes it has here."""
    states = {file: stamps.target_state(cache, file) for file in resolved.files}
    size = sum(_downloaded(file, state) for file, state in states.items())
    if TargetState.MISSING not in states.values():
        if set(states.values()) == {TargetState.FRESH}:
            return "complete", size
        return "changed", size
    if size:
        return "partial", size
    if is_local(resolved.model.url) and os.path.exists(resolved.artifact.sources[0]):
        return "bundled", 0
    return "absent", 0


def _word(row: Row) -> str:
    """Return the state as the table shows it: `yes`, `no`, `43 %`, `bundled`."""
    if row["state"] == "partial":
        size = row["downloaded"]
        return formatting.format_percent(size, row["size"]) or formatting.format_size(
            size
        )
    return _WORDS.get(row["state"], str(row["state"]))


def _downloaded(file: Artifact, state: TargetState) -> int:
    """Return how many bytes of a file are on this machine."""
    from tasks.transfer.journal import load_progress

    if state is TargetState.MISSING:
        return load_progress(file).done
    return file.size or 0


def _columns(default: str) -> tuple[Column, ...]:
    def name(row: Row) -> str:
        mark = ""
        if row["name"] == default:
            mark = " *"
        return f"{row['name']}{mark}"

    return (
        Column("name", "model", describe=name, least=20),
        Column("size", ">size", _size, unknown="?"),
        Column("ram_gb", ">RAM", lambda gigabytes: f"{gigabytes} GB", unknown="?"),
        Column("license", "licence", least=10),
        Column("state", "here", describe=_word, style=_style),
        Column("title", "what it is", least=10),
    )


def _size(count: int) -> str:
    return formatting.format_size(count or None)


def _style(row: Row) -> str:
    colours = {"complete": "green", "bundled": "green", "absent": "dim"}
    return colours.get(row["state"], "yellow")


def _ready_name(rows: list[dict[str, Any]], default: dict[str, Any]) -> str:
    """Return the model to try: the default one if it is here, a bundled one, or any."""
    states = ("bundled", "complete")
    here = [row for row in rows if row["state"] in states]
    here.sort(key=lambda row: (row is not default, states.index(row["state"])))
    return next((str(row["name"]) for row in here), "")


def _next(rows: list[dict[str, Any]], context: Context) -> str:
    """Return the commands that a user may want to type next."""
    default = next(row for row in rows if row["name"] == context.catalogue.default)
    serve = f"serves {default['name']}"
    if default["state"] not in ("complete", "bundled"):
        serve = f"downloads {formatting.format_size(default['size'])}, then {serve}"
    steps = [
        ("doit serve", serve),
        ("doit status", "what runs"),
        ("doit list", "every verb (options: doit help serve)"),
    ]
    name = _ready_name(rows, default)
    if name:
        command = f'doit chat {name} "What are you?"'
        steps.insert(0, (command, "answers at once, without a download"))
    lines = [f"* the default. Cache: {context.environment.cache}", "Next:"]
    lines += [f"  {command:<39} {about}" for command, about in steps]
    return "\n".join(lines)
