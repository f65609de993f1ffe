"""`doit cache-key`: print the keys under which a CI system caches models.

In a GitHub workflow it also sets keys and paths as outputs of the step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.cache.key import CACHE_LIMIT, cache_key
from tasks.catalogue import variants
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_release import pinned_server
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import resolve_entry, resolve_variants
from tasks.catalogue.types import Endpoint
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.context import Context


class CacheEntry(NamedTuple):
    """One entry of a CI system's cache."""

    model: str
    key: str
    path: tuple[str, ...]
    size: int | None  # bytes; None if a size is not known


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    models = request.models or (context.catalogue.default,)
    named = dict.fromkeys(
        context.catalogue.endpoint_name(word) or context.catalogue.name(word)
        for word in models
    )
    variant = request.options.get("variant", "")
    if variant:
        for name in map(context.catalogue.name, named):
            variants.named(variant, name, context.catalogue.variants(name))
    return [context, tuple(named), variant, bool(request.options.get("json"))]


def run(context: Context, named: Sequence[str], variant: str, as_json: bool) -> None:
    """Print a key a line, and set a workflow's outputs.

    Raises:
        RecipeError: a file of a model is not pinned, so that it has no key.
    """
    files = {name: _files(context, name, variant) for name in named}
    entries = [_entry(name, artifacts) for name, artifacts in files.items()]
    if "GITHUB_OUTPUT" in os.environ:
        every = [artifact for artifacts in files.values() for artifact in artifacts]
        _set_outputs(context, entries, cache_key("models", every))
    if as_json:
        doit_adapter.print_json([entry._asdict() for entry in entries])
    else:
        doit_adapter.print_report("\n".join(entry.key for entry in entries))


def _files(context: Context, name: str, variant: str = "") -> tuple[Artifact, ...]:
    """Return the cached files that serving a model needs: all variants, or one."""
    catalogue, environment = context.catalogue, context.environment
    if catalogue.endpoint_name(name):
        return _endpoint_files(context, catalogue.endpoint(name))
    jobs = resolve_variants(name, catalogue, environment)
    if variant:
        jobs = (resolve_entry(name, catalogue, environment, variant),)
    files = dict.fromkeys(file for resolved in jobs for file in resolved.files)
    if any(resolved.engine == "llamafile" for resolved in jobs):
        files[llamafile_exe(catalogue, environment)] = None
    if any(resolved.engine == "llama-server" for resolved in jobs):
        server = pinned_server(catalogue, environment)
        if server and server.archive:
            files[server.archive] = None
    return tuple(files)


def _endpoint_files(context: Context, endpoint: Endpoint) -> tuple[Artifact, ...]:
    """Return the files of all its models, and the archive with llama-server."""
    catalogue, environment = context.catalogue, context.environment
    files: dict[Artifact, None] = {}
    for model in endpoint.models:
        variant = endpoint.variants.get(model, "")
        jobs = resolve_variants(model, catalogue, environment)
        if variant:
            jobs = (resolve_entry(model, catalogue, environment, variant),)
        files |= dict.fromkeys(file for job in jobs for file in job.files)
    server = pinned_server(catalogue, environment)
    if server and server.archive:
        files[server.archive] = None
    return tuple(files)


def _entry(name: str, files: Sequence[Artifact]) -> CacheEntry:
    paths = dict.fromkeys(os.path.dirname(file.target) for file in files)
    return CacheEntry(
        name, cache_key(name, files), tuple(map(_from_home, paths)), _size(files)
    )


def _size(files: Sequence[Artifact]) -> int | None:
    total = 0
    for file in files:
        if file.size is None:
            return None
        total += file.size
    return total


def _from_home(path: str) -> str:
    """Write the home directory as `~`, as actions/cache does.

    The action includes the paths in the version of an entry, so that entries with
    another home directory could not be restored.
    """
    home = os.path.expanduser("~")
    if path.startswith((f"{home}/", f"{home}{os.sep}")):
        return "~" + path[len(home) :]
    return path


def _set_outputs(context: Context, entries: Sequence[CacheEntry], key: str) -> None:
    """Set a GitHub step's outputs, and LLAMAFILE_CACHE for the next steps."""
    from tasks.console.ci import append_env_file

    total = sum(entry.size or 0 for entry in entries)
    if total > CACHE_LIMIT:
        text = "warning: %s in all, and GitHub keeps 10 GB of a repository's caches"
        doit_adapter.log().warning(text, formatting.format_size(total))
    paths = dict.fromkeys(path for entry in entries for path in entry.path)
    if len(entries) == 1:
        key = entries[0].key
    outputs = {"key": key, "path": "\n".join(paths)}
    outputs["models"] = " ".join(entry.model for entry in entries)
    for number, entry in enumerate(entries, 1):
        outputs |= {f"key-{number}": entry.key, f"path-{number}": "\n".join(entry.path)}
    append_env_file(os.environ["GITHUB_OUTPUT"], outputs)
    if path := os.environ.get("GITHUB_ENV"):
        append_env_file(path, {"LLAMAFILE_CACHE": context.environment.cache})
