"""Read catalogue, directories and jobs of a command line, once per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import doit

from tasks import ROOT, command_line, doit_adapter
from tasks.cache import roots, stamps
from tasks.catalogue import load
from tasks.catalogue.artifact import TargetState
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import Resolution, ResolvedModel, resolve, resolve_entry
from tasks.catalogue.types import Catalogue
from tasks.command_line import CommandLine, Kind, TaskRequest, UnknownWordError, Verbs
from tasks.console import log_format
from tasks.errors import UsageError
from tasks.network import huggingface
from tasks.system import files
from tasks.system.packages import has_package
from tasks.transfer.policy import DownloadPolicy, download_policy

if TYPE_CHECKING:
    from tasks.engine.selection import Choice
    from tasks.engine.server_record import ServerRecord
    from tasks.planning import preflight

# verbs that read the catalogue itself, never its compiled form in the cache
_TRUST_GIT = ("audit", "bom", "prune", "lock", "add")
# verbs on servers and on this machine, which need no entry of the catalogue
_WITHOUT_CATALOGUE = ("status", "logs", "stop", "chat", "doctor")
# of a catalogue that cannot be read
_NO_ENTRIES: dict[str, Any] = {
    "default": "",
    "models": {},
    "names": {},
    "engines": {},
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
    server: ServerRecord | None = None  # a running one, which `doit chat` talks to
    catalogue_error: UsageError | None = None  # then the catalogue has no entries

    def options_of(self, resolved: ResolvedModel) -> set[str]:
        """Return the options that any task on the command line gives for a model."""
        return {
            key
            for request, names in self.resolution.requested
            if resolved.name in names
            for key in request.options
        }

    def download_policy(self) -> DownloadPolicy:
        """Return which downloads this command line and the environment allow."""
        return download_policy(
            self.resolution.by_name.values(),
            self.catalogue.names,
            frozen=self.frozen,
            offline=huggingface.offline(os.environ),
        )

    def planned_command(self) -> preflight.Command:
        """Return what this command line will do, to be checked before it begins."""
        from tasks.planning import preflight

        tasks = self.command_line.tasks
        given = {key for request in tasks for key in request.options}
        served = (
            name
            for request, names in self.resolution.requested
            if request.kind is Kind.SERVER
            for name in names
        )
        implied = ""
        if _is_unnamed_chat(self.command_line):
            implied = next(iter(self.resolution.requested[-1][1]), "")
        return preflight.Command(
            self.environment.cache,
            tuple(self.resolution.by_name.values()),
            frozenset(served),
            no_adopt="no_adopt" in given,
            yes="yes" in given,
            force="force" in given,
            offline=bool(huggingface.offline(os.environ)),
            implied=implied,
        )


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
        names = read_catalogue(CommandLine(command="help")).catalogue.names_and_aliases
    except UsageError:
        return error
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
    environment = Environment(
        sys.platform, cache, str(path.parent), cwd, files.first_bytes, has_package
    )
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
    server = _running_server(args, catalogue, cache)
    if problem:
        if args.tasks[-1].verb == "chat" and server is None:
            raise problem
        _report_broken_catalogue(problem)
    args = _restarted(args, catalogue, cache)
    if problem is None and server is None and _is_unnamed_chat(args):
        args = _with_model_here(args, catalogue, environment)
    resolution = resolve(args, catalogue, environment, attached=server is not None)
    return Context(catalogue, environment, args, resolution, frozen, server, problem)


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
    text = "warning: %s; `doit catalogue` shows it"
    doit_adapter.log_event("catalogue_error", text, what, level=_WARNING)


def _is_unnamed_chat(args: CommandLine) -> bool:
    """Whether the command line is `doit chat` without the name of a model."""
    if len(args.tasks) != 1:
        return False
    return args.tasks[0].verb == "chat" and not args.tasks[0].models


def _with_model_here(
    args: CommandLine, catalogue: Catalogue, environment: Environment
) -> CommandLine:
    """Give `doit chat` the one model that is here, if the default one is not.

    Raises:
        UsageError: several models are here.
    """
    from tasks.transfer.ensure import is_available

    request = args.tasks[0]
    default = catalogue.name(catalogue.default)
    files = resolve_entry(default, catalogue, environment).files
    if "yes" in request.options or all(
        is_available(environment.cache, file) for file in files
    ):
        return args
    here = [name for name in catalogue.names if _is_here(name, catalogue, environment)]
    if len(here) > 1:
        what = f"the default model {default} is not here, and several others are"
        raise UsageError(f"{what}: {', '.join(here)}", fix="doit chat --model NAME")
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
    """Return which servers a task is about: by name, by port, or any.

    Raises:
        UsageError: as `server_names`, or --port is not a port.
    """
    from tasks.engine.selection import Choice, parse_port

    names = tuple(dict.fromkeys(server_names(context, request)))
    return Choice(names, parse_port(request.options.get("port")))


def server_names(context: Context, request: TaskRequest) -> list[str]:
    """Return the names of the models that a task on servers is asked for.

    Raises:
        UsageError: a name is neither in the catalogue nor that of a server on record.
    """
    if context.catalogue_error:
        return list(request.models)  # an alias is not known
    cache = context.environment.cache
    return [_name(context.catalogue, cache, word) for word in request.models]


def _name(catalogue: Catalogue, cache: str, word: str) -> str:
    from tasks.engine import server_registry

    known = {record.name for record, _ in server_registry.list_servers(cache)}
    if word in known or server_registry.logs(cache, word):
        return word
    return catalogue.name(word)


def _running_server(
    args: CommandLine, catalogue: Catalogue, cache: str
) -> ServerRecord | None:
    """Return the server that `doit chat` talks to: the chosen one, or the only one.

    Raises:
        UsageError: several servers run and one is not chosen, or none has the port.
    """
    if not args.tasks or args.tasks[-1].verb != "chat":
        return None
    from tasks.engine import server_registry
    from tasks.engine.selection import Choice, check_unambiguous, parse_port
    from tasks.engine.server_record import ServerState

    request = args.tasks[-1]
    ready = [
        record
        for record in server_registry.running(cache)
        if record.state is ServerState.READY
    ]
    names = request.models
    if catalogue.names:
        names = tuple(_name(catalogue, cache, word) for word in request.models)
    choice = Choice(names, parse_port(request.options.get("port")))
    ready = choice.of(ready)
    check_unambiguous(ready, names, "chat")
    if choice.port and not ready:
        what = f"no server is ready on port {choice.port}"
        raise UsageError(what, fix="`doit status` shows the servers")
    return next(iter(ready), None)


def _restarted(args: CommandLine, catalogue: Catalogue, cache: str) -> CommandLine:
    """Add the model and the port of the server that `doit restart` means.

    Raises:
        UsageError: none is named and none runs, several match, or the server runs in
            another terminal.
    """
    tasks = [
        _restart_request(request, catalogue, cache)
        if request.verb == "restart"
        else request
        for request in args.tasks
    ]
    return args._replace(tasks=tuple(tasks))


def _restart_request(
    request: TaskRequest, catalogue: Catalogue, cache: str
) -> TaskRequest:
    from tasks.engine import server_registry
    from tasks.engine.selection import STOPPABLE, Choice, check_unambiguous, parse_port
    from tasks.engine.server_record import Mode

    names = tuple(_name(catalogue, cache, word) for word in request.models)
    choice = Choice(names, parse_port(request.options.get("port")))
    running = server_registry.running(cache)
    found = choice.of(record for record in running if record.mode in STOPPABLE)
    check_unambiguous(found, names, "restart")
    has_source = bool({"llamafile", "llamafile_url"} & request.options.keys())
    if not found:
        if names or has_source:
            return request
        what = "there is no server to restart"
        raise UsageError(what, fix="doit start --model NAME")
    server = found[0]
    if server.mode is not Mode.START:
        where = f"in another terminal (`doit serve`, pid {server.owner})"
        what = f"{server.name} at {server.url} runs {where}"
        raise UsageError(what, fix="press Ctrl-C there, and run it again")
    options = {**request.options, "port": str(server.port)}
    if not (request.model or has_source):
        options["model"] = server.name
    return request._replace(options=options)
