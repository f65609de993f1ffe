"""`doit start`: run a server in the background, print its URL when it is ready."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine import server_registry, session
from tasks.engine.launch_spec import LaunchSpec
from tasks.engine.server_record import Mode, Run, State, differences
from tasks.engine.session import Server, check_start, pick_port, specify
from tasks.errors import ServerError

_AGAIN = "doit stop --model {}, then this again"


def check(recipe: Recipe, job: Job) -> None:
    """Check that the server can be started, before anything is downloaded.

    Raises:
        ServerError: it cannot.
    """
    cache = recipe.place.cache
    check_start(cache, job, recipe.download_policy())
    if not server_registry.can_record(cache):
        raise server_registry.cannot_record(cache)
    try:
        _port(cache, job)
    except ServerError:
        # read after the port: another doit may just have started this server
        if not _started(cache, job.name):
            raise


def run(recipe: Recipe, job: Job) -> None:
    """Start the server, unless the same one is already running.

    Raises:
        ServerError: it runs with other settings, could not be started, or was not
            ready in time.
        SystemExit: it was stopped before it was ready (128 + signal).
    """
    cache = recipe.place.cache
    with server_registry.claim(cache, job.name):
        server_registry.clean(cache)
        run = next((run for run in _started(cache, job.name) if _is_ready(run)), None)
        spec = specify(recipe.place, recipe.catalogue, job)
        if run is None:
            run = _start(cache, job, spec)
        else:
            _check_same(job, spec, run)
            _check_answers(job, run)
            text = "%s is already running at %s"
            name, url = job.name, run.url
            doit_adapter.say("server_runs", text, name, url, model=name, url=url)
    doit_adapter.show(run.url)


def _check_same(job: Job, spec: LaunchSpec, run: Run) -> None:
    """Check that a running server has the settings that are asked for.

    Raises:
        ServerError: it has others.
    """
    facts = differences(run, spec.record_spec(job.port or None), spec.key)
    if facts:
        what = f"{job.name} is already running at {run.url}, with other settings"
        raise ServerError(what, facts, fix=_AGAIN.format(job.name))


def _start(cache: str, job: Job, spec: LaunchSpec) -> Run:
    from tasks.system.signals import on_signals

    stop: list[int] = []
    with on_signals(stop.append):
        for run in server_registry.ended(cache, job.name):
            server_registry.forget(run.path)
        with server_registry.claim_port(cache):
            server = Server(cache, spec, Mode.START, _port(cache, job), stop)
        is_ready = False
        try:
            is_ready = server.wait_ready() is not None
        finally:
            if is_ready:
                server.detach()
            else:
                server.end()
    if not is_ready:
        raise SystemExit(128 + stop[0])
    usage = session.usage(job.model, server.run, f"doit stop --model {job.name}")
    doit_adapter.log().info("%s", usage)
    return server.run


def _is_ready(run: Run) -> bool:
    """Whether the server is ready, by its record or by its answer.

    The record may be late: it waits for space on the disk. No other process is starting
    this server, for that process would hold the claim.
    """
    from tasks.engine import client

    if run.state is State.STARTING:
        return client.health(run.host, run.port) == 200
    return run.state is State.READY


def _check_answers(job: Job, run: Run) -> None:
    """Check that a running server answers, and with --probe that it generates a token.

    Raises:
        ServerError: it does not.
    """
    from tasks.engine import client

    if client.health(run.host, run.port) != 200:
        what = f"{job.name} runs at {run.url} and does not answer"
        raise ServerError(what, [("log", run.log)], fix=_AGAIN.format(job.name))
    if job.probe:
        client.probe(job.name, run.host, run.port, run.key, job.settings.timeout)


def _started(cache: str, name: str) -> list[Run]:
    """Return a model's servers in the background."""
    running = server_registry.running(cache)
    return [run for run in running if (run.name, run.mode) == (name, Mode.START)]


def _port(cache: str, job: Job) -> int:
    """Return the usual port, or any free one if a server of this cache has that one.

    Raises:
        ServerError: the port is in use, and it was asked for or another program has it.
    """
    host = job.settings.host
    try:
        return pick_port(cache, host, job.port_to_try(any_free=False))
    except ServerError:
        # read after the port: another doit may just have started a server
        running = server_registry.running(cache)
        if not any(run.port == job.settings.port for run in running):
            raise
        return pick_port(cache, host, job.port_to_try(any_free=True))
