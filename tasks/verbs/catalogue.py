"""`doit catalogue`, the default verb: list the models and the next commands."""

from __future__ import annotations

import os
from typing import Any

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, State
from tasks.catalogue.resolve import Job, catalogued
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.console.text import Styled
from tasks.context import Recipe
from tasks.urls import is_local


def arguments(found: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`."""
    return [found, bool(ask.options.get("json"))]


def run(found: Recipe, as_json: bool) -> None:
    """Print the report to stdout."""
    rows = [_row(found, name) for name in found.catalogue.names]
    if as_json:
        doit_adapter.show_json({"default": found.catalogue.default, "models": rows})
    else:
        doit_adapter.show(_table(rows, found.catalogue.default), "", _next(rows, found))


def _row(found: Recipe, name: str) -> dict[str, Any]:
    job = catalogued(name, found.catalogue, found.place)
    model = job.model
    return {
        "name": name,
        "aliases": list(model.aliases),
        "title": model.title,
        "size": job.size,
        "license": model.license,
        "params": model.params,
        "quant": model.quant,
        "ram_gb": model.ram,
        "sha256": model.sha256,
        "url": model.url,
        "path": job.artifact.target,
        "here": _here(found.place.cache, job),
    }


def _here(cache: str, job: Job) -> str:
    """Return in a word how much of the model is on this machine."""
    states = {file: stamps.state(cache, file) for file in job.files}
    if State.MISSING not in states.values():
        if set(states.values()) == {State.FRESH}:
            return "yes"
        return "changed"
    size = sum(_downloaded(file, state) for file, state in states.items())
    if size:
        return formatting.percent(size, job.size) or formatting.size(size)
    if is_local(job.model.url) and os.path.exists(job.artifact.sources[0]):
        return "bundled"
    return "no"


def _downloaded(file: Artifact, state: State) -> int:
    """Return how many bytes of a file are on this machine."""
    from tasks.transfer.journal import claimed

    if state is State.MISSING:
        return claimed(file).done
    return file.size or 0


def _table(rows: list[dict[str, Any]], default: str) -> Styled:
    from rich.text import Text

    from tasks.console.tables import table

    colours = {"yes": "green", "bundled": "green", "no": "dim"}
    cells = [
        [
            Text(row["name"] + " *" * (row["name"] == default)),
            Text(formatting.size(row["size"] or None)),
            Text(_ram(row["ram_gb"])),
            Text(row["license"]),
            Text(row["here"], colours.get(row["here"], "yellow")),
            Text(row["title"]),
        ]
        for row in rows
    ]
    return table(("model", ">size", ">RAM", "licence", "here", "what it is"), cells)


def _ram(gigabytes: float | None) -> str:
    if not gigabytes:
        return "?"
    return f"{gigabytes} GB"


def _next(rows: list[dict[str, Any]], found: Recipe) -> str:
    """Return the commands that a user may want to type next."""
    default = next(row for row in rows if row["name"] == found.catalogue.default)
    serve = f"serves {default['name']}"
    if default["here"] not in ("yes", "bundled"):
        serve = f"downloads {formatting.size(default['size'])}, then {serve}"
    steps = [
        ("doit serve", serve),
        ("doit status", "what runs"),
        ("doit list", "every verb (options: doit help serve)"),
    ]
    bundled = next((row["name"] for row in rows if row["here"] == "bundled"), None)
    if bundled:
        command = f'doit chat --model {bundled} "What are you?"'
        steps.insert(0, (command, "answers at once, without a download"))
    lines = [f"* the default. Cache: {found.place.cache}", "Next:"]
    lines += [f"  {command:<39} {about}" for command, about in steps]
    return "\n".join(lines)
