"""The catalogue's types, and look-ups in it. Pure.

Loaded by every run, so it imports neither yaml nor pydantic. `schema` reads and
validates models.yaml with the same types. `Rule` carries what a type cannot express
(pattern, range, meaning); pydantic reads it through its annotation protocol, so it
also reaches models.schema.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, NamedTuple

from tasks.errors import UsageError, did_you_mean
from tasks.system.paths import MAX_NAME

ENGINES = ("self", "llamafile", "embedded")
LATEST = "latest"  # as an engine's version
GPUS = ("auto", "disable", "amd", "apple", "nvidia", "vulkan")


class Constraint(NamedTuple):
    """A constraint and its meaning, beside a type: `Annotated[str, Rule(...)]`."""

    about: str  # the key's meaning, shown by editors
    expected: str = ""  # what a value must be, for the error message
    test: Callable[[Any], bool] | None = None
    schema: Mapping[str, Any] = {}  # the same constraint as JSON Schema keywords

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Run the type's own check, then `test` (pydantic's annotation protocol)."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            if value is not None and self.test is not None and not self.test(value):
                context = {"expected": self.expected}
                raise PydanticCustomError("rule", "{expected}", context)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Add description and keywords (pydantic's annotation protocol)."""
        out = handler(schema)
        branches = (b for b in out.get("anyOf", ()) if b.get("type") != "null")
        next(branches, out).update(self.schema)
        return {**out, "description": self.about}


def is_sha256(value: str) -> bool:
    """Whether it is a SHA-256 in lower-case hexadecimal."""
    return len(value) == 64 and set(value) <= set("0123456789abcdef")


def _has_only(value: str, allowed: str) -> bool:
    """Whether it has only ASCII letters, digits and the allowed characters."""
    return value.isascii() and all(c.isalnum() or c in allowed for c in value)


def _is_word(value: str) -> bool:
    return value[:1].isalnum() and _has_only(value, "._-")


def _is_name(value: str) -> bool:
    return _is_word(value) and len(value) <= MAX_NAME


def _is_host(value: str) -> bool:
    return 0 < len(value) < 254 and _has_only(value, ".:_%-")


def _is_version(value: str) -> bool:
    parts = value.split(".")
    numeric = value.isascii() and all(part.isdigit() for part in parts)
    return numeric and 2 <= len(parts) <= 3


def _is_repo(value: str) -> bool:
    owner, slash, name = value.partition("/")
    return bool(slash) and _is_word(owner) and _is_word(name)


def _is_path_in_repo(value: str) -> bool:
    unsafe = {"", ".", ".."} & set(value.split("/"))
    return bool(value) and not unsafe and value.isprintable()


def _is_revision(value: str) -> bool:
    return bool(value) and _has_only(value, "._-/")


def _at_least(low: int, about: str) -> Constraint:
    expected = f"a whole number, {low} or more"
    return Constraint(about, expected, lambda v: v >= low, {"minimum": low})


def _one_of(choices: tuple[str, ...], about: str) -> Constraint:
    expected = "one of " + ", ".join(choices)
    return Constraint(about, expected, choices.__contains__, {"enum": list(choices)})


