"""`doit stop`: stop servers in the background or in another terminal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tasks import doit_adapter
from tasks.command_line import TaskRequest
from tasks.context import Context, server_choice
from tasks.options import seconds
from tasks.server import selection, server_locks, server_registry, target_file, users
from tasks.server.selection import STOPPABLE, Choice
from tasks.server.server_record import Liveness, ServerRecord
from tasks.server.stopping import stop_servers


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, several servers run and one is not
            chosen, --drain is not a number, or --for is not a name.
    """
    choice = server_choice(context, request)
    user = request.options.get("for")
    if user is not None:
        users.check_name(user)
    every = bool(request.options.get("all")) or user is not None
    if not every and context.command_line.tasks:
        _check(context.environment.cache, choice)
    as_json = bool(request.options.get("json"))
    drain = request.options.get("drain")
    drain_s = None
    if drain is not None:
        drain_s = seconds("drain", drain)
    return [context, choice, every, as_json, drain_s, user]


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
    user: str | None = None,
) -> None:
    """Stop the servers of the named models, all of them, or the only one.

    Args:
        as_json: print to stdout which were stopped.
        drain_s: most seconds for answers in progress; None: as each was started with.
        user: stop only the servers that no other NAME of --for needs.

    Raises:
        UsageError: several run and one is not chosen.
        ServerError: one does not end.
    """
    cache = context.environment.cache
    server_registry.reap_orphans(cache)
    if user is not None:
        own = _stop_unneeded(cache, choice, user, drain_s)
        if as_json:
            _print(own, [])
        return
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
        names = {record.name for record in own}
        _print(own, [name for name in choice.names if name not in names])


def _stop_unneeded(
    cache: str, choice: Choice, user: str, drain_s: int | None
) -> list[ServerRecord]:
    """Stop the servers that `user` alone needs; note that it needs none any more.

    Returns:
        Those that were stopped.

    Raises:
        ServerError: one does not end, or a note cannot be written.
    """
    needed = _needed_by(cache, choice, user)
    if not needed:
        doit_adapter.log().info("nothing runs for %s", user)
    stopped = []
    with ExitStack() as locks:
        for name in sorted({record.name for record in needed}):
            locks.enter_context(server_locks.start_lock(cache, name))
        # read again: until now another command could start or stop them
        for record in _needed_by(cache, choice, user):
            others = [one for one in users.read(record.path) if one != user]
            if not others:
                stopped.append(record)
                continue
            users.write(record.path, others)
            text = "%s at %s runs on: %s needs it"
            names = ", ".join(others)
            doit_adapter.log().info(text, record.name, record.url, names)
        stop_servers(stopped, drain_s)
    return stopped


def _needed_by(cache: str, choice: Choice, user: str) -> list[ServerRecord]:
    running = choice.of(server_registry.running(cache))
    return [record for record in running if user in users.read(record.path)]


def _print(stopped: Sequence[ServerRecord], absent: Sequence[str]) -> None:
    rows = [{"model": record.name, "url": record.url} for record in stopped]
    doit_adapter.print_json({"stopped": rows, "not_running": list(absent)})
