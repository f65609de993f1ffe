"""Resolve a command line to Jobs: one for each model that it names.

Pure: platform, directories, catalogue, and the function that returns a file's first
bytes are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from tasks.catalogue.artifact import Artifact, total_size
from tasks.catalogue.engine_args import check_engine_args
from tasks.catalogue.engine_choice import engine_of, installed_program
from tasks.catalogue.engine_release import pinned_engines, pinned_server
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import (
    CompanionFile,
    ModelSource,
    absolute_source,
    adoption_folders,
    check_pins,
    check_url,
    companion_files,
    entry_artifact,
    extra_artifacts,
    extra_files,
    file_from_url,
    llamafile_exe,
    local_file,
    memory_of,
    parse_sha256,
)
from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.server_options import api_key, drain_of, replicas_of
from tasks.catalogue.settings import ServeSettings, serve_settings, settings_of
from tasks.catalogue.types import Catalogue, FileSpec, Model
from tasks.command_line import CommandLine, Kind, TaskRequest
from tasks.errors import UsageError

if TYPE_CHECKING:
    from tasks.catalogue.variants import Choice


_ONE_MODEL = (
    *("serve", "with", "chat", "bench", "check"),
    *("restart", "reload", "roll"),
)
_PASSES_ARGS = ("serve", "start", "restart", "roll")


class ResolvedModel(NamedTuple):
    """One model with everything that the command line and the catalogue decide."""

    name: str  # its name in tasks
    model: Model
    artifact: Artifact
    engine: str  # self, llamafile, embedded or llama-server
    settings: ServeSettings
    exe: Artifact | None = None  # llamafile's executable, or llama-server's archive
    engine_args: tuple[str, ...] = ()  # arguments for the engine, passed unchanged
    confirmation: str = ""  # to be confirmed before a download (R4), or empty
    requested_port: int | None = (
        None  # requested explicitly; `settings` has the default, too
    )
    key: str = ""  # API key from the command line
    probe: bool = False  # ready only after it has generated a token
    require_gpu: bool = False  # a GPU was requested: do not fall back to the CPU
    extra_files: tuple[Artifact, ...] = ()  # further files: other parts, companions
    companions: tuple[CompanionFile, ...] = ()
    is_gguf: bool = False  # more than one engine serves it
    is_own: bool = False  # a file of the user's, which no entry names
    engine_reason: str = ""  # why this engine serves it
    program: Artifact | None = None  # llama-server, if it is the engine and is known
    memory: ModelMetadata | None = None  # from models.lock
    choice: Choice | None = None  # which variant, and why
    drain: int = 0  # most seconds for answers in progress at a stop
    replicas: int = 1  # how many servers

    @property
    def is_own_gguf(self) -> bool:
        """Whether it is a GGUF that no entry names."""
        return self.is_gguf and self.is_own

    @property
    def variant(self) -> str:
        """The name of its variant; empty if the entry has none."""
        return self.choice.name if self.choice else ""

    @property
    def files(self) -> tuple[Artifact, ...]:
        """All files of the model, the served one first; not the executable."""
        return (self.artifact, *self.extra_files)

    def port_to_try(self, *, any_free: bool) -> int:
        """Return the port to serve on; 0: any free one.

        Args:
            any_free: without a requested port, use any free one, not the default.
        """
        if self.requested_port is not None:
            return self.requested_port
        if any_free:
            return 0
        return self.settings.port

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if the size of any is unknown."""
        return total_size(file.size for file in self.files)


class Resolution(NamedTuple):
    """All jobs of a command line."""

    by_name: Mapping[str, ResolvedModel]  # task name → job
    # (ask, names of its jobs), in the command line's order
    requested: tuple[tuple[TaskRequest, tuple[str, ...]], ...]
    aliases: Mapping[str, str]  # name as typed → name of the job, if they differ

    def of(self, verb: str) -> tuple[str, ...]:
        """Return the jobs of a verb that is given without `:MODEL`."""
        asks = (
            names
            for request, names in self.requested
            if request.verb == verb and not request.model
        )
        return tuple(name for names in asks for name in names)