_NAME = Constraint(
    "short name",
    f"a name of letters, digits, '.', '_' and '-', {MAX_NAME} at most",
    _is_name,
    {"pattern": rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}$"},
)
_REPO = Constraint(
    "repository on the Hugging Face Hub, instead of url",
    "owner/repository",
    _is_repo,
    {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"},
)
_REPO_FILE = Constraint(
    "path of the file in that repository",
    "a path inside the repository",
    _is_path_in_repo,
    {"pattern": r"^[^/]"},
)
_REVISION = Constraint(
    "commit, tag or branch of that repository [main]",
    "a commit, tag or branch",
    _is_revision,
    {"pattern": r"^[A-Za-z0-9._/-]+$"},
)
_SHA256 = Constraint(
    "SHA-256 of the whole file, hexadecimal",
    "64 lower-case hexadecimal digits",
    is_sha256,
    {"pattern": "^[0-9a-f]{64}$"},
)
_SIZE = Constraint(
    "exact size in bytes",
    "a whole number of bytes above 0",
    lambda v: v > 0,
    {"minimum": 1},
)
_ENGINE_VERSION = Constraint(
    "version of llamafile, in quotes: flags depend on it",
    'a version in quotes, such as "0.9.3"',
    _is_version,
    {"pattern": r"^\d+\.\d+(\.\d+)?$"},
)
_VERSION_OR_LATEST = Constraint(
    "version of llamafile, in quotes; latest: the version in models.lock",
    'a version in quotes, such as "0.9.3", or latest',
    lambda v: v == LATEST or _is_version(v),
    {"pattern": r"^(latest|\d+\.\d+(\.\d+)?)$"},
)
_HOST = Constraint(
    "address to listen on",
    "a host name or an address such as 127.0.0.1",
    _is_host,
    {"pattern": "^[A-Za-z0-9.:_%-]{1,253}$"},
)
_PORT = Constraint(
    "TCP port; 0 selects a free port",
    "a whole number from 0 to 65535",
    lambda v: 0 <= v <= 65535,
    {"minimum": 0, "maximum": 65535},
)
_URL = Constraint(
    "https://…, file:///…, or a path relative to this file; http:// needs sha256"
)
_MIRRORS = Constraint("more URLs of the same bytes, tried in order after url")
_ADOPT_FROM = Constraint(
    "folders that may already have the files:"
    " another cache of this recipe, the Hub's cache, Ollama's, or plain files"
)
_ENGINE = _one_of(
    ENGINES,
    "program that serves the model; default: self for .llamafile, llamafile for .gguf",
)

Name = Annotated[str, _NAME]
Title = Annotated[str, Constraint("full name, for people")]
Url = Annotated[str, _URL]
Repo = Annotated[str | None, _REPO]
RepoFile = Annotated[str | None, _REPO_FILE]
Revision = Annotated[str | None, _REVISION]
Mirrors = Annotated[tuple[str, ...], _MIRRORS]
AdoptFrom = Annotated[tuple[str, ...], _ADOPT_FROM]
Sha256 = Annotated[str | None, _SHA256]
Size = Annotated[int | None, _SIZE]
Licence = Annotated[
    str, Constraint("license of the file, an SPDX identifier if there is one")
]
EngineName = Annotated[str | None, _ENGINE]
EngineVersion = Annotated[str | None, _ENGINE_VERSION]


class Strict:
    """Configuration that pydantic reads: no unknown keys, no type coercion.

    The types are dataclasses because pydantic and JSON Schema support them. They have
    no eq and no repr, because each generated method costs 0.5 ms a class in every run.
    Treat them as frozen.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}


@dataclass(eq=False, repr=False)
class ServeOptions(Strict):
    """Settings for serving a model; null: not set here."""

    host: Annotated[str | None, _HOST] = None
    port: Annotated[int | None, _PORT] = None
    ctx_size: Annotated[
        int | None, _at_least(0, "context size in tokens, 0: as trained")
    ] = None
    n_predict: Annotated[
        int | None, _at_least(-1, "maximum tokens of an answer, -1: no limit")
    ] = None
    ngl: Annotated[int | None, _at_least(-1, "layers on the GPU, 9999: all")] = None
    gpu: Annotated[str | None, _one_of(GPUS, "kind of GPU")] = None
    threads: Annotated[int | None, _at_least(1, "CPU threads")] = None
    timeout: Annotated[
        int | None, _at_least(1, "seconds until the server must be ready")
    ] = None
    args: Annotated[
        tuple[str, ...], Constraint("more arguments for the engine, passed unchanged")
    ] = ()

    def over(self, below: ServeOptions) -> ServeOptions:
        """Merge: values set here win over `below`; `args` are concatenated."""
        merged: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                value = getattr(below, field.name)
            merged[field.name] = value
        return ServeOptions(**{**merged, "args": (*below.args, *self.args)})


@dataclass(eq=False, repr=False)
class Part(Strict):
    """Digest and size of one part of a split GGUF."""

    sha256: Sha256 = None
    size: Size = None


@dataclass(eq=False, repr=False)
class Projector(Strict):
    """The vision projector of a model: `mmproj:`."""

    url: Url = ""
    hf: Repo = None
    file: RepoFile = None
    revision: Revision = None
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None


@dataclass(eq=False, repr=False)
class Model(Strict):
    """One entry of `models:`."""

    title: Title
    license: Licence
    url: Url = ""  # never empty in a Catalogue: `compile_text` derives it from `hf`
    hf: Repo = None
    file: RepoFile = None
    revision: Revision = None
    aliases: Annotated[tuple[Name, ...], Constraint("other names of the model")] = ()
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None
    parts: Annotated[
        tuple[Part, ...],
        Constraint("digest and size of each part of a split GGUF, in order"),
    ] = ()
    mmproj: Annotated[
        Projector | None,
        Constraint("vision projector, passed to the engine with --mmproj"),
    ] = None
    params: Annotated[str | None, Constraint("number of parameters, such as 7.24B")] = (
        None
    )
    quant: Annotated[str | None, Constraint("quantization, such as Q5_K_M")] = None
    ram: Annotated[int | None, _at_least(1, "memory needed, in GB")] = None
    engine: EngineName = None
    engine_version: EngineVersion = None
    serve: Annotated[ServeOptions, Constraint("settings for this model")] = (
        ServeOptions()
    )


@dataclass(eq=False, repr=False)
class Engine(Strict):
    """One entry of `engines:`."""

    title: Title
    license: Licence
    version: Annotated[str | None, _VERSION_OR_LATEST] = None
    url: Annotated[
        str | None,
        Constraint("URL of its executable; {version} is replaced by the version"),
    ] = None
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None


class FileSpec(NamedTuple):
    """One file of an entry: where its bytes are, and what is known of them."""

    url: str
    mirrors: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    mmproj: bool = False  # it is the model's vision projector
    # as in models.yaml: a URL, a path, or hf:owner/repo@revision/file
    source: str = ""

    def as_row(self) -> list[Any]:
        """Return it as a row of `more` in the compiled catalogue."""
        return [self.url, list(self.mirrors), self.sha256, self.size, self.mmproj]

    @staticmethod
    def from_row(row: Sequence[Any]) -> FileSpec:
        """Read a row of `more`."""
        url, mirrors, sha256, size, mmproj = row
        return FileSpec(url, tuple(mirrors), sha256, size, mmproj)


def _settings(plain: Mapping[str, Any]) -> ServeOptions:
    return ServeOptions(**{**plain, "args": tuple(plain.get("args", ()))})


class Catalogue:
    """The validated catalogue; objects for its entries are made on demand.

    Args:
        plain: the result of `schema.compile_text`.
        where: the file's path, for messages.
    """

    def __init__(self, plain: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.default: str = plain["default"]
        self._models: Mapping[str, Any] = plain["models"]
        self._names: Mapping[str, str] = plain["names"]
        self._engines: Mapping[str, Any] = plain["engines"]
        self._files: Mapping[str, str] = plain["files"]
        self.adopt_from: tuple[str, ...] = tuple(plain["adopt_from"])
        self.defaults = _settings(plain["defaults"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models, in the file's order."""
        return tuple(self._models)

    @property
    def names_and_aliases(self) -> tuple[str, ...]:
        """All names and aliases, in lower case."""
        return tuple(self._names)

    def name(self, word: str) -> str:
        """Return the model's name for a name or alias, in any case.

        Raises:
            UsageError: there is no such model; the fix has the closest spellings.
        """
        name = self._names.get(word.lower())
        if name is not None:
            return name
        hint = did_you_mean(word, self.names_and_aliases)
        raise UsageError(
            f"there is no model {word!r} in {self.where}",
            fix=hint or "`doit` shows the models",
        )

    def model(self, word: str) -> Model:
        """Return the entry for a name or alias.

        Raises:
            UsageError: there is no such model.
        """
        plain = dict(self._models[self.name(word)])
        for key in ("more", "parts", "mmproj"):  # see `Catalogue.more`
            plain.pop(key, None)
        for key in ("aliases", "mirrors"):
            plain[key] = tuple(plain.get(key, ()))
        return Model(**{**plain, "serve": _settings(plain.get("serve", {}))})

    def extra_files(self, word: str) -> tuple[FileSpec, ...]:
        """Return the further files of a model: other parts first, then its projector.

        Raises:
            UsageError: there is no such model.
        """
        rows = self._models[self.name(word)].get("more", ())
        return tuple(map(FileSpec.from_row, rows))

    def engine(self, name: str) -> Engine:
        """Return the entry of `engines:`.

        Raises:
            UsageError: there is none.
        """
        if name not in self._engines:
            what = f"{self.where} has no engine {name!r}"
            raise UsageError(what, fix=f"add engines.{name} to it")
        plain = self._engines[name]
        return Engine(**{**plain, "mirrors": tuple(plain.get("mirrors", ()))})

    def has_engine(self, name: str) -> bool:
        """Whether `engines:` has this entry."""
        return name in self._engines

    def by_filename(self, filename: str) -> str | None:
        """Return the name of the model whose file has this name, if there is one."""
        return self._files.get(filename)
