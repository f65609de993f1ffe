"""The catalogue's types, and look-ups in it. Pure.

Loaded by every run, so it imports neither yaml nor pydantic. `schema` reads and
validates models.yaml with the same types; `constraints` has what a value must be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from tasks.catalogue.check_options import CHECKS, Check
from tasks.catalogue.constraints import (
    ARCHIVE_NAME,
    ARCHIVE_PLACE,
    GPUS,
    MODEL_ID,
    MODEL_KINDS,
    VERSION_OR_LATEST,
    Constraint,
    EngineName,
    EngineVersion,
    Licence,
    Mirrors,
    Name,
    Repo,
    RepoFile,
    Revision,
    Sha256,
    Size,
    Title,
    Url,
    at_least,
    between,
    one_of,
)
from tasks.catalogue.serve_options import (
    EndpointOptions,
    Sampling,
    ServeOptions,
    Strict,
)
from tasks.errors import UsageError, did_you_mean

# keys of a model that name files which are served with it
COMPANION_KEYS = ("mmproj", "draft", "lora", "template")


@dataclass(eq=False, repr=False)
class Part(Strict):
    """Digest and size of one part of a split GGUF."""

    sha256: Sha256 = None
    size: Size = None


@dataclass(eq=False, repr=False)
class Companion(Strict):
    """A file that is served with a model: `mmproj:`, `draft:` or `template:`."""

    url: Url = ""
    hf: Repo = None
    file: RepoFile = None
    revision: Revision = None
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None


@dataclass(eq=False, repr=False)
class Adapter(Companion):
    """One adapter of `lora:`."""

    scale: Annotated[
        float | None, between(-100, 100, "how strongly it is applied [1]")
    ] = None


@dataclass(eq=False, repr=False)
class Variant(Strict):
    """One quantization of a model: an entry of `variants:`."""

    url: Url = ""
    hf: Repo = None
    file: RepoFile = None
    revision: Revision = None
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None
    parts: Annotated[
        tuple[Part, ...],
        Constraint("digest and size of each part of a split GGUF, in order"),
    ] = ()
    quant: Annotated[str | None, Constraint("quantization, such as Q5_K_M")] = None
    ram: Annotated[int | None, at_least(1, "GB of memory with 4096 tokens")] = None


@dataclass(eq=False, repr=False)
class Model(Strict):
    """One entry of `models:`."""

    title: Title
    license: Licence
    url: Url = ""  # never empty in a Catalogue: `compile_text` derives it from `hf`
    hf: Repo = None
    file: RepoFile = None
    revision: Revision = None
    id: Annotated[str | None, MODEL_ID] = None
    aliases: Annotated[tuple[Name, ...], Constraint("other names of the model")] = ()
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None
    parts: Annotated[
        tuple[Part, ...],
        Constraint("digest and size of each part of a split GGUF, in order"),
    ] = ()
    kind: Annotated[str, one_of(MODEL_KINDS, "what the model is for [chat]")] = "chat"
    mmproj: Annotated[
        Companion | None,
        Constraint("vision projector, passed to the engine with --mmproj"),
    ] = None
    draft: Annotated[
        Companion | None, Constraint("small model for speculative decoding")
    ] = None
    lora: Annotated[
        tuple[Adapter, ...], Constraint("adapters that change the model's answers")
    ] = ()
    template: Annotated[
        Companion | None, Constraint("text file with the chat template (Jinja)")
    ] = None
    params: Annotated[str | None, Constraint("number of parameters, such as 7.24B")] = (
        None
    )
    quant: Annotated[str | None, Constraint("quantization, such as Q5_K_M")] = None
    ram: Annotated[int | None, at_least(1, "GB of memory with 4096 tokens")] = None
    engine: EngineName = None
    engine_version: EngineVersion = None
    serve: Annotated[ServeOptions, Constraint("settings for this model")] = (
        ServeOptions()
    )
    variants: Annotated[
        dict[Name, Variant],
        Constraint("quantizations of the model; this machine's memory selects one"),
    ] = field(default_factory=dict)
    checks: Annotated[tuple[Check, ...], CHECKS] = ()


@dataclass(eq=False, repr=False)
class Engine(Strict):
    """One entry of `engines:`."""

    title: Title
    license: Licence
    version: Annotated[str | None, VERSION_OR_LATEST] = None
    url: Annotated[
        str | None,
        Constraint("URL of its executable; {version} is replaced by the version"),
    ] = None
    mirrors: Mirrors = ()
    sha256: Sha256 = None
    size: Size = None
    archives: Annotated[
        dict[Annotated[str, ARCHIVE_PLACE], Annotated[str, ARCHIVE_NAME]],
        Constraint("archives of the release, one for each system and kind of GPU"),
    ] = field(default_factory=dict)
    gpu: Annotated[
        str | None, one_of(GPUS, "whose archive is used [auto: that of this machine]")
    ] = None
    path: Annotated[
        str | None,
        Constraint("a llama-server of your own, relative to this file, or absolute"),
    ] = None


@dataclass(eq=False, repr=False)
class Endpoint(Strict):
    """One entry of `endpoints:`, several models behind one server."""

    models: Annotated[
        tuple[Name, ...],
        Constraint("its models", "at least one model", bool, {"minItems": 1}),
    ]
    memory: Annotated[
        float | None,
        between(0.001, 100_000, "GB that the loaded models may take together"),
    ] = None
    keep: Annotated[
        tuple[Name, ...],
        Constraint("models that are loaded at the start and never unloaded"),
    ] = ()
    idle: Annotated[
        int | None, at_least(1, "seconds without a request until a model is unloaded")
    ] = None
    variants: Annotated[
        dict[Name, Name],
        Constraint("variants that are not chosen by a machine: model → variant"),
    ] = field(default_factory=dict)
    serve: Annotated[EndpointOptions, Constraint("settings of its server")] = (
        EndpointOptions()
    )


class FileSpec(NamedTuple):
    """One file of an entry: where its bytes are, and what is known of them."""

    url: str
    mirrors: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    # of a companion: mmproj, draft, lora or template; empty for the model's own files
    role: str = ""
    scale: float | None = None  # of a LoRA adapter
    # as in models.yaml: a URL, a path, or hf:owner/repo@revision/file
    source: str = ""
    variant: str = ""  # whose file it is; empty: of all variants, or there are none

    def as_row(self) -> list[Any]:
        """Return it as a row of `more` in the compiled catalogue."""
        pins = [self.url, list(self.mirrors), self.sha256, self.size]
        return [*pins, self.role, self.scale]

    @staticmethod
    def from_row(row: Sequence[Any]) -> FileSpec:
        """Read a row of `more`."""
        url, mirrors, sha256, size, role, scale = row
        return FileSpec(url, tuple(mirrors), sha256, size, role, scale)


def _settings(plain: Mapping[str, Any]) -> ServeOptions:
    values = {**plain, "args": tuple(plain.get("args", ()))}
    if values.get("sampling") is not None:
        values["sampling"] = Sampling(**values["sampling"])
    return ServeOptions(**values)


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
        self._endpoints: Mapping[str, Any] = plain.get("endpoints", {})
        self.auth: Mapping[str, Mapping[str, str]] = plain.get("auth", {})

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
        if endpoint := self.endpoint_name(word):
            models = self.endpoint(endpoint).models
            raise UsageError(
                f"{endpoint} is an endpoint, and one model is expected",
                fix=f"name one of its models: {', '.join(models)}",
            )
        hint = did_you_mean(word, (*self.names_and_aliases, *self.endpoint_names))
        raise UsageError(
            f"there is no model {word!r} in {self.where}",
            fix=hint or "`doit` shows the models",
        )

    @property
    def endpoint_names(self) -> tuple[str, ...]:
        """Names of all endpoints, in the file's order."""
        return tuple(self._endpoints)

    def endpoint_name(self, word: str) -> str:
        """Return the name of an endpoint for a word in any case; "" if it is none."""
        names = {name.lower(): name for name in self._endpoints}
        return names.get(word.lower(), "")

    def endpoint(self, name: str) -> Endpoint:
        """Return an entry of `endpoints:`; its models are named by their names."""
        plain = dict(self._endpoints[name])
        for key in ("models", "keep"):
            plain[key] = tuple(plain.get(key, ()))
        serve = EndpointOptions(**plain.get("serve", {}))
        return Endpoint(**{**plain, "serve": serve})

    def _entry(self, word: str, variant: str) -> dict[str, Any]:
        plain = dict(self._models[self.name(word)])
        variants = plain.pop("variants", None)
        if variants:
            plain.update(variants[variant or next(iter(variants))])
        return plain

    def variants(self, word: str) -> tuple[str, ...]:
        """Return the names of a model's variants; empty if it has none.

        Raises:
            UsageError: there is no such model.
        """
        return tuple(self._models[self.name(word)].get("variants", ()))

    def model(self, word: str, variant: str = "") -> Model:
        """Return the entry for a name or alias.

        Args:
            variant: whose files; empty for the first variant, or if there are none.

        Raises:
            UsageError: there is no such model.
        """
        plain = self._entry(word, variant)
        for key in ("more", "parts", "memory", *COMPANION_KEYS):  # see `extra_files`
            plain.pop(key, None)
        for key in ("aliases", "mirrors"):
            plain[key] = tuple(plain.get(key, ()))
        plain["checks"] = tuple(Check(**one) for one in plain.get("checks", ()))
        return Model(**{**plain, "serve": _settings(plain.get("serve", {}))})

    def extra_files(self, word: str, variant: str = "") -> tuple[FileSpec, ...]:
        """Return the further files of a model: other parts, then its companions.

        Raises:
            UsageError: there is no such model.
        """
        rows = self._entry(word, variant).get("more", ())
        return tuple(map(FileSpec.from_row, rows))

    def memory(self, word: str, variant: str = "") -> Mapping[str, Any]:
        """Return the metadata in models.lock that memory depends on; empty if none.

        Raises:
            UsageError: there is no such model.
        """
        found: Mapping[str, Any] = self._entry(word, variant).get("memory", {})
        return found

    def engine(self, name: str) -> Engine:
        """Return the entry of `engines:`.

        Raises:
            UsageError: there is none.
        """
        if name not in self._engines:
            what = f"{self.where} has no engine {name!r}"
            raise UsageError(what, fix=f"add engines.{name} to it")
        plain = {**self._engines[name]}
        plain.pop("archives", None)  # see `archives`
        return Engine(**{**plain, "mirrors": tuple(plain.get("mirrors", ()))})

    def archives(self, name: str) -> dict[str, FileSpec]:
        """Return the archives of an engine's release, by system, CPU and GPU."""
        rows = self._engines.get(name, {}).get("archives") or {}
        return {place: FileSpec.from_row(row) for place, row in rows.items()}

    def has_engine(self, name: str) -> bool:
        """Whether `engines:` has this entry."""
        return name in self._engines

    def by_filename(self, filename: str) -> str | None:
        """Return the name of the model whose file has this name, if there is one."""
        return self._files.get(filename)
