"""`doit stop`: stop servers in the background or in another terminal."""

from __future__ import annotations

from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.context import Context, server_choice
from tasks.options import seconds
from tasks.server import selection, server_registry, target_file
from tasks.server.selection import STOPPABLE, Choice
from tasks.server.server_record import Liveness
from tasks.server.stopping import stop_servers


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, several servers run and one is not
            chosen, or --drain is not a number.
    """
    choice = server_choice(context, request)
    every = bool(request.options.get("all"))
    if not every and context.command_line.tasks:
        _check(context.environment.cache, choice)
    as_json = bool(request.options.get("json"))
    drain = request.options.get("drain")
    drain_s = None
    if drain is not None:
        drain_s = seconds("drain", drain)
    return [context, choice, every, as_json, drain_s]


def _check(cache: str, choice: Choice) -> None:
    own = [one for one in server_registry.running(cache) if one.mode in STOPPABLE]
    fix = "doit stop --all"
    if choice.names:
        fix = f"doit stop --model {choice.names[0]} --all"
    selection.check_unambiguous(choice.of(own), choice.names, "stop", fix)


def _forget_ended(cache: str, choice: Choice) -> None:
    """Let Prometheus forget servers that ended by themselves."""
    servers = server_registry.list_servers(cache)
    gone = [record for record, liveness in servers if liveness is Liveness.GONE]
    for record in choice.of(gone):
        target_file.forget(record.path)


def run(
    context: Context,
    choice: Choice,
    every: bool,
    as_json: bool,
    drain_s: int | None = None,
) -> None:
    """Stop the servers of the named models, all of them, or the only one.

    Args:
        as_json: print to stdout which were stopped.
        drain_s: most seconds for answers in progress; None: as each was started with.

    Raises:
        UsageError: several run and one is not chosen.
        ServerError: one does not end.
    """
    cache = context.environment.cache
    server_registry.reap_orphans(cache)
    if not every:
        _check(cache, choice)
    running = choice.of(server_registry.running(cache))
    own = [record for record in running if record.mode in STOPPABLE]
    for record in running:
        if record not in own:
            text = "%s at %s belongs to `doit %s` (pid %s), and ends with it"
            doit_adapter.log().info(
                text, record.name, record.url, record.mode.value, record.owner
            )
    where = ""
    if choice.port:
        where = f" on port {choice.port}"
    for name in choice.names:
        if name not in {record.name for record in own}:
            doit_adapter.log().info("%s does not run%s", name, where)
    if not (choice.names or own):
        doit_adapter.log().info("nothing runs%s", where)
    stop_servers(own, drain_s)
    if every or choice.names:
        _forget_ended(cache, choice)
    if as_json:
        stopped = [{"model": record.name, "url": record.url} for record in own]
        names = {record.name for record in own}
        absent = [name for name in choice.names if name not in names]
        doit_adapter.print_json({"stopped": stopped, "not_running": absent})
