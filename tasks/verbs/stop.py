"""`doit stop`: stop servers in the background or in another terminal."""

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
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    return [recipe, names(recipe, ask), bool(ask.options.get("all"))]


def run(recipe: Recipe, named: Sequence[str], every: bool) -> None:
    """Stop the servers of the named models, all of them, or the only one.

    Raises:
        ServerError: several run and none is named, or one does not end.
    """
    cache = recipe.place.cache
    server_registry.clean(cache)
    running = server_registry.running(cache)
    if named:
        running = [run for run in running if run.name in named]
    # `doit with` and `doit chat` stop their servers themselves
    own = [run for run in running if run.mode in (Mode.START, Mode.SERVE)]
    several = dict.fromkeys(run.name for run in own)
    if len(several) > 1 and not (named or every):
        what = f"several servers run: {', '.join(several)}"
        raise ServerError(what, fix="--model NAME for one of them, or --all")
    for run in running:
        if run not in own:
            text = "%s at %s belongs to `doit %s` (pid %s), and ends with it"
            doit_adapter.log().info(text, run.name, run.url, run.mode.value, run.owner)
    for name in named:
        if name not in several:
            doit_adapter.log().info("%s does not run", name)
    if not (named or own):
        doit_adapter.log().info("nothing runs")
    for run in own:
        _stop(run)


def _stop(server: Run) -> None:
    from tasks.system.ports import free_port

    name, url = server.name, server.url
    text = "stopping %s at %s"
    doit_adapter.say("server_stopping", text, name, url, model=name, url=url)
    if not server_registry.stop(server):
        pid = 0
        if server.engine:
            pid = server.engine.pid
        raise ServerError(f"{name} (pid {pid}) does not end", fix=f"kill -9 {pid}")
    doit_adapter.say("server_stopped", "%s has stopped", name, model=name)
    try:
        free_port(server.host, server.port)
    except ServerError as error:
        doit_adapter.log().warning("%s", error.what)
