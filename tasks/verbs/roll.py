"""`doit roll`: restart the servers of a model one by one, without a lost request.

Each is taken out of the load balancer, stopped, started by `start` on its port, and put
back before the next one is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks import doit_adapter
from tasks.catalogue.resolve import ResolvedModel
from tasks.context import Context
from tasks.errors import UsageError
from tasks.options import seconds
from tasks.server import server_registry
from tasks.server.haproxy import Haproxy
from tasks.server.nginx import PID_FILE, Nginx
from tasks.server.server_record import Mode, ServerRecord
from tasks.server.session import specify
from tasks.server.stopping import stop_server

_WAIT_S = 300
Start = Callable[[Context, ResolvedModel], None]


def actions(context: Context, resolved: ResolvedModel, start: Start) -> list[Any]:
    """Return the actions of the task: the steps of each server, by port.

    Args:
        start: starts a server, unless it is running.

    Raises:
        UsageError: an option is wrong.
    """
    if context.command_line.tasks:
        _balancer(context)  # a wrong option is an error before anything is run
    found: list[Any] = [(begin, [context, resolved])]
    for port in sorted(record.port for record in _running(context, resolved)):
        replica = resolved._replace(requested_port=port, replicas=1)
        found += [(step, [context, replica]) for step in (stop, start, put_back)]
    return found


def begin(context: Context, resolved: ResolvedModel) -> None:
    """Refuse what cannot work before a server is stopped.

    Raises:
        RecipeError: the engine does not support a setting, or the load balancer does
            not have one of the servers.
    """
    server_registry.reap_orphans(context.environment.cache)
    spec = specify(context.environment, context.catalogue, resolved)
    running = _running(context, resolved)
    for record in running:
        spec.argv(record.port, "")
        if balancer := _balancer(context):
            balancer.members(record.port)
    if len(running) == 1:
        text = "warning: %s has one server, which does not answer while it restarts"
        doit_adapter.log().warning(text, resolved.name)


def stop(context: Context, replica: ResolvedModel) -> None:
    """End one server, once it has no requests.

    Raises:
        ServerError: it still has requests after the time, or does not end.
    """
    port = replica.requested_port or 0
    limit_s = _wait_s(context)
    if balancer := _balancer(context):
        names = ", ".join(member.title for member in balancer.members(port))
        text = "%s sends no new requests to %s"
        doit_adapter.log().info(text, balancer.name, names)
        balancer.drain(port, limit_s)
    for record in _running(context, replica):
        if record.port == port:
            stop_server(record, limit_s)


def put_back(context: Context, replica: ResolvedModel) -> None:
    """Let the load balancer use a server again.

    Raises:
        ServerError: the load balancer does not see it as up.
    """
    port = replica.requested_port or 0
    if balancer := _balancer(context):
        balancer.put_back(port)
        names = ", ".join(member.title for member in balancer.members(port))
        doit_adapter.log().info("%s is up for %s", names, balancer.name)


def _running(context: Context, resolved: ResolvedModel) -> list[ServerRecord]:
    """Return the model's servers in the background; a file's, by its path."""
    return [
        record
        for record in server_registry.running(context.environment.cache)
        if (record.name, record.mode) == (resolved.name, Mode.START)
        and (not resolved.is_own or resolved.artifact.target in record.command)
    ]


def _balancer(context: Context) -> Haproxy | Nginx | None:
    options = context.command_line.tasks[-1].options
    socket, file = options.get("haproxy"), options.get("nginx")
    if socket and file:
        raise UsageError("--haproxy or --nginx, not both")
    if socket:
        return Haproxy(_path(context, socket))
    if file:
        pid_file = _path(context, options.get("nginx_pid", PID_FILE))
        return Nginx(_path(context, file), pid_file, _wait_s(context))
    return None


def _path(context: Context, path: str) -> str:
    return context.environment.absolute(path, context.environment.cwd)


def _wait_s(context: Context) -> int:
    options = context.command_line.tasks[-1].options
    return seconds("wait", options.get("wait", str(_WAIT_S)))
