"""`doit restart`: end a server in the background; `start` starts it again.

Its settings are those of now: of the command line and models.yaml. The port is kept.
"""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.endpoints import Servable
from tasks.context import Context
from tasks.server import server_registry
from tasks.server.server_record import Mode, ServerRecord, differences
from tasks.server.session import specify
from tasks.server.stopping import stop_server


def run(context: Context, resolved: Servable) -> None:
    """Say which settings change, and end the server, if it runs.

    Raises:
        ServerError: the engine does not support a setting, or the server does not end.
    """
    cache = context.environment.cache
    server_registry.reap_orphans(cache)
    spec = specify(context.environment, context.catalogue, resolved)
    for record in server_registry.running(cache):
        if _is_meant(record, resolved):
            # refuse invalid settings while the server still runs
            spec.argv(record.port, "")
            changes = differences(record, spec.record_spec(record.port), spec.key)
            for name, text in changes:
                doit_adapter.log().info("%s changes %s: %s", resolved.name, name, text)
            stop_server(record)


def _is_meant(record: ServerRecord, resolved: Servable) -> bool:
    if record.mode is not Mode.START or record.name != resolved.name:
        return False
    return resolved.requested_port in (None, record.port)
