"""The catalogue's types, and looking things up in it. Pure.

Must stay cheap to import (a warm run does): no yaml, no pydantic. `schema` reads and validates the
file with these same types; `Rule` carries what a type cannot say (pattern, range, meaning), is read by
pydantic through its annotation protocol, and so reaches models.schema.json as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, NamedTuple

from tasks.errors import UsageError, did_you_mean
from tasks.system.paths import MOST_NAME

ENGINES = ("self", "llamafile", "embedded")
LATEST = "latest"  # as an engine's version
GPUS = ("auto", "disable", "amd", "apple", "nvidia", "vulkan")


class Rule(NamedTuple):
    """A constraint and its meaning, beside a type: `Annotated[str, Rule(...)]`."""

    about: str  # the key's meaning, for editors
    expected: str = ""  # what a value must be, for the error message
    test: Callable[[Any], bool] | None = None
    schema: Mapping[str, Any] = {}  # JSON Schema keywords that say the same as `test`

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Hook of pydantic's annotation protocol: the type's own check, then `test`."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            if value is not None and self.test is not None and not self.test(value):
                raise PydanticCustomError("rule", "{expected}", {"expected": self.expected})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Hook of pydantic's annotation protocol: description and keywords."""
        out = handler(schema)
        branch = next((b for b in out.get("anyOf", ()) if b.get("type") != "null"), out)
        branch.update(self.schema)
        return {**out, "description": self.about}


def hex64(value: str) -> bool:
    return len(value) == 64 and set(value) <= set("0123456789abcdef")


def _word(value: str) -> bool:
    return value.isascii() and value[:1].isalnum() and all(c.isalnum() or c in "._-" for c in value)


def _name(value: str) -> bool:
    return _word(value) and len(value) <= MOST_NAME


def _host(value: str) -> bool:
    return 0 < len(value) < 254 and value.isascii() and all(c.isalnum() or c in ".:_%-" for c in value)


def _version(value: str) -> bool:
    parts = value.split(".")
    return value.isascii() and 2 <= len(parts) <= 3 and all(p.isdigit() for p in parts)


def _at_least(low: int, about: str) -> Rule:
    return Rule(about, f"a whole number, {low} or more", lambda v: v >= low, {"minimum": low})


def _one_of(words: tuple[str, ...], about: str) -> Rule:
    return Rule(about, "one of " + ", ".join(words), words.__contains__, {"enum": list(words)})


def _repo(value: str) -> bool:
    owner, slash, name = value.partition("/")
    return bool(slash) and _word(owner) and _word(name)


def _inside(value: str) -> bool:
    return bool(value) and not {"", ".", ".."} & set(value.split("/")) and value.isprintable()


def _revision(value: str) -> bool:
    return bool(value) and value.isascii() and all(c.isalnum() or c in "._-/" for c in value)


_REPO = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
_REVISION = r"^[A-Za-z0-9._/-]+$"
_NAME = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_NAME - 1}}}$"
_NAME_EXPECTED = f"a name of letters, digits, '.', '_' and '-', {MOST_NAME} at most"
Name = Annotated[str, Rule("short name", _NAME_EXPECTED, _name, {"pattern": _NAME})]
Title = Annotated[str, Rule("the model's full name, for people")]
Url = Annotated[str, Rule("https://…, file:///…, or a path relative to this file; http:// needs sha256")]
Repo = Annotated[
    str | None, Rule("repository of the Hub, in place of url", "owner/repository", _repo, {"pattern": _REPO})
]
RepoFile = Annotated[
    str | None,
    Rule("the file in it, with its folder", "a path inside the repository", _inside, {"pattern": r"^[^/]"}),
]
Revision = Annotated[
    str | None,
    Rule("its commit, tag or branch [main]", "a commit, tag or branch", _revision, {"pattern": _REVISION}),
]
Mirrors = Annotated[tuple[str, ...], Rule("further URLs of the same bytes, tried in order after url")]
AdoptFrom = Annotated[
    tuple[str, ...],
    Rule("folders where files may lie already: of this recipe, the Hub's cache, Ollama, or plain files"),
]
Sha256 = Annotated[
    str | None,
    Rule(
        "SHA-256 of the whole file, hexadecimal",
        "64 lower-case hexadecimal digits",
        hex64,
        {"pattern": "^[0-9a-f]{64}$"},
    ),
]
Size = Annotated[
    int | None,
    Rule("exact size in bytes", "a whole number of bytes above 0", lambda v: v > 0, {"minimum": 1}),
]
Licence = Annotated[str, Rule("licence of the file (SPDX identifier where there is one)")]
EngineName = Annotated[
    str | None,
    _one_of(ENGINES, "which program serves it; by default self for a .llamafile and llamafile for a .gguf"),
]
EngineVersion = Annotated[
    str | None,
    Rule(
        "version of llamafile, in quotes: flags depend on it",
        'a version in quotes, such as "0.9.3"',
        _version,
        {"pattern": r"^\d+\.\d+(\.\d+)?$"},
    ),
]


