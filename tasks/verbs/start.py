"""`doit start`: the server in the background. Ready when the command returns; its URL is on stdout."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine import server_registry, session
from tasks.engine.server_record import Mode, Run, State, differences
from tasks.engine.session import Server, check_start, key_of, pick_port, spec
from tasks.errors import ServerError

_AGAIN = "doit stop --model {}, then this again"


def check(recipe: Recipe, job: Job) -> None:
    """Before anything is downloaded for nothing. Raises ServerError: it could not be started."""
    check_start(recipe, job)
    if not server_registry.can_record(recipe.place.cache):
        raise server_registry.cannot_record(recipe.place.cache)
    try:
        _port(recipe, job)
    except ServerError:
        if not _started(recipe, job):  # looked at last: another doit may be starting it just now
            raise


def run(recipe: Recipe, job: Job) -> None:
    """Start it, unless the same one runs already.

    Raises:
        ServerError: it runs with other settings, could not be started or was not ready in time.
        SystemExit: stopped before it was ready (128 + signal).
    """
    with server_registry.claim(recipe.place.cache, job.name):
        server_registry.clean(recipe.place.cache)
        run = next((run for run in _started(recipe, job) if _is_ready(run)), None)
        if run is None:
            run = _start(recipe, job)
        else:
            found = differences(run, spec(recipe, job, job.port or None), key_of(job))
            if found:
                what = f"{job.name} runs already at {run.url}, with other settings"
                raise ServerError(what, found, fix=_AGAIN.format(job.name))
            _check_answers(job, run)
            doit_adapter.say(
                "server_runs", "%s runs already at %s", job.name, run.url, model=job.name, url=run.url
            )
    doit_adapter.show(run.url)


def _start(recipe: Recipe, job: Job) -> Run:
    from tasks.system.signals import on_signals

    stop: list[int] = []
    with on_signals(stop.append):
        for run in server_registry.ended(recipe.place.cache, job.name):
            server_registry.forget(run.path)
        with server_registry.claim_port(recipe.place.cache):
            server = Server(recipe, job, Mode.START, _port(recipe, job), stop)
        lives = False
        try:
            lives = server.wait_ready() is not None
        finally:
            if lives:
                server.detach()
            else:
                server.end()
    if not lives:
        raise SystemExit(128 + stop[0])
    doit_adapter.log().info("%s", session.usage(job.model, server.run, f"doit stop --model {job.name}"))
    return server.run


def _is_ready(run: Run) -> bool:
    """Whether it is on record as ready, or answers so: the record may wait for space on the disk.

    Whoever is at one that is not ready yet would have the claim.
    """
    from tasks.engine import client

    waits = run.state is State.STARTING
    return run.state is State.READY or (waits and client.health(run.host, run.port) == 200)


def _check_answers(job: Job, run: Run) -> None:
    """Raise ServerError: it runs, and is not what the caller waits for."""
    from tasks.engine import client

    if client.health(run.host, run.port) != 200:
        what = f"{job.name} runs at {run.url} and does not answer"
        raise ServerError(what, [("log", run.log)], fix=_AGAIN.format(job.name))
    if job.probe:
        client.probe(job.name, run.host, run.port, run.key, job.settings.timeout or 0)


def _started(recipe: Recipe, job: Job) -> list[Run]:
    """The model's servers in the background."""
    return [
        r for r in server_registry.running(recipe.place.cache) if (r.name, r.mode) == (job.name, Mode.START)
    ]


def _port(recipe: Recipe, job: Job) -> int:
    """The usual port; any free one if another server of ours has that and none was asked for."""
    try:
        return pick_port(recipe, job, any_free=False)
    except ServerError:  # looked at last: another doit may be starting one just now
        if not any(run.port == job.settings.port for run in server_registry.running(recipe.place.cache)):
            raise
        return pick_port(recipe, job, any_free=True)
