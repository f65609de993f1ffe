"""`doit serve`: an OpenAI-compatible server in the foreground, until Ctrl-C."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from multiprocessing import parent_process
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from doit.task import Task

from tasks import glue
from tasks.core import command, lifecycle, report
from tasks.core.errors import ServerError
from tasks.core.jobs import Job
from tasks.recipe import Recipe
from tasks.verify import engine_env, engine_version, launch_of, run_dir

if TYPE_CHECKING:
    from tasks.effects.process import Child

_WATCH_S = 0.2  # between two looks at a running engine


def task(recipe: Recipe, job: Job) -> Task:
    """The task of one model."""
    return glue.task(
        f"serve:{job.name}",
        serve,
        [recipe, job],
        task_dep=[f"_endpoint:{job.name}", f"verify:{job.name}"],
        doc=report.task_line(job.model),
    )


def check_endpoint(job: Job) -> int:
    """The port to serve on.

    Raises ServerError: it is taken, the host is no address of this machine, or nobody could stop the server.
    """
    from tasks.effects import server

    if parent_process() or current_thread() is not main_thread():
        raise ServerError("Ctrl-C does not reach what `doit -n` runs", fix="leave -n away")
    return server.free_port(job.settings.host or "127.0.0.1", job.settings.port or 0)


def serve(recipe: Recipe, job: Job) -> None:
    """Start the engine, say when it is ready, and stop it when asked to.

    Raises:
        ServerError: it could not be started, was not ready in time, or ended by itself.
        SystemExit: stopped before it was ready (128 + signal).
    """
    from tasks.effects import process, server, signals

    settings = job.settings
    host, port = settings.host or "127.0.0.1", check_endpoint(job)
    words = _command(recipe, job, host, port)
    folder = run_dir(recipe.place.cache)
    log = os.path.join(folder, f"{job.name}-{port}.log")
    # noted, not raised: an exception could strike between the engine's start and the note of its pid
    stop: list[int] = []
    with signals.on_signals(stop.append):
        try:
            child = process.Child(words, env=engine_env(job.engine), cwd=folder, log=log)
        except OSError as error:
            raise server.failed_start(job.name, words, error) from None
        try:
            glue.log().info("starting %s (%s, log %s)", job.name, _said_version(recipe, job), log)
            took = server.wait_ready(job.name, child, host, port, settings.timeout or 0, lambda: stop)
            if took is not None:
                url = report.base_url(host, port)
                glue.log().info("%s", report.ready(job.name, job.model, url, took, log))
                _watch(job, child, stop, recipe.place.platform)
        finally:
            gone = child.stop(hurry=lambda: len(stop) > 1)
    if not gone:
        raise ServerError(f"{job.name} (pid {child.pid}) does not end", fix=f"kill -9 -{child.pid}")
    glue.log().info("%s has stopped", job.name)
    if took is None:
        raise SystemExit(128 + stop[0])


def _command(recipe: Recipe, job: Job, host: str, port: int) -> list[str]:
    settings = replace(job.settings, host=host, port=port)
    version = engine_version(recipe, job)
    return command.serve_command(launch_of(recipe, job), settings, version=version, extra=job.extra)


def _said_version(recipe: Recipe, job: Job) -> str:
    name = "llamafile" if job.engine in ("self", "llamafile") else job.engine
    return f"{name} {engine_version(recipe, job)}".strip()


def _watch(job: Job, child: Child, stop: list[int], platform: str) -> None:
    """Until the user asks to stop; an engine that ends by itself is a failure."""
    while not stop:
        if child.exited() is not None:
            raise lifecycle.failure(f"{job.name} ended by itself", child.ending(), platform)
        time.sleep(_WATCH_S)
