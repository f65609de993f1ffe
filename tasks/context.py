"""Read catalogue, directories and jobs of a command line, once per run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import doit

from tasks import ROOT, command_line, doit_adapter, machine
from tasks.cache import roots, stamps
from tasks.catalogue import load
from tasks.catalogue.artifact import TargetState
from tasks.catalogue.endpoints import (
    ResolvedEndpoint,
    Servable,
    all_jobs,
    with_endpoints,
)
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import Resolution, ResolvedModel, resolve, resolve_entry
from tasks.catalogue.types import Catalogue
from tasks.command_line import CommandLine, Kind, TaskRequest, UnknownWordError, Verbs
from tasks.console import log_format
from tasks.errors import UsageError
from tasks.network import huggingface, logins
from tasks.positional import quoted
from tasks.system import files
from tasks.transfer.policy import DownloadPolicy, download_policy

if TYPE_CHECKING:
    from tasks.planning import preflight
    from tasks.server.selection import Choice
    from tasks.server.server_record import ServerRecord

# verbs that read the catalogue itself, never its compiled form in the cache
_TRUST_GIT = ("audit", "bom", "prune", "lock", "add", "deploy", "push", "image")
# verbs on servers and on this machine, which need no entry of the catalogue
_WITHOUT_CATALOGUE = ("status", "logs", "stop", "idle", "chat", "doctor")
# of a catalogue that cannot be read
_NO_ENTRIES: dict[str, Any] = {
    "default": "",
    "models": {},
    "names": {},
    "engines": {},
    "endpoints": {},
    "files": {},
    "adopt_from": (),
    "defaults": {},
}
_WARNING = 30  # as in logging


class Context(NamedTuple):
    """Everything that task creators need."""

    catalogue: Catalogue
    environment: Environment
    command_line: CommandLine
    resolution: Resolution
    frozen: bool = False  # nothing unpinned is fetched
    server: ServerRecord | None = None  # a running one, which `chat` or `bench` asks
    catalogue_error: UsageError | None = None  # then the catalogue has no entries
    endpoints: Mapping[str, ResolvedEndpoint] = {}  # those that are named, by name

    def options_of(self, resolved: Servable) -> set[str]:
        """Return the options that any task on the command line gives for a model."""
        groups = self.endpoints.values()
        within = {group.name for group in groups if resolved.name in group.names}
        return {
            key
            for request, names in self.resolution.requested
            if resolved.name in names or within & set(names)
            for key in request.options
        }

    def option_of(self, resolved: Servable, key: str) -> str | None:
        """Return the value of a model's option; None if it is not given."""
        for request, names in self.resolution.requested:
            if resolved.name in names and key in request.options:
                return str(request.options[key])
        return None

    def download_policy(self) -> DownloadPolicy:
        """Return which downloads this command line and the environment allow."""
        return download_policy(
            all_jobs(self.resolution, self.endpoints),
            self.catalogue.names,
            frozen=self.frozen,
            offline=huggingface.offline(os.environ),
        )

    def planned_command(self) -> preflight.Command:
        """Return what this command line will do, to be checked before it begins."""
        from tasks.engine.version import router_problems
        from tasks.planning import preflight

        tasks = self.command_line.tasks
        given = {key for request in tasks for key in request.options}
        served = frozenset(
            name
            for request, names in self.resolution.requested
            if request.kind is Kind.SERVER
            for name in names
        )
        chat = implied = ""
        if tasks and tasks[-1].verb == "chat":
            chat = _source_words(tasks[-1], self.resolution)
        if _is_unnamed_chat(self.command_line):
            implied = chat
        jobs = all_jobs(self.resolution, self.endpoints)
        started = [self.endpoints[name] for name in served & self.endpoints.keys()]
        behind = {name for one in started for name in one.names}
        cache = self.environment.cache
        return preflight.Command(
            cache,
            jobs,
            served,
            no_adopt="no_adopt" in given,
            yes="yes" in given,
            force="force" in given,
            offline=bool(huggingface.offline(os.environ)),
            chat=chat,
            implied=implied,
            lacking=(
                *self.lacking_features(
                    one for one in jobs if one.name in served | behind
                ),
                *router_problems(cache, self.catalogue, started),
            ),
            endpoints=tuple(self.endpoints.values()),
        )

    def lacking_features(self, jobs: Iterable[ResolvedModel]) -> list[tuple[str, str]]:
        """Return (what, fix) for each key that a job's engine does not have."""
        from tasks.engine import version

        cache = self.environment.cache
        return version.feature_problems(cache, self.catalogue, jobs)


