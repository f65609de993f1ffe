"""`doit` alone, or `doit catalogue`: what there is, what of it is here, and what to type next."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from doit.task import Task

from tasks import glue
from tasks.core import report
from tasks.core.artifact import State
from tasks.core.jobs import Job, catalogued
from tasks.core.urls import is_local
from tasks.effects import files
from tasks.recipe import Recipe


def task(found: Recipe) -> Task:
    """The one task; its text goes to stdout and is nothing but the report."""
    as_json = any(ask.options.get("json") for ask in found.request.asks if ask.verb == "catalogue")
    return glue.task("catalogue", show, [found, as_json], meta={"report": True})


def show(found: Recipe, as_json: bool) -> None:
    """Print the report to stdout."""
    rows = [_row(found, name) for name in found.catalogue.names]
    if as_json:
        text = json.dumps({"default": found.catalogue.default, "models": rows}, indent=1)
    else:
        text = f"{_table(rows, found.catalogue.default)}\n{_next(rows, found)}"
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `doit | head -1`; what Python flushes at its end has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _row(found: Recipe, name: str) -> dict[str, Any]:
    job = catalogued(name, found.catalogue, found.place)
    model = job.model
    return {
        "name": name,
        "aliases": list(model.aliases),
        "title": model.title,
        "size": model.size,
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
    from tasks.effects.partial import claimed

    state = files.state(cache, job.artifact)
    if state is State.MISSING:
        have = claimed(job.artifact).done
        if have:
            return report.percent(have, job.model.size) or report.size(have)
        return "bundled" if is_local(job.model.url) and os.path.exists(job.artifact.sources[0]) else "no"
    return "yes" if state is State.FRESH else "changed"


def _table(rows: list[dict[str, Any]], default: str) -> str:
    """The table, as wide as the terminal; only the last column gives way."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width; lines stay whole
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, right in (("model", 0), ("size", 1), ("RAM", 1), ("licence", 0), ("here", 0)):
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    table.add_column("what it is", no_wrap=True, overflow="ellipsis")
    for row in rows:
        colour = {"yes": "green", "bundled": "green", "no": "dim"}.get(row["here"], "yellow")
        cells = [
            Text(f"{row['name']} *" if row["name"] == default else row["name"]),
            Text(report.size(row["size"]) if row["size"] else "?"),
            Text(f"{row['ram_gb']} GB" if row["ram_gb"] else "?"),
            Text(row["license"]),
            Text(row["here"], colour),
            Text(row["title"]),
        ]
        for cell, column in zip(cells[:-1], table.columns, strict=False):
            column.min_width = max(column.min_width or len(str(column.header)), cell.cell_len)
        table.add_row(*cells)
    taken = sum((column.min_width or 0) + 2 for column in table.columns[:-1])
    table.columns[-1].max_width = max(10, console.width - taken)
    with console.capture() as shown:
        console.print(table)
    return shown.get()


def _next(rows: list[dict[str, Any]], found: Recipe) -> str:
    """What to type now."""
    default = next(r for r in rows if r["name"] == found.catalogue.default)
    lines = [f"* the default. Cache: {found.place.cache}", "Next:"]
    bundled = next((r["name"] for r in rows if r["here"] == "bundled"), None)
    if bundled:
        lines.append(f"  doit serve --model {bundled:<18} answers at once, without a download")
    here = default["here"] in ("yes", "bundled")
    size = "serves" if here else f"downloads {report.size(default['size'])}, then serves"
    lines.append(f"  doit serve{'':<27} {size} {default['name']}")
    lines.append("  doit list                             every verb (options: doit help serve)")
    return "\n".join(lines)
