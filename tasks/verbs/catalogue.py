"""`doit` alone, or `doit catalogue`: what there is, what of it is here, and what to type next."""

from __future__ import annotations

import os
from typing import Any

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import State
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
    """What of the model is on this machine, in a word."""
    from tasks.transfer.journal import claimed

    states = {file: stamps.state(cache, file) for file in job.files}
    if State.MISSING in states.values():
        have = sum(
            claimed(file).done if state is State.MISSING else file.size or 0 for file, state in states.items()
        )
        if have:
            return formatting.percent(have, job.size) or formatting.size(have)
        return "bundled" if is_local(job.model.url) and os.path.exists(job.artifact.sources[0]) else "no"
    return "yes" if set(states.values()) == {State.FRESH} else "changed"


def _table(rows: list[dict[str, Any]], default: str) -> Styled:
    from rich.text import Text

    from tasks.console.tables import table

    colours = {"yes": "green", "bundled": "green", "no": "dim"}
    cells = [
        [
            Text(f"{row['name']} *" if row["name"] == default else row["name"]),
            Text(formatting.size(row["size"]) if row["size"] else "?"),
            Text(f"{row['ram_gb']} GB" if row["ram_gb"] else "?"),
            Text(row["license"]),
            Text(row["here"], colours.get(row["here"], "yellow")),
            Text(row["title"]),
        ]
        for row in rows
    ]
    return table(("model", ">size", ">RAM", "licence", "here", "what it is"), cells)


def _next(rows: list[dict[str, Any]], found: Recipe) -> str:
    """What to type now."""
    default = next(r for r in rows if r["name"] == found.catalogue.default)
    bundled = next((r["name"] for r in rows if r["here"] == "bundled"), None)
    size = f"downloads {formatting.size(default['size'])}, then serves"
    steps = [
        ("doit serve", f"{'serves' if default['here'] in ('yes', 'bundled') else size} {default['name']}"),
        ("doit status", "what runs"),
        ("doit list", "every verb (options: doit help serve)"),
    ]
    if bundled:
        steps.insert(
            0, (f'doit chat --model {bundled} "What are you?"', "answers at once, without a download")
        )
    lines = [f"* the default. Cache: {found.place.cache}", "Next:"]
    return "\n".join([*lines, *(f"  {command:<39} {about}" for command, about in steps)])
