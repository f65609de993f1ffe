"""Resolve a command line to Jobs: one for each model that it names.

Pure: platform, directories, catalogue, and the function that returns a file's first
bytes are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_args import checked_extra
from tasks.catalogue.environment import Place
from tasks.catalogue.file_specs import pins_problem, split_count, split_problem
from tasks.catalogue.model_files import (
    WINDOWS_EXE_LIMIT,
    ModelSource,
    absolute_source,
    adoption_folders,
    digest_in,
    entry_artifact,
    file_from_url,
    further_artifacts,
    further_files,
    llamafile_exe,
    own_file,
)
from tasks.catalogue.model_format import holds_gguf, holds_program
from tasks.catalogue.settings import ServeSettings, key_problem, serve_settings, settings_of
from tasks.catalogue.types import ENGINES, Catalogue, FileSpec, Model
from tasks.command_line import Ask, Kind, Request
from tasks.errors import UsageError, did_you_mean
from tasks.urls import url_problem


class Job(NamedTuple):
    """One model with everything that the command line and the catalogue decide."""

    name: str  # its name in tasks
    model: Model
    artifact: Artifact
    engine: str  # self, llamafile or embedded
    settings: ServeSettings
    exe: Artifact | None = None  # llamafile's executable, if the engine is `llamafile`
    extra: tuple[str, ...] = ()  # arguments for the engine, passed unchanged
    question: str = ""  # to be confirmed before a download (R4), or empty
    port: int | None = None  # requested explicitly; `settings` has the default, too
    key: str = ""  # API key from the command line
    probe: bool = False  # ready only after it has generated a token
    gpu: bool = False  # a GPU was requested: do not fall back to the CPU
    more: tuple[Artifact, ...] = ()  # further files: other parts, vision projector
    mmproj: str = ""  # path of the projector

    @property
    def files(self) -> tuple[Artifact, ...]:
        """All files of the model, the served one first; not the executable."""
        return (self.artifact, *self.more)

    def port_to_try(self, *, any_free: bool) -> int:
        """Return the port to serve on; 0: any free one.

        Args:
            any_free: without a requested port, use any free one, not the default.
        """
        if self.port is not None:
            return self.port
        if any_free:
            return 0
        return self.settings.port

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if the size of any is unknown."""
        total = 0
        for file in self.files:
            if file.size is None:
                return None
            total += file.size
        return total


class Jobs(NamedTuple):
    """All jobs of a command line."""

    by_name: Mapping[str, Job]  # task name → job
    # (ask, names of its jobs), in the command line's order
    asked: tuple[tuple[Ask, tuple[str, ...]], ...]
    aliases: Mapping[str, str]  # name as typed → name of the job, if they differ

    def of(self, verb: str) -> tuple[str, ...]:
        """Return the jobs of a verb that is given without `:MODEL`."""
        asks = (names for ask, names in self.asked if ask.verb == verb and not ask.model)
        return tuple(name for names in asks for name in names)


def plan(request: Request, catalogue: Catalogue, place: Place, *, attached: bool = False) -> Jobs:
    """Resolve a command line.

    Args:
        attached: the last task uses a server that is already running.

    Raises:
        UsageError: an unknown name, or an invalid value or combination.
    """
    by_name: dict[str, Job] = {}
    asked: list[tuple[Ask, tuple[str, ...]]] = []
    aliases: dict[str, str] = {}
    started: set[str] = set()  # jobs whose settings come from a verb that starts them
    for ask in request.asks or _inspected(request, catalogue):
        names: list[str] = []
        resolves = not (attached and ask is request.asks[-1])
        for word in _models_of(ask, catalogue) if resolves else ():
            job = _job(ask, word, catalogue, place)
            _check_conflict(by_name.get(job.name), job)
            starts = ask.kind is Kind.SERVER
            overrides = ask.verb == "verify" and job.name not in started
            if job.name not in by_name or starts or overrides:
                by_name[job.name] = job
            if starts:
                started.add(job.name)
            names.append(job.name)
            if word and word != job.name and ask.model:
                aliases[word] = job.name
        asked.append((ask, tuple(names)))
    return Jobs(by_name, tuple(asked), aliases)


def catalogued(name: str, catalogue: Catalogue, place: Place) -> Job:
    """Return the job of an entry, without any options."""
    return _job(Ask("catalogue", name, {}), name, catalogue, place)


def _inspected(request: Request, catalogue: Catalogue) -> Iterable[Ask]:
    """Return the tasks that doit's own commands need: the named, or all for --all."""
    words = [w.partition(":")[2] for w in request.words if ":" in w]
    if "--all" in request.words and not words:
        words = list(catalogue.names)
    return [Ask("", word, {}) for word in words]


def _models_of(ask: Ask, catalogue: Catalogue) -> tuple[str, ...]:
    """Return the models of a task; empty text: the default, or a file of the user's."""
    if ask.kind in (Kind.PROGRAM, Kind.REPORT):
        return ()
    words = ask.models or ("",)
    names = tuple(name for word in words for name in _matching(word, catalogue))
    if len(names) > 1:
        _check_several(ask, names)
    return names


