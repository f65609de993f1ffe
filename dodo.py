"""Define the tasks: every verb that a user types is a task here.

A model passes through a chain of tasks, each of which depends on the one before:

    download:M -> chmod:M -> verify:M -> serve:M   (or start:M, with:M, chat:M)
                  exe ----------^                  the engine's program, if needed

The same for an endpoint E of several models:

    verify:E (of each model) -> preset:E -> serve:E

A creator returns one doit task as a dictionary. `recipe.step` and `recipe.server` call
it for each model that the command line reaches, `recipe.report` for each such task on
the command line. `params` are the options after the verb; VERB:MODEL takes the same
ones without --model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks import options
from tasks.graph import Recipe, TaskDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.catalogue.artifact import Artifact
    from tasks.catalogue.endpoints import ResolvedEndpoint
    from tasks.catalogue.resolve import ResolvedModel
    from tasks.command_line import TaskRequest
    from tasks.context import Context as Context

recipe = Recipe(default="catalogue")
DOIT_CONFIG = recipe.doit_config()


@recipe.report(
    params=[options.ALL_MODELS, options.KIND, options.FITS, options.WORD, options.JSON]
)
def task_catalogue(context: Context, request: TaskRequest) -> TaskDict:
    """show the models: doit catalogue, --all, or those with a word such as qwen"""
    from tasks.verbs import catalogue

    return {"actions": [(catalogue.run, catalogue.arguments(context, request))]}


@recipe.program(params=[options.FROZEN])
def task_exe(context: Context, programs: Sequence[Artifact]) -> TaskDict:
    """download the engines' programs that models.yaml pins, for .gguf files"""
    from tasks.verbs import exe

    return {
        "actions": [(exe.run, [context, programs])],
        "targets": [program.target for program in programs],
        "uptodate": [lambda: exe.are_proven(context, programs)],
    }


@recipe.step(params=[options.MODELS, *options.SOURCE])
def task_download(context: Context, model: ResolvedModel) -> TaskDict:
    """download a model, verified: the default one, or NAME"""
    from tasks.verbs import download

    files = download.files_of(context, model)
    return {
        "actions": [(download.run, [context, files])],
        "targets": download.own_targets(context, model),
        "uptodate": [lambda: download.are_fresh(context, files)],
    }


@recipe.step(params=[options.MODELS, options.VARIANT])
def task_chmod(context: Context, model: ResolvedModel) -> TaskDict:
    """make a downloaded llamafile executable"""
    from tasks.verbs import chmod

    return {
        "actions": chmod.actions(context, model),
        "task_dep": [f"download:{model.name}"],
        "uptodate": [lambda: chmod.is_done(context, model)],
        "title": chmod.title(context, model),
    }


@recipe.step(params=[options.MODELS, *options.SOURCE, options.ENGINE])
def task_verify(context: Context, model: ResolvedModel) -> TaskDict:
    """prove that a model's program runs here (--version)"""
    from tasks.verbs import verify

    return {
        "actions": [(verify.run, [context, model])],
        "task_dep": [f"chmod:{model.name}", *(["exe"] if model.exe else [])],
        "uptodate": [lambda: verify.is_proven(context, model)],
    }


@recipe.endpoint(params=[options.ENDPOINTS, *options.DOWNLOAD])
def task_preset(context: Context, endpoint: ResolvedEndpoint) -> TaskDict:
    """write the file from which llama-server serves an endpoint of models.yaml"""
    from tasks.verbs import preset

    return {
        "actions": [(preset.run, [context, endpoint])],
        "targets": preset.targets(context, endpoint),
        "task_dep": [f"verify:{endpoint.name}"],
        "uptodate": [lambda: preset.is_current(context, endpoint)],
    }


