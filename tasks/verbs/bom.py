"""`doit bom`: list files with source and licence, as a table or as CycloneDX."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from tasks import doit_adapter
from tasks.cache import bom, stamps
from tasks.cache.bom import BomEntry
from tasks.cache.store import known_files
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.report import Column, Report, Row
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
    document = None
    if as_json:
        at = bom.timestamp(os.environ.get("SOURCE_DATE_EPOCH"), time.time())
        version = _version("llamafile-recipe")
        document = bom.cyclonedx(rows, at, version, _endpoints(context))
    nothing = f"nothing is here. Cache: {context.environment.cache}"
    table = [row._asdict() for row in rows]
    doit_adapter.show_report(
        Report(_COLUMNS, table, empty=nothing, data=document), as_json
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


def _endpoints(context: Context) -> dict[str, tuple[str, ...]]:
    """Return the models of each endpoint."""
    catalogue = context.catalogue
    return {name: catalogue.endpoint(name).models for name in catalogue.endpoint_names}


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


def _licence(row: Row) -> str:
    return str(row["license"] or "?")


def _engines(row: Row) -> str:
    if row["version"]:
        return str(row["version"])
    return ", ".join(
        f"{name} {version}" for name, version in sorted(row["engines"].items())
    )


def _digest(row: Row) -> str:
    if row["sha256"]:
        return str(row["sha256"][:12])
    if row["path"]:
        return "not verified"
    return ""  # a package has none


_COLUMNS = (
    Column("name", "name", least=12),
    Column("size", ">size", formatting.format_size),
    Column("license", "licence", describe=_licence, least=10),
    Column("engines", "engine", describe=_engines, least=15),
    Column("sha256", "sha256", describe=_digest),
    Column("commit", "commit", lambda commit: commit[:7], optional=True),
    Column("source", "source", least=24, optional=True),
)