def resolve(
    args: CommandLine,
    catalogue: Catalogue,
    environment: Environment,
    *,
    attached: bool = False,
) -> Resolution:
    """Resolve a command line.

    Args:
        attached: the last task uses a server that is already running.

    Raises:
        UsageError: an unknown name, or an invalid value or combination.
    """
    by_name: dict[str, ResolvedModel] = {}
    asked: list[tuple[TaskRequest, tuple[str, ...]]] = []
    aliases: dict[str, str] = {}
    started: set[str] = set()  # jobs whose settings come from a verb that starts them
    for request in args.tasks or _inspected(args, catalogue):
        names: list[str] = []
        resolves = not (attached and request is args.tasks[-1])
        for word in _models_of(request, catalogue) if resolves else ():
            if endpoint := catalogue.endpoint_name(word):
                names.append(endpoint)  # see `endpoints`
                if word != endpoint and request.model:
                    aliases[word] = endpoint
                continue
            resolved = _job(request, word, catalogue, environment)
            _check_conflict(by_name.get(resolved.name), resolved)
            starts = request.kind is Kind.SERVER
            overrides = request.verb == "verify" and resolved.name not in started
            if resolved.name not in by_name or starts or overrides:
                by_name[resolved.name] = resolved
            if starts:
                started.add(resolved.name)
            names.append(resolved.name)
            if word and word != resolved.name and request.model:
                aliases[word] = resolved.name
        asked.append((request, tuple(names)))
    return Resolution(by_name, tuple(asked), aliases)


def resolve_entry(
    name: str, catalogue: Catalogue, environment: Environment, variant: str = ""
) -> ResolvedModel:
    """Return the job of an entry, without any options.

    Args:
        variant: empty for the one that fits this machine.
    """
    options = {"variant": variant} if variant else {}
    request = TaskRequest("catalogue", name, options)
    free = environment._replace(must_name_variant=False)
    return _job(request, name, catalogue, free)


def resolve_variants(
    name: str, catalogue: Catalogue, environment: Environment
) -> tuple[ResolvedModel, ...]:
    """Return the jobs of all variants of an entry; of one without, its only job."""
    variants = catalogue.variants(name) or ("",)
    return tuple(resolve_entry(name, catalogue, environment, one) for one in variants)


def _inspected(args: CommandLine, catalogue: Catalogue) -> Iterable[TaskRequest]:
    """Return the tasks that doit's own commands need: the named, or all for --all."""
    named = [w.partition(":") for w in args.words if ":" in w]
    # deploy:KIND names no model
    words = [model for verb, _, model in named if verb != "deploy"]
    if "--all" in args.words and not words:
        words = [*catalogue.names, *catalogue.endpoint_names]
    return [TaskRequest("", word, {}) for word in words]


def _models_of(request: TaskRequest, catalogue: Catalogue) -> tuple[str, ...]:
    """Return the models of a task; empty text: the default, or a file of the user's."""
    if request.kind in (Kind.PROGRAM, Kind.REPORT):
        return ()
    words = request.models or ("",)
    names = tuple(name for word in words for name in _matching(word, catalogue))
    if len(names) > 1:
        _check_several(request, names)
    return names


def _check_several(request: TaskRequest, names: tuple[str, ...]) -> None:
    """Check that the task may have several models.

    Raises:
        UsageError: it may not.
    """
    got = f"got {len(names)}: {', '.join(names)}"
    if request.verb in _ONE_MODEL:
        raise UsageError(f"`{request.verb}` runs one model, {got}")
    port = request.options.get("port", "0")
    if request.verb == "start" and port != "0":
        raise UsageError(f"--port {port} is for one model, {got}", fix="--port 0")


def _matching(word: str, catalogue: Catalogue) -> tuple[str, ...]:
    if "*" not in word:
        return (word,)
    names = tuple(name for name in catalogue.names if fnmatchcase(name, word))
    if not names:
        raise UsageError(f"no model matches {word!r}", fix="`doit` shows the models")
    return names


