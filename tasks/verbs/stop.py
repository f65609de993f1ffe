"""`doit stop`: end servers, in the background or in another terminal, and see that they are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks import doit_adapter
from tasks.command_line import Ask
from tasks.context import Recipe, names
from tasks.engine import server_registry
from tasks.engine.server_record import Mode, Run
from tasks.errors import ServerError


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`. Raises UsageError: there is no such model."""
    return [recipe, names(recipe, ask), bool(ask.options.get("all"))]


def run(recipe: Recipe, named: Sequence[str], every: bool) -> None:
    """End the named ones, all of them, or the only one. Nothing to end is no failure.

    Raises ServerError: several run and none is named, or one does not end.
    """
    cache = recipe.place.cache
    server_registry.clean(cache)
    found = [r for r in server_registry.running(cache) if not named or r.name in named]
    mine = [r for r in found if r.mode in (Mode.START, Mode.SERVE)]
    if len({r.name for r in mine}) > 1 and not (named or every):
        several = ", ".join(dict.fromkeys(r.name for r in mine))
        raise ServerError(f"several servers run: {several}", fix="--model NAME for one of them, or --all")
    for one in found:
        if one not in mine:
            text = "%s at %s belongs to `doit %s` (pid %s), and ends with it"
            doit_adapter.log().info(text, one.name, one.url, one.mode.value, one.owner)
    for name in named or (() if mine else ("nothing",)):
        if name not in {r.name for r in mine}:
            doit_adapter.log().info("%s runs" if name == "nothing" else "%s does not run", name)
    for one in mine:
        _stop(one)


def _stop(one: Run) -> None:
    from tasks.system.ports import free_port

    doit_adapter.say("server_stopping", "stopping %s at %s", one.name, one.url, model=one.name, url=one.url)
    pid = one.engine.pid if one.engine else 0
    if not server_registry.stop(one):
        raise ServerError(f"{one.name} (pid {pid}) does not end", fix=f"kill -9 {pid}")
    doit_adapter.say("server_stopped", "%s has stopped", one.name, model=one.name)
    try:
        free_port(one.host, one.port)
    except ServerError as error:
        doit_adapter.log().warning("%s", error.what)
