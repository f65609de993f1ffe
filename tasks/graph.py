"""The task graph of this command line, and doit's settings.

One creator for all verbs, because doit reads the source of every creator in every run (1.3 ms each), and
because a verb's module is only imported where the command line reaches it. See docs/adr/0003.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module

from doit.task import Task

from tasks import glue
from tasks.core.options import CHAIN, VERBS
from tasks.recipe import Recipe, recipe

DOIT_CONFIG = {
    "default_tasks": ["catalogue"],
    "reporter": glue.reporter(os.environ),
    # doit's own memory is not used: what is on disk is the truth, and the cache says what was proven of it
    "backend": "sqlite3",
    "dep_file": ":memory:",
    "verbosity": 2,
}


def task_recipe() -> Iterator[Task]:
    """every task that the command line reaches"""
    yield from graph(glue.at_load(recipe))


def graph(found: Recipe) -> Iterator[Task]:
    """The tasks of one command line on one machine."""
    yield _single("catalogue", found)
    yield _single("exe", found)
    for verb in CHAIN:
        yield from _chained(verb, found)


def _single(verb: str, found: Recipe) -> Task:
    """A verb without models."""
    about, options, _ = VERBS[verb]
    task: Task = import_module(f"tasks.{verb}").task(found) if _reached(verb, found) else glue.group(verb, [])
    task.doc, task.params = about, options
    return task


def _reached(verb: str, found: Recipe) -> bool:
    request = found.request
    asked = any(ask.verb == verb for ask in request.asks) or verb in request.words
    if verb == "exe":
        return asked or any(job.exe for job in found.jobs.by_name.values())
    return asked or not (request.asks or request.command)


def _chained(verb: str, found: Recipe) -> Iterator[Task]:
    """`verb`, and `verb:MODEL` for every model that the command line reaches."""
    about, options, one_options = VERBS[verb]
    # what stands after `--` is a positional argument to doit; it reaches the engine through the job
    rest = "engine_arguments" if verb == "serve" else None
    deps = [f"{verb}:{name}" for name in found.jobs.of(verb)]
    yield glue.group(verb, deps, doc=about, params=options, pos_arg=rest)
    if not found.request.reaches(verb) or (found.request.listing and verb != "serve"):
        return
    module = import_module(f"tasks.{verb}")
    tasks = {name: module.task(found, job) for name, job in found.jobs.by_name.items()}
    if verb == "serve":
        for job in found.jobs.by_name.values():  # first, before anything is downloaded for nothing
            yield glue.task(f"_endpoint:{job.name}", module.check_endpoint, [job])
    tasks |= {alias: glue.group("", [f"{verb}:{name}"]) for alias, name in found.jobs.aliases.items()}
    for name, task in tasks.items():
        task.name, task.params, task.pos_arg, task.subtask_of = f"{verb}:{name}", one_options, rest, verb
        yield task
