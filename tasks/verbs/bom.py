"""`doit bom`: list files with source and licence, as a table or as CycloneDX."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tasks import doit_adapter
from tasks.cache import bom, stamps
from tasks.cache.bom import BomEntry
from tasks.cache.store import known_files
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.text import Styled
from tasks.context import Context
from tasks.system import files


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`."""
    return [context, bool(request.options.get("json"))]


def run(context: Context, as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        RecipeError: SOURCE_DATE_EPOCH is not a time.
    """
    rows = [*_rows(context), *_embedded(context)]
    if as_json:
        at = bom.timestamp(os.environ.get("SOURCE_DATE_EPOCH"), time.time())
        doit_adapter.print_json(bom.cyclonedx(rows, at, _version("llamafile-recipe")))
    elif rows:
        doit_adapter.print_report(_table(rows))
    else:
        doit_adapter.print_report(
            f"nothing is here. Cache: {context.environment.cache}"
        )
    for row in rows:
        if row.path and row.sha256 is None:
            text = (
                "warning: %s: its digest is not verified; `doit download` verifies it"
            )
            doit_adapter.log().warning(text, row.path)


def _rows(context: Context) -> Iterator[BomEntry]:
    """Yield a row for each file that is here."""
    cache = context.environment.cache
    for file in known_files(context.catalogue, context.environment):
        stat = files.stat(file.artifact.target)
        if stat is None:
            continue
        stamp = stamps.read_stamp(cache, file.artifact)
        if stamp is not None and stamp.stat != stat:
            stamp = None
        path = file.artifact.target.removeprefix(f"{cache}/")
        yield bom.file_entry(file, path, stat.size, stamp, context.environment.root)


def _embedded(context: Context) -> Iterator[BomEntry]:
    """Yield the row of the embedded engine, if its package is installed."""
    version = _version("xllamacpp")
    if version and context.catalogue.has_engine("embedded"):
        engine = context.catalogue.engine("embedded")
        yield bom.package_entry("xllamacpp", version, engine.title, engine.license)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _table(rows: Sequence[BomEntry]) -> Styled:
    from rich.text import Text

    from tasks.console.tables import render_table

    titles = ("name", ">size", "licence", "engine", "sha256", "commit", "source")
    cells = [
        [
            Text(row.name),
            Text(_size(row)),
            Text(row.license or "?"),
            Text(row.version or _engines(row)),
            Text(_digest(row)),
            Text(row.commit[:7]),
            Text(row.source),
        ]
        for row in rows
    ]
    return render_table(titles, cells)


def _size(row: BomEntry) -> str:
    if row.size is None:
        return ""
    return formatting.format_size(row.size)


def _engines(row: BomEntry) -> str:
    return ", ".join(
        f"{name} {version}" for name, version in sorted(row.engines.items())
    )


def _digest(row: BomEntry) -> str:
    if row.sha256:
        return row.sha256[:12]
    if row.path:
        return "not verified"
    return ""  # a package has none