def read(verbs: Verbs, *, plain_doit: bool = False) -> Context:
    """Read the command line and the catalogue.

    Args:
        plain_doit: as in `command_line.parse`.

    Raises:
        UsageError: one of them has an error; no task that needs it can run until it is
            fixed.
    """
    log_format.check_format(os.environ)
    huggingface.check_offline(os.environ)
    args = command_line.parse(sys.argv[1:], verbs, plain_doit=plain_doit)
    _check_key(args)
    return read_catalogue(args)


def _check_key(args: CommandLine) -> None:
    """Check LLAMA_API_KEY, if a server is started that uses it.

    Raises:
        UsageError: it is not a valid key.
    """
    key = os.environ.get("LLAMA_API_KEY")
    starts = any(
        request.kind is Kind.SERVER and "api_key" not in request.options
        for request in args.tasks
    )
    if not (key and starts):
        return
    from tasks.catalogue.settings import api_key_error

    if problem := api_key_error(key):
        fix = "set LLAMA_API_KEY to a key, or unset it"
        raise UsageError(f"LLAMA_API_KEY: {problem}", fix=fix)


def word_error(error: UnknownWordError) -> UsageError:
    """Return the error for a first word that is not a verb: it may be a model."""
    try:
        catalogue = read_catalogue(CommandLine(command="help")).catalogue
    except UsageError:
        return error
    if name := catalogue.endpoint_name(error.word):
        what = f"{name} is an endpoint, not a verb"
        return UsageError(what, fix=f"doit serve {name}")
    names = catalogue.names_and_aliases
    if error.word.lower() not in names:
        return error
    what = f"{error.word} is a model, not a verb"
    return UsageError(what, fix=f"doit serve {error.word}")


def read_catalogue(args: CommandLine) -> Context:
    """Read the catalogue for a command line.

    Raises:
        UsageError: it has an error, or the command line names what it does not have.
    """
    cwd = doit.get_initial_workdir() or os.getcwd()
    setting = files.setting_path(os.environ, "LLAMAFILE_CATALOGUE", cwd)
    path = Path(setting or ROOT / "models.yaml")
    cache = stamps.cache_root(os.environ, cwd)
    environment = machine.environment(cache, str(path.parent), cwd)
    joined = not _writes_lock(args)
    frozen = _is_frozen(args)
    from_text = frozen or any(request.verb in _TRUST_GIT for request in args.tasks)
    problem = None
    try:
        keep = os.path.isdir(cache) or _writes_cache(args)
        catalogue = load.load(
            str(path), cache, joined=joined, from_text=from_text, keep=keep
        )
        if keep:
            roots.remember(str(path), cache)
    except UsageError as error:
        if not _can_do_without_catalogue(args):
            raise
        problem = error
        catalogue = Catalogue(_NO_ENTRIES, str(path))
    logins.configure(catalogue.auth)
    args = _with_named_model(args, catalogue, environment)
    server = None
    if args.tasks and args.tasks[-1].verb in ("chat", "bench", "check"):
        from tasks.server.requested_server import running_server

        server = running_server(args.tasks[-1], catalogue, environment)
    if problem:
        if args.tasks[-1].verb == "chat" and server is None:
            raise problem
        _report_broken_catalogue(problem)
    if any(request.verb in ("restart", "reload", "roll") for request in args.tasks):
        from tasks.server.requested_server import restarted

        args = restarted(args, catalogue, environment)
    if problem is None and server is None and _is_unnamed_chat(args):
        args = _with_model_here(args, catalogue, environment)
    resolution = resolve(args, catalogue, environment, attached=server is not None)
    resolution, endpoints = with_endpoints(resolution, catalogue, environment)
    return Context(
        catalogue, environment, args, resolution, frozen, server, problem, endpoints
    )


def _writes_cache(args: CommandLine) -> bool:
    """Whether a verb writes files to the cache; any other does not create it."""
    return any(
        request.kind not in (Kind.REPORT, Kind.PLAN) or "download" in request.options
        for request in args.tasks
    )


