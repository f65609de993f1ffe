"""End a server for `stop` and `restart`, and report it."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.engine import server_registry
from tasks.engine.server_record import ServerRecord
from tasks.errors import ServerError


def stop_server(server: ServerRecord) -> None:
    """End a server; warn if its port is still in use.

    Raises:
        ServerError: it does not end.
    """
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
