"""From what was asked to what has to be done: one Job per model that the command line can reach.

Pure: platform, directories and the catalogue are arguments. Nothing is looked up on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_args import checked_extra
from tasks.catalogue.environment import Place
from tasks.catalogue.file_specs import pins_problem, split_count, split_problem
from tasks.catalogue.model_files import (
    WINDOWS_EXE_LIMIT,
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
from tasks.catalogue.settings import BUILT_IN, key_problem, settings_of
from tasks.catalogue.types import ENGINES, Catalogue, File, Model, Settings
from tasks.command_line import LOOKS, STARTS, Ask, Request
from tasks.errors import UsageError, did_you_mean
from tasks.urls import url_problem

_RUNS = ("verify", *STARTS, "plan")  # verbs that start the engine; the others do without its program


class Job(NamedTuple):
    """One model with all that was decided about it."""

    name: str  # its name in tasks
    model: Model
    artifact: Artifact
    engine: str  # self, llamafile or embedded
    settings: Settings  # how to serve it, with every level merged
    exe: Artifact | None = None  # llamafile's own executable, where the engine is `llamafile`
    extra: tuple[str, ...] = ()  # arguments for the engine, as they are
    question: str = ""  # what must be confirmed before a download (R4), or nothing
    port: int | None = None  # the one that was asked for; not the usual one, which `settings` have
    key: str = ""  # what clients must send, from the command line
    probe: bool = False  # ready means that it has generated a token
    gpu: bool = False  # it was told to use the GPU, and is not to do without
    more: tuple[Artifact, ...] = ()  # further files of the model: parts of a split one, a vision projector
    mmproj: str = ""  # path of that projector

    @property
    def files(self) -> tuple[Artifact, ...]:
        """Every file of the model, the one that is served first; not the program."""
        return (self.artifact, *self.more)

    @property
    def size(self) -> int | None:
        """Bytes of all its files; None where that is not known of each."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


class Jobs(NamedTuple):
    """Everything the command line reaches."""

    by_name: Mapping[str, Job]  # job of each task name that follows a verb and a colon
    asked: tuple[tuple[Ask, tuple[str, ...]], ...]  # (ask, names of its jobs) in the command line's order
    aliases: Mapping[str, str]  # name as typed → name of the job, where they differ

    def of(self, verb: str) -> tuple[str, ...]:
        """Names of the jobs that the tasks of one verb ask for without a colon."""
        return tuple(n for ask, ns in self.asked if ask.verb == verb and not ask.model for n in ns)


def plan(request: Request, catalogue: Catalogue, place: Place) -> Jobs:
    """Resolve a command line. Raises UsageError: a name, a value or a combination that cannot be meant."""
    by_name: dict[str, Job] = {}
    asked: list[tuple[Ask, tuple[str, ...]]] = []
    aliases: dict[str, str] = {}
    started: set[str] = set()  # their settings are those that count
    for ask in request.asks or _looked_at(request, catalogue):
        names: list[str] = []
        for word in _words(ask, catalogue):
            job = _job(ask, word, catalogue, place)
            _same_or_error(by_name.get(job.name), job)
            if (
                job.name not in by_name
                or ask.verb in STARTS
                or (ask.verb == "verify" and job.name not in started)
            ):
                by_name[job.name] = job
            started |= {job.name} if ask.verb in STARTS else set()
            names.append(job.name)
            if word and word != job.name and ask.model:
                aliases[word] = job.name
        asked.append((ask, tuple(names)))
    return Jobs(by_name, tuple(asked), aliases)


def catalogued(name: str, catalogue: Catalogue, place: Place) -> Job:
    """The job of one entry, with nothing from the command line."""
    return _job(Ask("catalogue", name, {}), name, catalogue, place)


def _looked_at(request: Request, catalogue: Catalogue) -> Iterable[Ask]:
    """doit's own commands look at tasks: at those that are named, and `list --all` at every one."""
    words = [w.partition(":")[2] for w in request.words if ":" in w]
    if "--all" in request.words and not words:
        words = list(catalogue.names)
    return [Ask("", word, {}) for word in words]


def _words(ask: Ask, catalogue: Catalogue) -> tuple[str, ...]:
    """The models one task means; an empty word is the default, or a file of the user's."""
    if ask.verb in ("exe", "catalogue", *LOOKS) or "run" in ask.options:
        return ()
    words = tuple(name for word in ask.models or ("",) for name in _matching(word, catalogue))
    many = f"and this names {len(words)}: {', '.join(words)}"
    if ask.verb in ("serve", "with", "chat") and len(words) > 1:
        raise UsageError(f"`{ask.verb}` runs one model, {many}")
    if ask.verb == "start" and len(words) > 1 and ask.options.get("port", "0") != "0":
        raise UsageError(f"--port {ask.options['port']} is for one model, {many}", fix="--port 0")
    return words


