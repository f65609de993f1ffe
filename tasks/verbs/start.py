"""`doit start`: run a server in the background, print its URL when it is ready."""

from __future__ import annotations

from typing import Any

from tasks import doit_adapter
from tasks.catalogue.endpoints import ResolvedEndpoint, Servable
from tasks.context import Context
from tasks.engine.launch_spec import LaunchSpec
from tasks.errors import ServerError
from tasks.server import messages, run_folder, server_locks, server_registry, users
from tasks.server.replicas import Replica, plan
from tasks.server.server_record import Mode, ServerRecord, ServerState, differences
from tasks.server.session import ManagedServer, check_start, pick_port, specify
from tasks.server.stopping import stop_server


def check_background(context: Context, resolved: Servable) -> None:
    """Check that a server that outlives doit can be started and recorded.

    Raises:
        ServerError: it cannot.
    """
    cache = context.environment.cache
    check_start(cache, resolved, context.download_policy())
    if not run_folder.can_record(cache):
        raise run_folder.record_error(cache)


def check_user(context: Context, resolved: Servable) -> None:
    """Check the value of --for while the tasks are loaded.

    Raises:
        UsageError: it is not a name.
    """
    user = context.option_of(resolved, "for")
    if user is not None:
        users.check_name(user)


def check(context: Context, resolved: Servable) -> None:
    """Check that the server can be started, before anything is downloaded.

    Raises:
        ServerError: it cannot.
    """
    check_background(context, resolved)
    cache = context.environment.cache
    for number, one in enumerate(plan(resolved, _started(cache, resolved))):
        if one.record is not None:
            continue
        try:
            _port(cache, one.resolved)
        except ServerError:
            # read after the port: another doit may just have started this server
            if plan(resolved, _started(cache, resolved))[number].record is None:
                raise


def run(context: Context, resolved: Servable) -> None:
    """Start the server, or its replicas, unless the same ones are already running.

    One with other settings is replaced if only the NAME of --for needs it.

    Raises:
        ServerError: it runs with other settings, could not be started, or was not
            ready in time.
        SystemExit: it was stopped before it was ready (128 + signal).
    """
    cache = context.environment.cache
    user = context.option_of(resolved, "for")
    with server_locks.start_lock(cache, resolved.name):
        server_registry.reap_orphans(cache)
        ready = [record for record in _started(cache, resolved) if _is_ready(record)]
        spec = specify(context.environment, context.catalogue, resolved)
        rows = []
        for asked in plan(resolved, ready):
            one = _replaced(asked, spec, user)
            record = one.record
            if record is None:
                record = _start(cache, one.resolved, spec, user)
            else:
                _check_runs(one.resolved, spec, record)
                _note_user(record, user)
            rows.append(_row(record, one.record is None))
    if "json" not in context.options_of(resolved):
        for row in rows:
            doit_adapter.print_report(row["url"])
    elif "replicas" in context.options_of(resolved):
        doit_adapter.print_json(rows)
    else:
        doit_adapter.print_json(rows[0])


def _check_runs(resolved: Servable, spec: LaunchSpec, record: ServerRecord) -> None:
    """Check that a running server is the one that is asked for, and report it.

    Raises:
        ServerError: it has other settings, or does not answer.
    """
    _check_same(resolved, spec, record)
    _check_answers(resolved, record)
    text = "%s is already running at %s"
    name, url = resolved.name, record.url
    doit_adapter.log_event("server_runs", text, name, url, model=name, url=url)


def _row(record: ServerRecord, is_new: bool) -> dict[str, Any]:
    """Return the facts about the server, as `doit status --json` names them.

    `id` is the model of a request, also where the server is an endpoint.
    """
    return {
        "model": record.name,
        "id": record.spec.get("--alias", record.name),
        "url": record.url,
        "engine": record.spec.get("--engine"),
        "log": record.log,
        "started": is_new,
    }


def _replaced(one: Replica, spec: LaunchSpec, user: str | None) -> Replica:
    """End a server with other settings that only `user` needs, to start it again.

    Raises:
        ServerError: it does not end.
    """
    record = one.record
    if record is None or user is None or users.read(record.path) != [user]:
        return one
    port = one.resolved.requested_port or None
    changes = differences(record, spec.record_spec(port), spec.key)
    if not changes:
        return one
    for name, text in changes:
        doit_adapter.log().info("%s changes %s: %s", record.name, name, text)
    stop_server(record)
    again = one.resolved._replace(requested_port=port or record.port)
    return Replica(again, None)


def _note_user(record: ServerRecord, user: str | None) -> None:
    """Note who needs a server that runs, unless it was started without a name.

    Raises:
        ServerError: that cannot be written.
    """
    known = users.read(record.path)
    if user is not None and known:
        users.write(record.path, [*known, user])


