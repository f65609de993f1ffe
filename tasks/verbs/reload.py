"""`doit reload`: let a running endpoint serve what models.yaml says now."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.endpoints import ResolvedEndpoint
from tasks.context import Context
from tasks.errors import ServerError
from tasks.server import router_reload, server_locks, server_registry, settings_request
from tasks.server.server_record import Mode, ServerRecord, ServerState, differences
from tasks.server.session import specify
from tasks.server.stopping import stop_server
from tasks.server.watched_files import pins_of


def run(context: Context, endpoint: ResolvedEndpoint) -> None:
    """Take the settings over, or stop the server where it has to be restarted.

    Raises:
        ServerError: it does not run, or a model is still answering.
        SystemExit: a signal came (128 + signal).
    """
    from tasks.system.signals import handle_signals

    cache = context.environment.cache
    with server_locks.start_lock(cache, endpoint.name):
        server_registry.reap_orphans(cache)
        record = _running(cache, endpoint)
        spec = specify(context.environment, context.catalogue, endpoint)
        after = spec.record_spec(record.port)
        changes = differences(record, after, spec.key)
        log = doit_adapter.log()
        for name, text in changes:
            log.info("%s changes %s: %s", endpoint.name, name, text)
        fixed = router_reload.needs_restart([name for name, _ in changes])
        if fixed:
            # refuse invalid settings while the server still runs
            spec.argv(record.port, "")
            text = "%s is restarted: llama-server reads %s only at its start"
            log.info(text, endpoint.name, ", ".join(fixed))
            stop_server(record)
        elif changes:
            stop: list[int] = []
            changed = router_reload.changed_models(record.spec, after)
            limit = endpoint.settings.timeout
            assert spec.router
            members = spec.router.members
            pins = pins_of(spec)
            with handle_signals(stop.append):
                is_done = router_reload.reload(
                    record, members, changed, limit, lambda: stop
                )
            if not is_done:
                raise SystemExit(128 + stop[0])
            settings_request.write(record, after, pins)


def _running(cache: str, endpoint: ResolvedEndpoint) -> ServerRecord:
    for record in server_registry.running(cache):
        if record.name != endpoint.name or record.state is not ServerState.READY:
            continue
        is_port = endpoint.requested_port in (None, record.port)
        if is_port and record.mode is Mode.START:
            return record
    what = f"{endpoint.name} does not run in the background"
    raise ServerError(what, fix=f"doit start --model {endpoint.name}")
