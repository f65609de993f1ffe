"""`doit serve`: run an OpenAI-compatible server in the foreground, until Ctrl-C."""

from __future__ import annotations

import time

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine import session
from tasks.engine.server_record import Mode
from tasks.engine.session import check_start, pick_port, serving, specify

_WATCH_S = 0.2  # between two checks of a running engine


def check(recipe: Recipe, job: Job) -> None:
    """Check that the model can be served, before anything is downloaded.

    Raises:
        ServerError: it cannot.
    """
    cache = recipe.place.cache
    check_start(cache, job, recipe.download_policy())
    pick_port(cache, job.settings.host, job.port_to_try(any_free=False))


def run(recipe: Recipe, job: Job) -> None:
    """Start the engine, report when it is ready, and stop it when asked to.

    Raises:
        ServerError: it could not be started, was not ready in time, or ended by itself.
        SystemExit: it was stopped before it was ready (128 + signal).
    """
    spec = specify(recipe.place, recipe.catalogue, job)
    port = job.port_to_try(any_free=False)
    with serving(recipe.place.cache, spec, Mode.SERVE, port) as (server, stop):
        if server is not None:
            usage = session.usage(job.model, server.run, "Ctrl-C")
            doit_adapter.log().info("%s", usage)
            while not stop and not server.ended_by_stop():
                server.check_alive()
                time.sleep(_WATCH_S)
    if server is None:
        raise SystemExit(128 + stop[0])
