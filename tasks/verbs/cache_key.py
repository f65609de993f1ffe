"""`doit cache-key`: under which key a CI system keeps a model; in a workflow of GitHub's its paths, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.cache.key import CACHE_LIMIT, cache_key
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import catalogued
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe


class Entry(NamedTuple):
    """One entry of a CI system's cache."""

    model: str
    key: str
    path: tuple[str, ...]
    size: int | None  # bytes; None where nobody says


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`. Raises UsageError: there is no such model."""
    words = ask.models or (recipe.catalogue.default,)
    named = dict.fromkeys(recipe.catalogue.name(word) for word in words)
    return [recipe, tuple(named), bool(ask.options.get("json"))]


def run(recipe: Recipe, named: Sequence[str], as_json: bool) -> None:
    """Print a key a line, hand keys and paths on to a workflow. Raises RecipeError: a model has no key."""
    files = {name: _files(recipe, name) for name in named}
    entries = [_entry(recipe, name, found) for name, found in files.items()]
    if "GITHUB_OUTPUT" in os.environ:
        _hand_on(recipe, entries, cache_key("models", [f for found in files.values() for f in found]))
    if as_json:
        doit_adapter.show_json([entry._asdict() for entry in entries])
    else:
        doit_adapter.show("\n".join(entry.key for entry in entries))


def _files(recipe: Recipe, name: str) -> tuple[Artifact, ...]:
    """All that serving a model needs of the cache."""
    job = catalogued(name, recipe.catalogue, recipe.place)
    program = (llamafile_exe(recipe.catalogue, recipe.place),) if job.engine == "llamafile" else ()
    return (*job.files, *program)


def _entry(recipe: Recipe, name: str, files: Sequence[Artifact]) -> Entry:
    sizes = [file.size for file in files]
    paths = dict.fromkeys(os.path.dirname(file.target) for file in files)
    total = None if None in sizes else sum(filter(None, sizes))
    return Entry(name, cache_key(name, files), tuple(map(_from_home, paths)), total)


def _from_home(path: str) -> str:
    """With `~`, which actions/cache knows: it keeps what has other paths under the same key apart."""
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if path.startswith((f"{home}/", f"{home}{os.sep}")) else path


def _hand_on(recipe: Recipe, entries: Sequence[Entry], key: str) -> None:
    """GitHub's files: outputs for the steps that cache, and where the cache is for those that use it."""
    from tasks.console.ci import append

    total = sum(entry.size or 0 for entry in entries)
    if total > CACHE_LIMIT:
        text = "warning: %s in all, and GitHub keeps 10 GB of a repository's caches: the last used ones"
        doit_adapter.log().warning(text, formatting.size(total))
    paths = dict.fromkeys(path for entry in entries for path in entry.path)
    outputs = {"key": entries[0].key if len(entries) == 1 else key, "path": "\n".join(paths)}
    outputs["models"] = " ".join(entry.model for entry in entries)
    for number, entry in enumerate(entries, 1):
        outputs |= {f"key-{number}": entry.key, f"path-{number}": "\n".join(entry.path)}
    append(os.environ["GITHUB_OUTPUT"], outputs)
    if path := os.environ.get("GITHUB_ENV"):
        append(path, {"LLAMAFILE_CACHE": recipe.place.cache})