def _can_do_without_catalogue(args: CommandLine) -> bool:
    """Whether no task needs an entry of the catalogue; `chat` may find a server."""
    if not args.tasks:
        return False
    return all(
        request.verb in _WITHOUT_CATALOGUE
        or (request.verb == "prune" and "dry_run" in request.options)
        for request in args.tasks
    )


def _report_broken_catalogue(error: UsageError) -> None:
    what = error.what.splitlines()[0].removesuffix(":")
    text = "warning: %s; `doit catalogue` shows the whole error"
    doit_adapter.log_event("catalogue_error", text, what, level=_WARNING)


def _is_unnamed_chat(args: CommandLine) -> bool:
    """Whether the command line is `doit chat` without the name of a model."""
    if len(args.tasks) != 1:
        return False
    request = args.tasks[0]
    has_model = bool(request.models or "llamafile" in request.options)
    return request.verb == "chat" and not has_model


def _source_words(request: TaskRequest, resolution: Resolution) -> str:
    """Return the words that name the model of a task to another verb."""
    if path := request.options.get("llamafile"):
        return quoted(path)
    return next(iter(resolution.requested[-1][1]), "")


def _with_named_model(
    args: CommandLine, catalogue: Catalogue, environment: Environment
) -> CommandLine:
    """Take the model of `doit chat MODEL QUESTION` out of the question."""
    if not args.tasks or args.tasks[-1].verb != "chat":
        return args
    from tasks.server.naming import chat_request

    request = chat_request(args.tasks[-1], catalogue, environment)
    return args._replace(tasks=(*args.tasks[:-1], request))


def _with_model_here(
    args: CommandLine, catalogue: Catalogue, environment: Environment
) -> CommandLine:
    """Give `doit chat` the one model that is here, if the default one is not.

    Raises:
        UsageError: several models are here.
    """
    from tasks.transfer.permission import is_available

    request = args.tasks[0]
    default = catalogue.name(catalogue.default)
    files = resolve_entry(default, catalogue, environment).files
    if "yes" in request.options or all(
        is_available(environment.cache, file) for file in files
    ):
        return args
    chats = [name for name in catalogue.names if catalogue.model(name).kind == "chat"]
    here = [name for name in chats if _is_here(name, catalogue, environment)]
    if len(here) > 1:
        what = f"the default model {default} is not here, and several others are"
        raise UsageError(f"{what}: {', '.join(here)}", fix=f"doit chat {here[0]}")
    if not here:
        return args
    text = "%s answers: it is here, and the default model %s is not"
    doit_adapter.log_event("model_chosen", text, here[0], default, model=here[0])
    options = {**request.options, "model": here[0]}
    return args._replace(tasks=(request._replace(options=options),))


def _is_here(name: str, catalogue: Catalogue, environment: Environment) -> bool:
    """Whether all files of an entry are in the cache."""
    try:
        artifacts = resolve_entry(name, catalogue, environment).files
    except UsageError:  # it is for another system
        return False
    return all(
        stamps.target_state(environment.cache, artifact) is not TargetState.MISSING
        for artifact in artifacts
    )


def _is_frozen(args: CommandLine) -> bool:
    """Whether only pinned files may be fetched: in CI, and with --frozen."""
    if huggingface.env_flag(os.environ.get("CI")):
        return True
    return any("frozen" in request.options for request in args.tasks)


def _writes_lock(args: CommandLine) -> bool:
    """Whether the verb updates models.lock, so that its pins are not used.

    Raises:
        UsageError: there are other tasks, which would run without the pins, too.
    """
    verb = next(
        (request.verb for request in args.tasks if request.verb in ("lock", "add")), ""
    )
    if verb and len(args.tasks) > 1:
        what = f"`doit {verb}` cannot be combined with other tasks"
        raise UsageError(what, fix=f"doit {verb} && doit …")
    return bool(verb)


def server_choice(context: Context, request: TaskRequest) -> Choice:
    """Return which servers a task is about: by model, by file, by port, or any.

    Raises:
        UsageError: as `naming.choice_of`.
    """
    from tasks.server.naming import choice_of

    return choice_of(request, context.catalogue, context.environment)