def _check_same(resolved: Servable, spec: LaunchSpec, record: ServerRecord) -> None:
    """Check that a running server has the settings that are asked for.

    Raises:
        ServerError: it has others.
    """
    facts = differences(
        record, spec.record_spec(resolved.requested_port or None), spec.key
    )
    if facts:
        what = (
            f"{resolved.name} is already running at {record.url}, with other settings"
        )
        fix = _stop_command(record)
        if isinstance(resolved, ResolvedEndpoint):
            fix = f"doit reload --model {record.name}"
        raise ServerError(what, facts, fix=fix)


def _start(
    cache: str, resolved: Servable, spec: LaunchSpec, user: str | None
) -> ServerRecord:
    from tasks.system.signals import handle_signals

    stop: list[int] = []
    with handle_signals(stop.append):
        for record in server_registry.ended(cache, resolved.name):
            server_registry.delete_record(record.path)
        with server_locks.port_lock(cache):
            port = _port(cache, resolved)
            _report_port(cache, resolved, port)
            server = ManagedServer(cache, spec, Mode.START, port, stop)
        is_ready = False
        try:
            # now: a `doit stop --for` meanwhile waits for it, and a kill loses nothing
            if user is not None:
                users.write(server.record.path, [user])
            is_ready = server.wait_ready() is not None
        finally:
            if is_ready:
                server.detach()
            else:
                server.end()
    if not is_ready:
        raise SystemExit(128 + stop[0])
    stop_command = f"doit stop --model {resolved.name}"
    running = server_registry.running(cache)
    count = sum(record.name == resolved.name for record in running)
    if max(count, resolved.replicas) > 1:
        stop_command = _stop_command(server.record)
    usage = messages.ready_text(resolved, server.record, stop_command)
    doit_adapter.log_for_people(usage)
    return server.record


def _report_port(cache: str, resolved: Servable, port: int) -> None:
    """Log which server has the usual port, if this one gets another."""
    usual = resolved.settings.port
    if resolved.requested_port is not None or usual in (0, port):
        return
    running = server_registry.running(cache)
    other = next((record.name for record in running if record.port == usual), "")
    text = "port %s belongs to the server of %s, so %s gets port %s"
    name = resolved.name
    facts: dict[str, Any] = {"model": name, "port": port, "usual_port": usual}
    doit_adapter.log_event("port_chosen", text, usual, other, name, port, **facts)


def _is_ready(record: ServerRecord) -> bool:
    """Whether the server is ready, by its record or by its answer.

    The record may be late: it waits for space on the disk. No other process is starting
    this server, for that process would hold the claim.
    """
    from tasks.server import client

    if record.state is ServerState.STARTING:
        return client.health(record.host, record.port) == 200
    return record.state is ServerState.READY


def _check_answers(resolved: Servable, record: ServerRecord) -> None:
    """Check that a running server answers, and with --probe that it generates a token.

    Raises:
        ServerError: it does not.
    """
    from tasks.server import client

    if client.health(record.host, record.port) != 200:
        what = f"{resolved.name} runs at {record.url} and does not answer"
        raise ServerError(what, [("log", record.log)], fix=_stop_command(record))
    if resolved.probe:
        probed = resolved
        if isinstance(probed, ResolvedEndpoint):
            probed = probed.default
        client.probe_inference(
            probed.name,
            record.host,
            record.port,
            record.key,
            resolved.settings.timeout,
            kind=probed.model.kind,
        )


def _stop_command(record: ServerRecord) -> str:
    """Return the command that stops one server, if others of its name run, too."""
    return f"doit stop --model {record.name} --port {record.port}"


def _started(cache: str, resolved: Servable) -> list[ServerRecord]:
    """Return a model's servers in the background.

    Files of the user's in two folders may have one name.
    """
    return [
        record
        for record in server_registry.running(cache)
        if (record.name, record.mode) == (resolved.name, Mode.START)
        and _is_same_file(resolved, record)
    ]


def _is_same_file(resolved: Servable, record: ServerRecord) -> bool:
    """Whether a server of this name serves the same file; names of entries are one."""
    if isinstance(resolved, ResolvedEndpoint) or not resolved.is_own:
        return True
    return resolved.artifact.target in record.command


def _port(cache: str, resolved: Servable) -> int:
    """Return the usual port, or any free one if a server of this cache has that one.

    Raises:
        ServerError: the port is in use, and it was asked for or another program has it.
    """
    host = resolved.settings.host
    try:
        return pick_port(cache, host, resolved.port_to_try(any_free=False))
    except ServerError:
        # read after the port: another doit may just have started a server
        running = server_registry.running(cache)
        if not any(record.port == resolved.settings.port for record in running):
            raise
        return pick_port(cache, host, resolved.port_to_try(any_free=True))
