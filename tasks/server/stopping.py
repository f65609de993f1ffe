"""End a server for `stop`, `restart` and `roll`, and report it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from tasks import doit_adapter
from tasks.errors import ServerError
from tasks.server import drain, drain_request, server_registry
from tasks.server.server_record import ServerRecord


def stop_server(server: ServerRecord, drain_s: int | None = None) -> None:
    """End a server once its answers are finished; warn if its port is still in use.

    Args:
        drain_s: most seconds for its answers; None: as it was started with.

    Raises:
        ServerError: it does not end.
    """
    from tasks.system.ports import free_port

    name, url = server.name, server.url
    text = "stopping %s at %s"
    doit_adapter.log_event("server_stopping", text, name, url, model=name, url=url)
    limit_s = _announce(server, drain_s)
    if not server_registry.stop(server, limit_s):
        pid = 0
        if server.engine:
            pid = server.engine.pid
        raise ServerError(f"{name} (pid {pid}) does not end", fix=f"kill -9 {pid}")
    doit_adapter.log_event("server_stopped", "%s has stopped", name, model=name)
    try:
        free_port(server.host, server.port)
    except ServerError as error:
        doit_adapter.log().warning("%s", error.what)


def stop_servers(servers: Sequence[ServerRecord], drain_s: int | None = None) -> None:
    """End servers at the same time: each finishes its own answers.

    Raises:
        ServerError: one does not end. The others are ended.
    """
    errors: list[Exception] = []

    def end(server: ServerRecord) -> None:
        try:
            stop_server(server, drain_s)
        except Exception as error:
            errors.append(error)

    # daemons, so that Ctrl-C does not wait for the answers
    threads = [
        threading.Thread(target=end, args=[server], daemon=True) for server in servers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _announce(server: ServerRecord, drain_s: int | None) -> int:
    """Say what is waited for, and tell the supervisor; return the limit in seconds.

    Raises:
        ServerError: the supervisor cannot be told.
    """
    limit_s = server.drain
    if drain_s is not None:
        limit_s = drain_s
    if drain_s is not None and drain_s != server.drain:
        try:
            drain_request.write(server.path, drain_s)
        except OSError as error:
            what = f"cannot write beside {server.path}: {error.strerror}"
            raise ServerError(what, fix="stop it without --drain") from None
    if server.ready_s is None or not limit_s:
        return limit_s
    requests = drain.requests_of(server)
    if requests:
        text = drain.progress(server.name, requests, limit_s)
        doit_adapter.log().info("%s; stop it again to end it at once", text)
    if sys.platform == "win32":  # a supervisor cannot be asked there, only ended
        drain.wait_idle(lambda: drain.requests_of(server), limit_s)
    return limit_s