@recipe.server(
    params=[options.MODEL, *options.SERVE, options.DRAIN, options.LOG, *options.SOURCE],
    pos_arg="engine_arguments",
)
def task_serve(context: Context, model: ResolvedModel) -> TaskDict:
    """serve a model in the foreground: the default one, or NAME"""
    from tasks.verbs import serve

    return {
        "check": (serve.check, [context, model]),
        "actions": [(serve.run, [context, model, serve.shows_engine(context)])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(
    params=[
        options.MODELS,
        *options.SERVE,
        options.REPLICAS,
        options.FOR,
        options.DRAIN,
        *options.SOURCE,
        options.JSON,
    ],
    pos_arg="engine_arguments",
)
def task_start(context: Context, model: ResolvedModel) -> TaskDict:
    """serve it in the background; returns when it is ready"""
    from tasks.verbs import start

    start.check_user(context, model)
    return {
        "check": (start.check, [context, model]),
        "actions": [(start.run, [context, model])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(
    params=[options.MODEL, *options.SERVE, *options.SOURCE], pos_arg="command"
)
def task_with(context: Context, model: ResolvedModel) -> TaskDict:
    """serve it while a command runs: doit with NAME -- COMMAND"""
    from tasks.verbs import with_server

    return {
        "check": (with_server.check, [context, model]),
        "actions": [(with_server.run, [context, model])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(params=options.CHAT, pos_arg="prompt")
def task_chat(context: Context, model: ResolvedModel) -> TaskDict:
    """ask it: doit chat "What is a llamafile?\""""
    from tasks.verbs import chat

    if context.server:  # already running: nothing to download or to start
        return {"actions": [(chat.run_with, [context, context.server])]}
    return {
        "check": (chat.check, [context, model]),
        "actions": [(chat.run, [context, model])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(params=options.BENCH, pos_arg="")
def task_bench(context: Context, model: ResolvedModel) -> TaskDict:
    """measure tokens per second of the running server, or of NAME"""
    from tasks.verbs import bench

    load = bench.load_of(context)
    if context.server:  # already running: nothing to download or to start
        return {"actions": [(bench.run_with, [context, context.server, load])]}
    return {
        "check": (bench.check, [context, model]),
        "actions": [(bench.run, [context, model, load])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(params=[options.MODEL, options.JSON, *options.MEASURED], pos_arg="")
def task_check(context: Context, model: ResolvedModel) -> TaskDict:
    """ask a model the questions of `checks:` in models.yaml"""
    from tasks.verbs import check

    if context.server:
        return {"actions": [(check.run_with, [context, context.server])]}
    return {
        "check": (check.check, [context, model]),
        "actions": [(check.run, [context, model])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(
    params=[options.RUNNING_MODEL, *options.SERVE, options.DRAIN, *options.SOURCE],
    pos_arg="engine_arguments",
)
def task_restart(context: Context, model: ResolvedModel) -> TaskDict:
    """end a server in the background and start it again, with the settings of now"""
    from tasks.verbs import restart, start

    return {
        "check": (start.check_background, [context, model]),
        "actions": [(restart.run, [context, model]), (start.run, [context, model])],
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.server(params=[options.RUNNING_MODEL, *options.SERVE_ENDPOINT], pos_arg="")
def task_reload(context: Context, endpoint: ResolvedEndpoint) -> TaskDict:
    """let a running endpoint serve what models.yaml says now"""
    from tasks.verbs import reload, start

    return {
        "check": (start.check_background, [context, endpoint]),
        "actions": [
            (reload.run, [context, endpoint]),
            (start.run, [context, endpoint]),
        ],
        "task_dep": [f"verify:{endpoint.name}"],
    }


@recipe.server(
    params=[
        options.RUNNING_MODEL,
        *options.ROLL,
        *options.SERVE_ON_ANY_PORT,
        options.DRAIN,
        *options.SOURCE,
    ],
    pos_arg="engine_arguments",
)
def task_roll(context: Context, model: ResolvedModel) -> TaskDict:
    """restart the servers of a model one by one, so that no request is lost"""
    from tasks.verbs import roll, start

    return {
        "check": (start.check_background, [context, model]),
        "actions": roll.actions(context, model, start.run),
        "task_dep": [f"verify:{model.name}"],
    }


@recipe.report(
    params=[
        options.STOPPED_MODELS,
        options.SERVER_PORT,
        options.STOP_DRAIN,
        options.STOP_FOR,
        options.ALL,
        options.JSON,
    ]
)
def task_stop(context: Context, request: TaskRequest) -> TaskDict:
    """end a server that runs in the background, or in another terminal"""
    from tasks.verbs import stop

    return {"actions": [(stop.run, stop.arguments(context, request))]}


@recipe.report(
    params=[
        options.RUNNING_MODELS,
        options.SERVER_PORT,
        options.IDLE_TIMEOUT,
        options.JSON,
    ]
)
def task_idle(context: Context, request: TaskRequest) -> TaskDict:
    """wait until a server works on no request"""
    from tasks.verbs import idle

    return {"actions": [(idle.run, idle.arguments(context, request))]}


@recipe.report(params=[options.RUNNING_MODELS, options.SERVER_PORT, options.JSON])
def task_status(context: Context, request: TaskRequest) -> TaskDict:
    """show the servers: state, endpoint, memory, requests"""
    from tasks.verbs import status

    return {"actions": [(status.run, status.arguments(context, request))]}


@recipe.report(
    params=[options.RUNNING_MODEL, options.SERVER_PORT, options.FOLLOW, options.LINES]
)
def task_logs(context: Context, request: TaskRequest) -> TaskDict:
    """show what a server has printed"""
    from tasks.verbs import logs

    return {"actions": [(logs.run, logs.arguments(context, request))]}


@recipe.report(params=[options.MODEL, options.JSON])
def task_doctor(context: Context, request: TaskRequest) -> TaskDict:
    """look for what would fail here, and say what fixes it"""
    from tasks.verbs import doctor

    return {"actions": [(doctor.run, doctor.arguments(context, request))]}


@recipe.report(params=options.LOCK)
def task_lock(context: Context, request: TaskRequest) -> TaskDict:
    """write models.lock: exactly which bytes each entry of models.yaml means"""
    from tasks.upgrade.trial import Steps
    from tasks.verbs import chmod, download, exe, lock, verify

    steps = Steps(exe.run, download.run, chmod.actions, verify.run)
    return {"actions": [lock.action(context, request, steps)]}


@recipe.report(
    params=[options.NAME, options.SHA256, options.LICENSE, options.HASH],
    pos_arg="source",
)
def task_add(context: Context, request: TaskRequest) -> TaskDict:
    """write an entry into models.yaml: doit add URL, or hf:OWNER/REPO/FILE"""
    from tasks.verbs import add

    return {"actions": [(add.run, add.arguments(context, request))]}


@recipe.report(params=options.PUSH, pos_arg="reference")
def task_push(context: Context, request: TaskRequest) -> TaskDict:
    """publish a model that is here: doit push NAME oci://HOST/REPO:TAG"""
    from tasks.verbs import push

    return {"actions": [(push.run, push.arguments(context, request))]}


@recipe.report(params=options.PUSH, pos_arg="reference")
def task_image(context: Context, request: TaskRequest) -> TaskDict:
    """publish it as an image, for image volumes of Kubernetes and podman"""
    from tasks.verbs import push

    return {"actions": [(push.run, push.arguments(context, request))]}


@recipe.files(params=[options.CHECK_FILES], names=options.DEPLOYED)
def task_deploy(context: Context, requests: Sequence[TaskRequest]) -> TaskDict:
    """write the files that serve models elsewhere: doit deploy, or deploy:kubernetes"""
    from tasks.verbs import deploy

    return deploy.tasks(context, requests)


@recipe.report(params=[options.MODELS, options.JSON])
def task_audit(context: Context, request: TaskRequest) -> TaskDict:
    """read every file that is here again: is it what the catalogue says?"""
    from tasks.verbs import audit

    return {"actions": [(audit.run, audit.arguments(context, request))]}


@recipe.report(params=[options.DRY_RUN, options.OLDER_THAN, options.YES, options.JSON])
def task_prune(context: Context, request: TaskRequest) -> TaskDict:
    """free space: remove what no catalogue names, and abandoned downloads"""
    from tasks.verbs import prune

    return {"actions": [(prune.run, prune.arguments(context, request))]}


@recipe.report(params=[options.JSON])
def task_bom(context: Context, request: TaskRequest) -> TaskDict:
    """list what is here: source, commit, digest, licence, engine"""
    from tasks.verbs import bom

    return {"actions": [(bom.run, bom.arguments(context, request))]}


@recipe.report(params=[options.MODELS, options.VARIANT, options.JSON])
def task_cache_key(context: Context, request: TaskRequest) -> TaskDict:
    """print the key under which a CI system caches a model's files"""
    from tasks.verbs import cache_key

    return {"actions": [(cache_key.run, cache_key.arguments(context, request))]}


@recipe.plan(params=[options.MODELS, *options.SERVE, *options.SOURCE, options.JSON])
def task_plan(context: Context, request: TaskRequest) -> TaskDict:
    """show what would be fetched, and whether disk and memory suffice"""
    from tasks.verbs import plan

    return {"actions": [(plan.run, [context, request])]}