def _extra(ask: Ask) -> tuple[str, ...]:
    """What goes to the engine as it is."""
    if ask.verb not in ("serve", "start"):
        return ()
    return checked_extra(ask.extra)


def _matching(word: str, catalogue: Catalogue) -> tuple[str, ...]:
    if "*" not in word:
        return (word,)
    found = tuple(name for name in catalogue.names if fnmatchcase(name, word))
    if not found:
        raise UsageError(f"no model matches {word!r}", fix="`doit` shows the models")
    return found


def _same_or_error(known: Job | None, job: Job) -> None:
    if known is not None and (known.artifact, known.engine) != (job.artifact, job.engine):
        raise UsageError(f"{job.name} is asked for twice, from different files or with different engines")


def _job(ask: Ask, word: str, catalogue: Catalogue, place: Place) -> Job:
    options = ask.options
    path, url = options.get("llamafile"), options.get("llamafile_url")
    sha256 = digest_in(options.get("sha256"))
    if path is not None and word:
        raise UsageError("--model and --llamafile both say which file", fix="leave one of them away")
    if url is not None and (problem := url_problem(url, pinned=True) or split_problem(url)):
        raise UsageError(f"--llamafile-url: {problem}")
    if url is not None and path is not None and split_count(url):
        what = f"{url} is the first of {split_count(url)} files, which have to keep their names"
        raise UsageError(what, fix="leave --llamafile away")
    url = url and absolute_source(url, place, place.cwd)
    if path is not None:
        name, model, artifact, question = own_file(path, url, sha256, catalogue, place)
        files: tuple[File, ...] = ()  # those of a split one lie beside it
    elif url is not None:
        name, model, artifact, question = file_from_url(word, url, sha256, catalogue, place)
        files = further_files(artifact, catalogue.more(name) if name in catalogue.names else ())
    elif sha256 is not None:
        raise UsageError("--sha256 belongs to --llamafile or --llamafile-url")
    else:
        name = catalogue.name(word or catalogue.default)
        model, question = catalogue.model(name), ""
        artifact, files = entry_artifact(name, model, place), catalogue.more(name)
    artifact = artifact._replace(adopt_from=adoption_folders(catalogue, place))
    more = further_artifacts(artifact, files, place)
    mmproj = more[-1].target if files and files[-1].mmproj else ""
    parts = (artifact, *more)[: 1 + len(more) - bool(mmproj)]
    if url and (problem := pins_problem(url, [one.sha256 for one in parts])):
        raise UsageError(problem, fix=f"doit add {url}")
    engine = _engine(options.get("engine"), model, artifact, place)
    needs_exe = engine == "llamafile" and ask.verb in ("", *_RUNS)
    exe = llamafile_exe(catalogue, place) if needs_exe else None
    asked = settings_of(options).over(model.serve)
    settings = asked.over(catalogue.defaults).over(BUILT_IN)
    gpu = bool(options.get("force_gpu")) or options.get("gpu", "auto").lower() not in ("auto", "disable")
    key, probe = options.get("api_key", ""), bool(options.get("probe"))
    if "api_key" in options and (problem := key_problem(key)):
        raise UsageError(f"--api-key: {problem}")
    return Job(
        name, model, artifact, engine, settings, exe, _extra(ask), question, asked.port, key, probe, gpu,
        more, mmproj,
    )  # fmt: skip


def _engine(asked: str | None, model: Model, artifact: Artifact, place: Place) -> str:
    """Which program serves it: what was asked, the entry's, or what fits the file and the platform."""
    if asked is not None and asked not in ENGINES:
        hint = did_you_mean(asked, ENGINES) or f"the engines are {', '.join(ENGINES)}"
        raise UsageError(f"--engine: there is no engine {asked!r}", fix=hint)
    gguf = artifact.target.endswith(".gguf")
    windows = place.platform == "win32"
    engine = asked or model.engine or ("llamafile" if gguf or windows else "self")
    if engine == "self" and gguf:
        raise UsageError(f"{artifact.label} is a .gguf, which is no program", fix="--engine llamafile")
    if engine == "embedded" and artifact.target.endswith(".llamafile"):
        raise UsageError(
            f"{artifact.label} is a .llamafile, and the embedded engine reads .gguf files",
            fix="leave --engine away",
        )
    if engine == "self" and windows:
        if asked is None:
            return "llamafile"
        big = (artifact.size or 0) > WINDOWS_EXE_LIMIT
        why = "over 4 GiB, more than Windows starts" if big else "not an .exe, so Windows cannot start it"
        raise UsageError(f"{artifact.label} is {why}", fix="--engine llamafile")
    return engine
