"""`doit preset`: write the file from which llama-server serves an endpoint."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.endpoints import ResolvedEndpoint
from tasks.context import Context
from tasks.engine.router_preset import Member, render
from tasks.errors import RecipeError
from tasks.server import preset_file


def targets(context: Context, endpoint: ResolvedEndpoint) -> list[str]:
    """Return the path of the file; nothing where none can be written."""
    path = _expected(context, endpoint)
    return [path] if path else []


def is_current(context: Context, endpoint: ResolvedEndpoint) -> bool:
    """Whether the file has what the catalogue and the verified files say now.

    doit's `file_dep` would read the models, to hash them; their stamps were compared by
    the tasks before.
    """
    path = _expected(context, endpoint)
    if not path:
        return False
    try:
        return preset_file.is_current(path, _members(context, endpoint))
    except RecipeError:
        return False  # `run` reports it


def run(context: Context, endpoint: ResolvedEndpoint) -> None:
    """Write the file, unless it has this content already.

    Raises:
        UsageError: the file cannot express an option of a model.
        ServerError: the file cannot be written.
    """
    text = render(_members(context, endpoint))
    cache = context.environment.cache
    path = preset_file.write(cache, context.catalogue, endpoint.name, text)
    doit_adapter.log().info("%s: preset file %s", endpoint.name, path)


def _members(context: Context, endpoint: ResolvedEndpoint) -> tuple[Member, ...]:
    return preset_file.members_of(context.environment, context.catalogue, endpoint)


def _expected(context: Context, endpoint: ResolvedEndpoint) -> str:
    cache = context.environment.cache
    return preset_file.expected_path(cache, context.catalogue, endpoint.name)