def _check_several(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that the task may have several models.

    Raises:
        UsageError: it may not.
    """
    got = f"got {len(names)}: {', '.join(names)}"
    if ask.verb in ("serve", "with", "chat"):
        raise UsageError(f"`{ask.verb}` runs one model, {got}")
    port = ask.options.get("port", "0")
    if ask.verb == "start" and port != "0":
        raise UsageError(f"--port {port} is for one model, {got}", fix="--port 0")


def _matching(word: str, catalogue: Catalogue) -> tuple[str, ...]:
    if "*" not in word:
        return (word,)
    names = tuple(name for name in catalogue.names if fnmatchcase(name, word))
    if not names:
        raise UsageError(f"no model matches {word!r}", fix="`doit` shows the models")
    return names


def _check_conflict(known: Job | None, job: Job) -> None:
    if known is None:
        return
    if (known.artifact, known.engine) != (job.artifact, job.engine):
        what = f"{job.name} is requested twice, with different files or engines"
        raise UsageError(what)


def _job(ask: Ask, word: str, catalogue: Catalogue, place: Place) -> Job:
    options = ask.options
    source = _source(options, word, catalogue, place)
    adopt_from = adoption_folders(catalogue, place)
    artifact = source.artifact._replace(adopt_from=adopt_from)
    more = further_artifacts(artifact, source.files, place)
    mmproj = ""
    if source.files and source.files[-1].mmproj:
        mmproj = more[-1].target
    engine = _engine(options.get("engine"), source.model, artifact, place)
    exe = None
    # "" is any verb, as doit's own commands see it
    starts = ask.kind in (Kind.SERVER, Kind.PLAN) or ask.verb in ("", "verify")
    if engine == "llamafile" and starts:
        exe = llamafile_exe(catalogue, place)
    requested = settings_of(options).over(source.model.serve)
    key = _api_key(options)
    gpu = options.get("gpu", "auto").lower()
    return Job(
        source.name,
        source.model,
        artifact,
        engine,
        serve_settings(requested.over(catalogue.defaults)),
        exe,
        checked_extra(ask.extra) if ask.verb in ("serve", "start") else (),
        source.question,
        requested.port,
        key,
        bool(options.get("probe")),
        bool(options.get("force_gpu")) or gpu not in ("auto", "disable"),
        more,
        mmproj,
    )


def _source(options: Mapping[str, Any], word: str, catalogue: Catalogue, place: Place) -> ModelSource:
    """Return the model that the options name: a path, a URL or an entry."""
    path = options.get("llamafile")
    url = options.get("llamafile_url")
    sha256 = digest_in(options.get("sha256"))
    if path is not None and word:
        what = "--model and --llamafile cannot be combined"
        raise UsageError(what, fix="remove one of them")
    if url is not None:
        _check_url(url, path)
        url = absolute_source(url, place, place.cwd)
    if path is not None:
        return own_file(path, url, sha256, catalogue, place)
    if url is not None:
        source = file_from_url(word, url, sha256, catalogue, place)
        known: tuple[FileSpec, ...] = ()
        if source.name in catalogue.names:
            known = catalogue.more(source.name)
        files = further_files(source.artifact, known)
        _check_pins(url, source.artifact, files)
        return source._replace(files=files)
    if sha256 is not None:
        raise UsageError("--sha256 requires --llamafile or --llamafile-url")
    name = catalogue.name(word or catalogue.default)
    model = catalogue.model(name)
    artifact = entry_artifact(name, model, place)
    return ModelSource(name, model, artifact, files=catalogue.more(name))


def _check_url(url: str, path: str | None) -> None:
    """Check the value of `--llamafile-url`.

    Raises:
        UsageError: it is not allowed.
    """
    problem = url_problem(url, pinned=True) or split_problem(url)
    if problem:
        raise UsageError(f"--llamafile-url: {problem}")
    count = split_count(url)
    if path is not None and count:
        what = f"{url} is the first of {count} files, which must keep their names"
        raise UsageError(what, fix="remove --llamafile")


def _check_pins(url: str, first: Artifact, files: Iterable[FileSpec]) -> None:
    """Check that all parts of a file are pinned, or none.

    Raises:
        UsageError: only some are.
    """
    parts = [file.sha256 for file in files if not file.mmproj]
    problem = pins_problem(url, [first.sha256, *parts])
    if problem:
        raise UsageError(problem, fix=f"doit add {url}")


def _api_key(options: Mapping[str, Any]) -> str:
    if "api_key" not in options:
        return ""
    key: str = options["api_key"]
    problem = key_problem(key)
    if problem:
        raise UsageError(f"--api-key: {problem}")
    return key


def _engine(requested: str | None, model: Model, artifact: Artifact, place: Place) -> str:
    """Return the engine: as requested, as in the entry, or the default for the file.

    Raises:
        UsageError: the engine is unknown, or cannot serve the file.
    """
    if requested is not None and requested not in ENGINES:
        hint = did_you_mean(requested, ENGINES)
        raise UsageError(
            f"--engine: there is no engine {requested!r}", fix=hint or f"the engines are {', '.join(ENGINES)}"
        )
    head = place.first_bytes(artifact.target)
    is_gguf = holds_gguf(head, artifact.target)
    on_windows = place.platform == "win32"
    default = "llamafile" if is_gguf or on_windows else "self"
    engine = requested or model.engine or default
    if engine == "self" and is_gguf:
        what = f"{artifact.label} is a GGUF, which is not a program"
        raise UsageError(what, fix="--engine llamafile, or --engine embedded")
    if engine == "embedded" and holds_program(head, artifact.target):
        reason = "a llamafile, but the embedded engine reads GGUF files"
        raise UsageError(f"{artifact.label} is {reason}", fix="remove --engine")
    if engine == "self" and on_windows:
        if requested is not None:
            raise _windows_error(artifact)
        return "llamafile"
    return engine


def _windows_error(artifact: Artifact) -> UsageError:
    """Return the error for a .llamafile that Windows cannot start (R9)."""
    reason = "not an .exe, so Windows cannot start it"
    if (artifact.size or 0) > WINDOWS_EXE_LIMIT:
        reason = "over 4 GiB, the limit of Windows for a program"
    return UsageError(f"{artifact.label} is {reason}", fix="--engine llamafile")
