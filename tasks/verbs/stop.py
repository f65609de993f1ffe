"""`doit stop`: stop servers in the background or in another terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.context import Context, server_names
from tasks.engine import server_registry
from tasks.engine.server_record import Mode, ServerRecord
from tasks.errors import ServerError


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model.
    """
    flags = [bool(request.options.get(name)) for name in ("all", "json")]
    return [context, server_names(context, request), *flags]


def run(context: Context, named: Sequence[str], every: bool, as_json: bool) -> None:
    """Stop the servers of the named models, all of them, or the only one.

    Args:
        as_json: print to stdout which were stopped.

    Raises:
        ServerError: several run and none is named, or one does not end.
    """
    cache = context.environment.cache
    server_registry.reap_orphans(cache)
    running = server_registry.running(cache)
    if named:
        running = [record for record in running if record.name in named]
    # `doit with` and `doit chat` stop their servers themselves
    own = [record for record in running if record.mode in (Mode.START, Mode.SERVE)]
    several = dict.fromkeys(record.name for record in own)
    if len(several) > 1 and not (named or every):
        what = f"several servers run: {', '.join(several)}"
        raise ServerError(what, fix="--model NAME for one of them, or --all")
    for record in running:
        if record not in own:
            text = "%s at %s belongs to `doit %s` (pid %s), and ends with it"
            doit_adapter.log().info(
                text, record.name, record.url, record.mode.value, record.owner
            )
    for name in named:
        if name not in several:
            doit_adapter.log().info("%s does not run", name)
    if not (named or own):
        doit_adapter.log().info("nothing runs")
    for record in own:
        _stop(record)
    if as_json:
        stopped = [{"model": record.name, "url": record.url} for record in own]
        absent = [name for name in named if name not in several]
        doit_adapter.print_json({"stopped": stopped, "not_running": absent})


def _stop(server: ServerRecord) -> None:
    from tasks.system.ports import free_port

    name, url = server.name, server.url
    text = "stopping %s at %s"
    doit_adapter.log_event("server_stopping", text, name, url, model=name, url=url)
    if not server_registry.stop(server):
        pid = 0
        if server.engine:
            pid = server.engine.pid
        raise ServerError(f"{name} (pid {pid}) does not end", fix=f"kill -9 {pid}")
    doit_adapter.log_event("server_stopped", "%s has stopped", name, model=name)
    try:
        free_port(server.host, server.port)
    except ServerError as error:
        doit_adapter.log().warning("%s", error.what)
