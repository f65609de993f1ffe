"""From what was asked to what has to be done: one Job per model that the command line can reach.

Pure: platform, directories and the catalogue are arguments. Nothing is looked up on disk.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, get_args, get_type_hints

from tasks.catalogue.artifact import Artifact, engine_dir, engine_filename, model_dir
from tasks.catalogue.engine_args import checked_extra
from tasks.catalogue.file_specs import part, pins_problem, split_count, split_problem
from tasks.catalogue.types import ENGINES, LATEST, Catalogue, File, Model, Rule, Settings
from tasks.command_line import LOOKS, STARTS, Ask, Request
from tasks.errors import UsageError, did_you_mean
from tasks.system.paths import inside, short_name
from tasks.urls import MODEL_ENDINGS, filename_of, is_local, url_problem

ALL_LAYERS = 9999  # what --force-gpu means (R10): more layers than any model has
WINDOWS_EXE_LIMIT = 4 * 1024**3  # bytes; Windows starts no executable above it (R9)

_RUNS = ("verify", *STARTS, "plan")  # verbs that start the engine; the others do without its program

# what holds where neither the command line nor models.yaml says anything
BUILT_IN = Settings(host="127.0.0.1", port=8080, timeout=600)


class Place(NamedTuple):
    """Where we are."""

    platform: str  # as sys.platform says it
    cache: str  # absolute directory of everything downloaded
    root: str  # absolute directory of models.yaml
    cwd: str  # absolute directory the user typed the command in

    def absolute(self, path: str, base: str) -> str:
        """`path` seen from `base`, normalised."""
        flavour: Any = ntpath if self.platform == "win32" else posixpath
        return str(flavour.normpath(flavour.join(base, path)))


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


def llamafile_exe(catalogue: Catalogue, place: Place) -> Artifact:
    """llamafile without a model, of the catalogue's version.

    Raises UsageError: the catalogue does not say where it is.
    """
    engine = catalogue.engine("llamafile")
    if not engine.url or not engine.version:
        raise UsageError(
            f"{catalogue.where}: engines.llamafile needs url and version", fix=f"edit {catalogue.where}"
        )
    if engine.version == LATEST:
        raise UsageError("which llamafile is the latest is not in models.lock", fix="doit lock")
    sources = tuple(_source(u, place, place.root) for u in (engine.url, *engine.mirrors))
    folder = engine_dir(place.cache, engine.sha256, sources[0])
    target = inside(folder, engine_filename(engine.version, place.platform))
    label, adopt_from = f"llamafile {engine.version}", _adopt_from(catalogue, place)
    return Artifact(label, sources, target, engine.sha256, engine.size, adopt_from=adopt_from)


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
        raise UsageError(f"no model matches {word!r}", fix="`doit` shows the models there are")
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
    url = url and _source(url, place, place.cwd)
    if path is not None:
        name, model, artifact, question = _own_file(path, url, sha256, catalogue, place)
        files: tuple[File, ...] = ()  # those of a split one lie beside it
    elif url is not None:
        name, model, artifact, question = _from_url(word, url, sha256, catalogue, place)
        files = _files(artifact, catalogue.more(name) if name in catalogue.names else ())
    elif sha256 is not None:
        raise UsageError("--sha256 belongs to --llamafile or --llamafile-url")
    else:
        name = catalogue.name(word or catalogue.default)
        model, question = catalogue.model(name), ""
        artifact, files = _artifact(name, model, place), catalogue.more(name)
    artifact = artifact._replace(adopt_from=_adopt_from(catalogue, place))
    more = _more(artifact, files, place)
    mmproj = more[-1].target if files and files[-1].mmproj else ""
    parts = (artifact, *more)[: 1 + len(more) - bool(mmproj)]
    if url and (problem := pins_problem(url, [one.sha256 for one in parts])):
        raise UsageError(problem, fix=f"doit add {url}")
    engine = _engine(options.get("engine"), model, artifact, place)
    needs_exe = engine == "llamafile" and ask.verb in ("", *_RUNS)
    exe = llamafile_exe(catalogue, place) if needs_exe else None
    asked = _settings(options).over(model.serve)
    settings = asked.over(catalogue.defaults).over(BUILT_IN)
    gpu = bool(options.get("force_gpu")) or options.get("gpu", "auto").lower() not in ("auto", "disable")
    key, probe = options.get("api_key", ""), bool(options.get("probe"))
    if "api_key" in options and (problem := key_problem(key)):
        raise UsageError(f"--api-key: {problem}")
    return Job(
        name, model, artifact, engine, settings, exe, _extra(ask), question, asked.port, key, probe, gpu,
        more, mmproj,
    )  # fmt: skip


def _artifact(name: str, model: Model, place: Place) -> Artifact:
    sources = tuple(_source(u, place, place.root) for u in (model.url, *model.mirrors))
    folder = model_dir(place.cache, model.sha256, sources[0])
    return Artifact(name, sources, inside(folder, filename_of(model.url)), model.sha256, model.size)


def _files(artifact: Artifact, known: tuple[File, ...]) -> tuple[File, ...]:
    """The further files of a model that comes from another URL: its parts are beside the first one."""
    url = artifact.sources[0]
    parts = [File(part(url, n)) for n in range(2, split_count(url) + 1)]
    pins = [file for file in known if not file.mmproj]
    if len(pins) == len(parts):
        parts = [file._replace(url=new.url, mirrors=()) for file, new in zip(pins, parts, strict=True)]
    return (*parts, *(file for file in known if file.mmproj))


def _more(first: Artifact, files: tuple[File, ...], place: Place) -> tuple[Artifact, ...]:
    """The further files: parts beside the first, where engines look for them; a projector by its digest."""
    beside, found = first.target.rpartition("/")[0], []
    count = sum(not file.mmproj for file in files) + 1
    for number, file in enumerate(files, 2):
        sources = tuple(_source(u, place, place.root) for u in (file.url, *file.mirrors))
        folder = model_dir(place.cache, file.sha256, sources[0]) if file.mmproj else beside
        label = f"{first.label} " + ("mmproj" if file.mmproj else f"part {number} of {count}")
        target = inside(folder, filename_of(file.url))
        found.append(Artifact(label, sources, target, file.sha256, file.size, adopt_from=first.adopt_from))
    return tuple(found)


def _adopt_from(catalogue: Catalogue, place: Place) -> tuple[str, ...]:
    """The catalogue's folders; one with ~ is the user's, whoever that is."""
    return tuple(f if f.startswith("~") else place.absolute(f, place.root) for f in catalogue.adopt_from)


def _source(url: str, place: Place, base: str) -> str:
    """A URL as it is, a path made absolute."""
    return place.absolute(url, base) if is_local(url) and not url.lower().startswith("file:") else url


_Found = tuple[str, Model, Artifact, str]


def _own_file(path: str, url: str | None, sha256: str | None, catalogue: Catalogue, place: Place) -> _Found:
    """`--llamafile PATH`: served where it lies, downloaded there only if it is missing (R2, R6)."""
    target = place.absolute(path, place.cwd)
    name = re.split(r"[\\/]", target)[-1]
    known = catalogue.by_filename(name)
    question = _question(known, url, catalogue) if known and url else ""
    if known and url and not question:  # the catalogue's own URL, so the catalogue's own bytes
        sha256 = sha256 or catalogue.model(known).sha256
    sources = () if url is None else (_checked(url, sha256),)
    artifact = Artifact(_task_name(name), sources, target, sha256, None, owned=False)
    return artifact.label, Model(name, "unknown", url or ""), artifact, question


def _from_url(word: str, url: str, sha256: str | None, catalogue: Catalogue, place: Place) -> _Found:
    """`--llamafile-url URL`: another source of a catalogued model, or a file of its own (R3, R4)."""
    filename = filename_of(url)
    name = catalogue.name(word) if word else catalogue.by_filename(filename)
    if name is None:
        if not filename.endswith(MODEL_ENDINGS):
            raise UsageError(
                f"the last part of {url} is {filename!r}, which ends in none of {', '.join(MODEL_ENDINGS)}",
                fix=f"doit serve --llamafile NAME.llamafile --llamafile-url {url}",
            )
        target = inside(model_dir(place.cache, sha256, url), filename)
        name = _task_name(filename)
        artifact = Artifact(name, (_checked(url, sha256),), target, sha256)
        return name, Model(filename, "unknown", url), artifact, ""
    model = catalogue.model(name)
    question = _question(name, url, catalogue)
    if sha256 not in (None, model.sha256):
        model = replace(model, sha256=sha256, size=None)
    artifact = _artifact(name, model, place)
    if question:
        folder = model_dir(place.cache, model.sha256, url)  # without a digest the URL says which bytes
        target = inside(folder, filename_of(model.url))
        artifact = artifact._replace(sources=(_checked(url, model.sha256),), target=target)
    return name, model, artifact, question


def _question(name: str, url: str, catalogue: Catalogue) -> str:
    model = catalogue.model(name)
    if url in (model.url, *model.mirrors):
        return ""
    return f"{name} comes from\n  {model.url}\nand you ask for\n  {url}\nDownload it from there?"


def _checked(url: str, sha256: str | None) -> str:
    problem = url_problem(url, pinned=sha256 is not None)
    if problem:
        raise UsageError(f"--llamafile-url: {problem}", fix="add --sha256 HEX" if "sha256" in problem else "")
    return url


def _task_name(filename: str) -> str:
    """A task's name from a file's: doit allows no `=`, and `:` and `*` mean something to it."""
    stem = filename.rpartition(".")[0] if filename.endswith(MODEL_ENDINGS) else filename
    return short_name(re.sub(r"[^\w.-]+", "-", stem)).strip("-.") or "file"


def digest_in(text: str | None) -> str | None:
    if text is None:
        return None
    plain = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise UsageError(f"--sha256: expected 64 hexadecimal digits, got {text!r}")
    return plain


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


def key_problem(key: str) -> str:
    """Why a key is none, or nothing.

    llama.cpp splits keys at commas, HTTP sends a line of ASCII, and llamafile up to 0.9 ends with a key of
    less than four characters (server.cpp logs the last four).
    """
    fits = re.fullmatch(r"[!-+\--~]{4,}", key)
    return "" if fits else "expected at least four visible ASCII characters, without blanks and commas"


def _settings(options: Mapping[str, Any]) -> Settings:
    """The command line's settings, held to the rules of the catalogue's (R10, R17, R23)."""
    values: dict[str, Any] = {
        f.name: _value(f.name, options[f.name]) for f in fields(Settings) if f.name in options
    }
    if options.get("force_gpu"):
        if "ngl" in values:
            raise UsageError("--force-gpu and --ngl both say how many layers", fix="leave one of them away")
        values["ngl"] = ALL_LAYERS
    return Settings(**values)


def _value(key: str, text: str) -> int | str:
    """One setting from its text, by its type and its rule in `Settings`."""
    kind = get_type_hints(Settings, include_extras=True)[key]
    rule = next(r for r in kind.__metadata__ if isinstance(r, Rule))
    value: int | str = text.lower() if key == "gpu" else text
    if int in get_args(kind.__origin__):
        value = int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else ""
    if value == "" or (rule.test is not None and not rule.test(value)):
        fix = did_you_mean(text, rule.schema.get("enum", ()))
        if key == "host" and "/" in text:
            fix = "the port goes into --port, and there is no http:// in front"
        raise UsageError(f"--{key.replace('_', '-')}: expected {rule.expected}, got {text!r}", fix=fix)
    return value
