"""Find the server that `chat`, `bench` or `restart` is about, on this machine."""

from __future__ import annotations

import os

from tasks.catalogue.environment import Environment
from tasks.catalogue.types import Catalogue
from tasks.command_line import CommandLine, TaskRequest
from tasks.errors import UsageError
from tasks.server import server_registry
from tasks.server.naming import choice_of
from tasks.server.replicas import first_of_each
from tasks.server.requests_by_kind import kind_of
from tasks.server.selection import STOPPABLE, check_unambiguous
from tasks.server.server_record import Mode, ServerRecord, ServerState


def running_server(
    request: TaskRequest, catalogue: Catalogue, environment: Environment
) -> ServerRecord | None:
    """Return the server that `chat` or `bench` asks: the chosen one, or the only one.

    Raises:
        UsageError: several servers run and one is not chosen, or none has the port.
    """
    if "engine" in request.options:  # a server of its own
        return None
    ready = [
        record
        for record in server_registry.running(environment.cache)
        if record.state is ServerState.READY
    ]
    choice = choice_of(request, catalogue, environment)
    ready = choice.of(ready)
    if not choice.names and choice.port is None:
        ready = [record for record in ready if kind_of(record) == "chat"]
    ready = first_of_each(ready)
    check_unambiguous(ready, choice.names, request.verb)
    if choice.port and not ready:
        what = f"no server is ready on port {choice.port}"
        raise UsageError(what, fix="`doit status` shows the servers")
    return next(iter(ready), None)


def restarted(
    args: CommandLine, catalogue: Catalogue, environment: Environment
) -> CommandLine:
    """Add the model of the server that a command means, and its port.

    It is one of `restart`, `reload` and `roll`, which means all servers of a model,
    whatever their ports are.

    Raises:
        UsageError: none is named and none runs, several match, or the server runs in
            another terminal.
    """
    tasks = [
        _restart_request(request, catalogue, environment)
        if request.verb in ("restart", "reload", "roll")
        else request
        for request in args.tasks
    ]
    return args._replace(tasks=tuple(tasks))


def _restart_request(
    request: TaskRequest, catalogue: Catalogue, environment: Environment
) -> TaskRequest:

    choice = choice_of(request, catalogue, environment)
    running = server_registry.running(environment.cache)
    found = choice.of(record for record in running if record.mode in STOPPABLE)
    has_source = bool({"llamafile", "llamafile_url"} & request.options.keys())
    if request.verb == "roll":
        found = [record for record in found if record.mode is Mode.START]
        found = list({record.name: record for record in found}.values())
    check_unambiguous(found, choice.names, request.verb)
    if not found:
        if choice.names and request.verb != "roll":
            return request
        what = f"there is no server to {request.verb}"
        name = next(iter(choice.names), "NAME")
        raise UsageError(what, fix=f"doit start --model {name}")
    server = found[0]
    if server.mode is not Mode.START:
        where = f"in another terminal (`doit serve`, pid {server.owner})"
        what = f"{server.name} at {server.url} runs {where}"
        raise UsageError(what, fix="press Ctrl-C there, and run it again")
    options = dict(request.options)
    if request.verb != "roll":  # the port is kept
        options["port"] = str(server.port)
    if not (request.model or has_source):
        options["model"] = server.name
        path = server.spec.get("model", "").partition(",")[0]
        if server.name not in catalogue.names and os.path.isabs(path):
            options["llamafile"] = path
            del options["model"]
    if "--variant" in server.spec and not has_source:
        options.setdefault("variant", server.spec["--variant"])
    return request._replace(options=options)
