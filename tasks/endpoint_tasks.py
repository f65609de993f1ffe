"""Say which task a verb has for an endpoint, from those of its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.catalogue.endpoints import ResolvedEndpoint
from tasks.command_line import Kind
from tasks.context import Context

TaskDict = dict[str, Any]
Creator = Callable[[Any, Any], TaskDict]  # of dodo.py


def fields(
    verb: str,
    kind: Kind,
    creator: Creator,
    context: Context,
    endpoint: ResolvedEndpoint,
) -> TaskDict:
    """Return the task `VERB:ENDPOINT`: a server's own, or a step of all its models."""
    about = {"doc": endpoint.title}
    if kind is Kind.SERVER:
        found = creator(context, endpoint)
        needs = [*found["task_dep"], f"preset:{endpoint.name}"]
        return {**found, **about, "task_dep": needs}
    if verb == "verify":
        return {**_verified(creator, context, endpoint), **about}
    needs = [f"{verb}:{name}" for name in endpoint.names]
    return {**about, "actions": [], "task_dep": needs}


def _verified(
    creator: Creator, context: Context, endpoint: ResolvedEndpoint
) -> TaskDict:
    """Return one task that verifies the models with llama-server.

    `verify:MODEL` is with the engine that serves the model alone.
    """
    from tasks.planning.endpoint_plan import check_engine

    every = [creator(context, one) for one in endpoint.members]
    found: TaskDict = {}
    for key in ("actions", "task_dep", "uptodate"):
        found[key] = [item for fields in every for item in fields[key]]
    found["actions"].insert(0, (check_engine, [endpoint]))
    return found
