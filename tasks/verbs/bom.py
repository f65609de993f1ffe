"""`doit bom`: list files with source and licence, as a table or as CycloneDX."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tasks import doit_adapter
from tasks.cache import bom, stamps
from tasks.cache.bom import Row
from tasks.cache.store import everything
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.console.text import Styled
from tasks.context import Recipe
from tasks.system import files


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: a model is named.
    """
    recipe.no_model(ask)
    return [recipe, bool(ask.options.get("json"))]


def run(recipe: Recipe, as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        RecipeError: SOURCE_DATE_EPOCH is not a time.
    """
    rows = [*_rows(recipe), *_embedded(recipe)]
    if as_json:
        at = bom.timestamp(os.environ.get("SOURCE_DATE_EPOCH"), time.time())
        doit_adapter.show_json(bom.cyclonedx(rows, at, _version("llamafile-recipe")))
    elif rows:
        doit_adapter.show(_table(rows))
    else:
        doit_adapter.show(f"nothing is here. Cache: {recipe.place.cache}")
    for row in rows:
        if row.path and row.sha256 is None:
            text = "warning: %s: its digest is not verified; `doit download` verifies it"
            doit_adapter.log().warning(text, row.path)


def _rows(recipe: Recipe) -> Iterator[Row]:
    """Yield a row for each file that is here."""
    cache = recipe.place.cache
    for item in everything(recipe.catalogue, recipe.place):
        stat = files.stat(item.artifact.target)
        if stat is None:
            continue
        stamp = stamps.read_stamp(cache, item.artifact)
        if stamp is not None and stamp.stat != stat:
            stamp = None
        path = item.artifact.target.removeprefix(f"{cache}/")
        yield bom.row(item, path, stat.size, stamp, recipe.place.root)


def _embedded(recipe: Recipe) -> Iterator[Row]:
    """Yield the row of the embedded engine, if its package is installed."""
    version = _version("xllamacpp")
    if version and recipe.catalogue.has_engine("embedded"):
        engine = recipe.catalogue.engine("embedded")
        yield bom.package("xllamacpp", version, engine.title, engine.license)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _table(rows: Sequence[Row]) -> Styled:
    from rich.text import Text

    from tasks.console.tables import table

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
    return table(titles, cells)


def _size(row: Row) -> str:
    if row.size is None:
        return ""
    return formatting.size(row.size)


def _engines(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(row.engines.items()))


def _digest(row: Row) -> str:
    if row.sha256:
        return row.sha256[:12]
    if row.path:
        return "not verified"
    return ""  # a package has none