def _check_conflict(known: ResolvedModel | None, resolved: ResolvedModel) -> None:
    if known is None:
        return
    if (known.artifact, known.engine) != (resolved.artifact, resolved.engine):
        what = f"{resolved.name} is requested twice, with different files or engines"
        raise UsageError(what)


def _job(
    request: TaskRequest, word: str, catalogue: Catalogue, environment: Environment
) -> ResolvedModel:
    options = request.options
    source = _source(request, word, catalogue, environment)
    adopt_from = adoption_folders(catalogue, environment)
    artifact = source.artifact._replace(adopt_from=adopt_from)
    more = extra_artifacts(artifact, source.files, environment)
    is_own = source.name not in catalogue.names or not artifact.in_cache
    pinned = pinned_engines(catalogue, environment)
    choice, is_gguf = engine_of(
        options.get("engine"), source.model, artifact, environment, is_own, pinned
    )
    engine = choice.engine
    exe = None
    program = installed_program(engine, environment)
    reason = choice.reason
    # "" is any verb, as doit's own commands see it
    needs_engine = request.verb in ("", "verify", "preset")
    starts = request.kind in (Kind.SERVER, Kind.PLAN) or needs_engine
    if engine == "llamafile" and starts:
        exe = llamafile_exe(catalogue, environment)
    server = None
    if engine == "llama-server" and starts:
        server = pinned_server(catalogue, environment)
    if server:
        exe = server.archive
        program = server.program
        reason = f"{reason}; {server.reason}"
    requested = settings_of(options).over(source.model.serve)
    key = api_key(options)
    gpu = options.get("gpu", "auto").lower()
    return ResolvedModel(
        source.name,
        source.model,
        artifact,
        engine,
        serve_settings(requested.over(catalogue.defaults)),
        exe,
        check_engine_args(request.extra) if request.verb in _PASSES_ARGS else (),
        source.confirmation,
        requested.port,
        key,
        bool(options.get("probe")),
        bool(options.get("force_gpu")) or gpu not in ("auto", "disable"),
        more,
        companion_files(source.files, more),
        is_gguf,
        is_own,
        reason,
        program,
        source.memory,
        source.choice,
        drain_of(request),
        replicas_of(options, requested.port),
    )


def _source(
    request: TaskRequest, word: str, catalogue: Catalogue, environment: Environment
) -> ModelSource:
    """Return the model that the options name: a path, a URL or an entry."""
    options = request.options
    path = options.get("llamafile")
    url = options.get("llamafile_url")
    sha256 = parse_sha256(options.get("sha256"))
    if "variant" in options and (path is not None or url is not None):
        what = "--variant is for a model of the catalogue"
        raise UsageError(what, fix="remove --variant")
    if path is not None and word:
        what = "--model and --llamafile cannot be combined"
        raise UsageError(what, fix="remove one of them")
    if url is not None:
        check_url(url, path)
        url = absolute_source(url, environment, environment.cwd)
    if path is not None:
        return local_file(path, url, sha256, catalogue, environment)
    if url is not None:
        source = file_from_url(word, url, sha256, catalogue, environment)
        known: tuple[FileSpec, ...] = ()
        if source.name in catalogue.names:
            known = catalogue.extra_files(source.name)
        files = extra_files(source.artifact, known)
        check_pins(url, source.artifact, files)
        return source._replace(files=files)
    if sha256 is not None:
        raise UsageError("--sha256 requires --llamafile or --llamafile-url")
    name = catalogue.name(word or catalogue.default)
    choice = None
    variant = ""
    if "variant" in options or catalogue.variants(name):
        from tasks.catalogue.variant_choice import variant_choice

        choice = variant_choice(request, name, catalogue, environment)
    if choice:
        variant = choice.name
    model = catalogue.model(name, variant)
    artifact = entry_artifact(f"{name} {variant}".strip(), model, environment)
    return ModelSource(
        name,
        model,
        artifact,
        files=catalogue.extra_files(name, variant),
        memory=memory_of(catalogue.memory(name, variant)),
        choice=choice,
    )
