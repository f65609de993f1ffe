"""The task graph of this command line, and doit's settings.

One creator for all verbs, because doit reads the source of every creator in every run (1.3 ms each), and
because a verb's module is only imported where the command line reaches it. See docs/adr/0003.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from doit.task import Task

from tasks import doit_adapter
from tasks.command_line import FORESEES, LOOKS, STARTS, STEPS, VERBS, Ask
from tasks.context import Recipe, recipe

DOIT_CONFIG = {
    "default_tasks": ["catalogue"],
    "reporter": doit_adapter.reporter(os.environ),
    # doit's own memory is not used: what is on disk is the truth, and the cache says what was proven of it
    "backend": "sqlite3",
    "dep_file": ":memory:",
    "verbosity": 2,
}


def task_recipe() -> Iterator[Task]:
    """every task that the command line reaches"""
    yield from doit_adapter.at_load(lambda: list(graph(recipe())))


def graph(found: Recipe) -> Iterator[Task]:
    """The tasks of one command line on one machine."""
    yield _single("catalogue", found)
    yield _single("exe", found)
    for verb in (*STEPS, *STARTS):
        yield from _chained(verb, found)
    for verb in (*LOOKS, *FORESEES):
        yield from _looking(verb, found)


def _single(verb: str, found: Recipe) -> Task:
    """A verb without models."""
    about, options, _, _ = VERBS[verb]
    task: Task = _report_module(verb).task(found) if _reached(verb, found) else doit_adapter.group(verb, [])
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
    about, options, one_options, rest = VERBS[verb]
    # what stands behind the last verb is a positional argument to doit; it reaches the engine through the job
    last = found.request.asks[-1].verb if found.request.asks else ""
    rest = (rest or None) if verb == last else None  # type: ignore[assignment]
    if verb == "chat" and (run := _running(found)):
        yield from _chat(run, found)
        return
    exist = found.request.reaches(verb) and found.request.shows(verb)
    # `doit list --all VERB` lists what the verb's task depends on
    names = found.jobs.by_name if exist and found.request.command == "list" else found.jobs.of(verb)
    deps = [f"{verb}:{name}" for name in names]
    yield doit_adapter.group(verb, deps, doc=about, params=options, pos_arg=rest)
    if not exist:
        return
    module = _chain_module(verb)
    tasks = {name: module.task(found, job) for name, job in found.jobs.by_name.items()}
    if verb in STARTS:
        for job in found.jobs.by_name.values():  # first, before anything is downloaded for nothing
            yield doit_adapter.task(f"_check_{verb}:{job.name}", module.check, [found, job])
            tasks[job.name].task_dep += [f"_check_{verb}:{job.name}", f"verify:{job.name}"]
    tasks |= {alias: doit_adapter.group("", [f"{verb}:{name}"]) for alias, name in found.jobs.aliases.items()}
    for name, task in tasks.items():
        task.name, task.params, task.pos_arg, task.subtask_of = f"{verb}:{name}", one_options, rest, verb
        yield task


def _chat(run: Any, found: Recipe) -> Iterator[Task]:
    """`chat`, or `chat:MODEL`, with a server that runs."""
    from tasks.verbs import chat

    ask = found.request.asks[-1]
    about, options, one_options, rest = VERBS["chat"]
    fields: dict[str, Any] = {"meta": {"report": True}, "pos_arg": rest, "params": options}
    if ask.model:
        yield doit_adapter.group("chat", [], doc=about)
        fields |= {"params": one_options, "subtask_of": "chat"}
    name = f"chat:{ask.model}" if ask.model else "chat"
    yield doit_adapter.task(name, chat.chat_with, [run, ask.extra], **fields)


def _running(found: Recipe) -> Any:
    """The server that `doit chat` found running, if it did."""
    return next((ask.options["run"] for ask in found.request.asks if "run" in ask.options), None)


def _looking(verb: str, found: Recipe) -> Iterator[Task]:
    """A verb that looks at what runs, and `verb:MODEL` where that is asked for."""
    about, options, one_options, rest = VERBS[verb]
    asks = [ask for ask in found.request.asks if ask.verb == verb]
    asks += [
        Ask(verb, word.partition(":")[2], {}) for word in found.request.words if word.startswith(f"{verb}:")
    ]
    plain = next((ask for ask in asks if not ask.model), None)

    def module() -> Any:
        return _report_module(verb)

    task = module().task(found, plain) if plain else doit_adapter.group(verb, [])
    task.doc, task.params, task.pos_arg = about, options, rest or None
    yield task
    for ask in {ask.model: ask for ask in asks if ask.model}.values():
        task = module().task(found, ask)
        task.params, task.subtask_of = one_options, verb
        yield task


def _chain_module(verb: str) -> Any:
    """The module of a step or of a server's verb; imported only where it is reached."""
    match verb:
        case "download":
            from tasks.verbs import download

            return download
        case "chmod":
            from tasks.verbs import chmod

            return chmod
        case "verify":
            from tasks.verbs import verify

            return verify
        case "serve":
            from tasks.verbs import serve

            return serve
        case "start":
            from tasks.verbs import start

            return start
        case "with":
            from tasks.verbs import with_server

            return with_server
        case "chat":
            from tasks.verbs import chat

            return chat
        case _:
            raise LookupError(verb)


def _report_module(verb: str) -> Any:
    """The module of any other verb; imported only where it is reached."""
    match verb:
        case "add":
            from tasks.verbs import add

            return add
        case "audit":
            from tasks.verbs import audit

            return audit
        case "bom":
            from tasks.verbs import bom

            return bom
        case "cache-key":
            from tasks.verbs import cache_key

            return cache_key
        case "catalogue":
            from tasks.verbs import catalogue

            return catalogue
        case "doctor":
            from tasks.verbs import doctor

            return doctor
        case "exe":
            from tasks.verbs import exe

            return exe
        case "lock":
            from tasks.verbs import lock

            return lock
        case "logs":
            from tasks.verbs import logs

            return logs
        case "plan":
            from tasks.verbs import plan

            return plan
        case "prune":
            from tasks.verbs import prune

            return prune
        case "status":
            from tasks.verbs import status

            return status
        case "stop":
            from tasks.verbs import stop

            return stop
        case _:
            raise LookupError(verb)