# Dataclasses because pydantic and JSON Schema know them; bare ones, because the rest of what @dataclass
# writes costs 0.5 ms a class in every run. Treat them as frozen.
class Strict:
    """Read by pydantic from the class: unknown keys are errors, and nothing is coerced."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}


@dataclass(eq=False, repr=False)
class Settings(Strict):
    """How a model is served; None means that this level does not say."""

    host: Annotated[
        str | None,
        Rule(
            "address to listen on",
            "a host name or an address such as 127.0.0.1",
            _host,
            {"pattern": "^[A-Za-z0-9.:_%-]{1,253}$"},
        ),
    ] = None
    port: Annotated[
        int | None,
        Rule(
            "TCP port, 0 picks a free one",
            "a whole number from 0 to 65535",
            lambda v: 0 <= v <= 65535,
            {"minimum": 0, "maximum": 65535},
        ),
    ] = None
    ctx_size: Annotated[int | None, _at_least(0, "context in tokens, 0: as trained")] = None
    n_predict: Annotated[int | None, _at_least(-1, "tokens an answer may have, -1: no limit")] = None
    ngl: Annotated[int | None, _at_least(-1, "layers put on the GPU, 9999: all")] = None
    gpu: Annotated[str | None, _one_of(GPUS, "kind of GPU")] = None
    threads: Annotated[int | None, _at_least(1, "CPU threads")] = None
    timeout: Annotated[int | None, _at_least(1, "seconds until it must be ready")] = None
    args: Annotated[tuple[str, ...], Rule("further arguments for the engine, as they are")] = ()

    def over(self, below: Settings) -> Settings:
        """These settings where they say something, `below` elsewhere; args add up."""
        chosen: dict[str, Any] = {}
        for field in fields(self):
            mine = getattr(self, field.name)
            chosen[field.name] = getattr(below, field.name) if mine is None else mine
        return Settings(**{**chosen, "args": (*below.args, *self.args)})


@dataclass(eq=False, repr=False)
class Part(Strict):
    """What one part of a split file must be."""

    sha256: Sha256 = None
    size: Size = None


@dataclass(eq=False, repr=False)
class Projector(Strict):
    """The file with a model's eyes: `mmproj:`."""

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
    url: Url = ""  # from the catalogue always there: `compile_text` makes it out of `hf`
    hf: Repo = None
    file: RepoFile = None
    revision: Revision = None
    aliases: Annotated[tuple[Name, ...], Rule("other names it answers to")] = ()
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None
    parts: Annotated[tuple[Part, ...], Rule("digest and size of each part of a split GGUF, in order")] = ()
    mmproj: Annotated[Projector | None, Rule("vision projector, handed to the engine with --mmproj")] = None
    params: Annotated[str | None, Rule("number of parameters, such as 7.24B")] = None
    quant: Annotated[str | None, Rule("quantisation, such as Q5_K_M")] = None
    ram: Annotated[int | None, _at_least(1, "memory needed, in GB")] = None
    engine: EngineName = None
    engine_version: EngineVersion = None
    serve: Annotated[Settings, Rule("settings for this model")] = Settings()


@dataclass(eq=False, repr=False)
class Engine(Strict):
    """One entry of `engines:`."""

    title: Title
    license: Licence
    version: Annotated[
        str | None,
        Rule(
            "version of llamafile, in quotes; latest: the one that models.lock says",
            'a version in quotes, such as "0.9.3", or latest',
            lambda v: v == LATEST or _version(v),
            {"pattern": r"^(latest|\d+\.\d+(\.\d+)?)$"},
        ),
    ] = None
    url: Annotated[str | None, Rule("where its executable comes from; {version} stands for the version")] = (
        None
    )
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None


class File(NamedTuple):
    """A further file of a model: a part, or its projector."""

    url: str
    mirrors: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    mmproj: bool = False


def _settings(plain: Mapping[str, Any]) -> Settings:
    return Settings(**{**plain, "args": tuple(plain.get("args", ()))})


class Catalogue:
    """The validated catalogue; entries become objects when they are asked for.

    Args:
        plain: what `schema.compile_text` gives.
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
        """Every model's name, in the file's order."""
        return tuple(self._models)

    @property
    def words(self) -> tuple[str, ...]:
        """Every name and alias."""
        return tuple(self._names)

    def name(self, word: str) -> str:
        """The name behind a name or alias, in any case.

        Raises UsageError: there is none; the message has the nearest spellings.
        """
        found = self._names.get(word.lower())
        if found is None:
            raise UsageError(
                f"there is no model {word!r} in {self.where}",
                fix=did_you_mean(word, tuple(self._names)) or "`doit` shows the models there are",
            )
        return found

    def model(self, word: str) -> Model:
        """The entry behind a name or alias. Raises UsageError like `name`."""
        plain = self._models[self.name(word)]
        lists = {key: tuple(plain.get(key, ())) for key in ("aliases", "mirrors")}
        known = {key: value for key, value in plain.items() if key not in ("more", "parts", "mmproj")}
        return Model(**{**known, **lists, "serve": _settings(plain.get("serve", {}))})

    def more(self, word: str) -> tuple[File, ...]:
        """The further files of an entry: the parts after the first, then its projector."""
        return tuple(
            File(url, tuple(mirrors), *rest)
            for url, mirrors, *rest in self._models[self.name(word)].get("more", ())
        )

    def engine(self, name: str) -> Engine:
        """The entry of `engines:`. Raises UsageError where there is none."""
        if name not in self._engines:
            raise UsageError(f"{self.where} has no engine {name!r}", fix=f"add engines.{name} to it")
        plain = self._engines[name]
        return Engine(**{**plain, "mirrors": tuple(plain.get("mirrors", ()))})

    def has_engine(self, name: str) -> bool:
        """Whether there is such an entry of `engines:`."""
        return name in self._engines

    def by_filename(self, filename: str) -> str | None:
        """The model whose file is called that, if one is."""
        return self._files.get(filename)
