"""Artifacts of a model's files, from the catalogue or from the user. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.catalogue.artifact import Artifact, engine_dir, engine_filename, model_dir
from tasks.catalogue.constraints import LATEST
from tasks.catalogue.environment import Environment
from tasks.catalogue.file_specs import part_url, pins_error, split_count, split_error
from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.types import Catalogue, Engine, FileSpec, Model
from tasks.errors import UsageError
from tasks.system.paths import inside, short_name
from tasks.urls import MODEL_ENDINGS, filename_of, is_local, url_error

if TYPE_CHECKING:
    from tasks.catalogue.variants import Choice

WINDOWS_EXE_LIMIT = 4 * 1024**3  # bytes; Windows starts no larger executable (R9)


TEMPLATE = "template"  # the role whose file is text


class CompanionFile(NamedTuple):
    """A file that an engine gets beside the model."""

    role: str  # mmproj, draft, lora or template
    path: str
    scale: float | None = None  # of a LoRA adapter


class ModelSource(NamedTuple):
    """A model, and where its files come from."""

    name: str  # of its tasks
    model: Model
    artifact: Artifact  # the file that is served
    confirmation: str = ""  # to be confirmed before a download (R4), or empty
    files: tuple[
        FileSpec, ...
    ] = ()  # further files; those of a local model lie beside it
    memory: ModelMetadata | None = None  # from models.lock
    choice: Choice | None = None  # of a variant


def llamafile_exe(catalogue: Catalogue, environment: Environment) -> Artifact:
    """Return the artifact of the catalogue's llamafile executable, without a model.

    Raises:
        UsageError: the catalogue or models.lock lacks its URL or version.
    """
    engine = catalogue.engine("llamafile")
    if not engine.url or not engine.version:
        what = f"{catalogue.where}: engines.llamafile needs url and version"
        raise UsageError(what, fix=f"edit {catalogue.where}")
    if engine.version == LATEST:
        what = "models.lock has no version of llamafile for `latest`"
        raise UsageError(what, fix="doit lock")
    sources = _catalogue_sources(engine, environment)
    folder = engine_dir(environment.cache, engine.sha256, sources[0])
    return Artifact(
        f"llamafile {engine.version}",
        sources,
        inside(folder, engine_filename(engine.version, environment.platform)),
        engine.sha256,
        engine.size,
        adopt_from=adoption_folders(catalogue, environment),
    )


def entry_artifact(name: str, model: Model, environment: Environment) -> Artifact:
    """Return the artifact of an entry's first file.

    Args:
        name: the label, with the variant.
    """
    sources = _catalogue_sources(model, environment)
    folder = model_dir(environment.cache, model.sha256, sources[0])
    target = inside(folder, filename_of(model.url))
    return Artifact(name, sources, target, model.sha256, model.size)


def memory_of(plain: Mapping[str, Any]) -> ModelMetadata | None:
    """Return the metadata that the compiled catalogue has; None if it has none."""
    if not plain:
        return None
    values = dict(plain)
    for key, value in plain.items():
        if isinstance(value, list):
            values[key] = tuple(value)
    return ModelMetadata(**values)


def _catalogue_sources(
    entry: Model | Engine | FileSpec, environment: Environment
) -> tuple[str, ...]:
    """Return all URLs of a file; paths are relative to models.yaml."""
    urls = (entry.url or "", *entry.mirrors)
    return tuple(absolute_source(url, environment, environment.root) for url in urls)


def extra_files(
    artifact: Artifact, known: tuple[FileSpec, ...]
) -> tuple[FileSpec, ...]:
    """Return the further files of a model that comes from another URL.

    Its other parts are beside the first; pins and companions are those of `known`.
    """
    url = artifact.sources[0]
    urls = [part_url(url, number) for number in range(2, split_count(url) + 1)]
    pins = [file for file in known if not file.role]
    if len(pins) != len(urls):
        pins = [FileSpec("")] * len(urls)
    parts = [
        pin._replace(url=part_url, mirrors=())
        for pin, part_url in zip(pins, urls, strict=True)
    ]
    return (*parts, *(file for file in known if file.role))


def extra_artifacts(
    first: Artifact, files: tuple[FileSpec, ...], environment: Environment
) -> tuple[Artifact, ...]:
    """Return the artifacts of the further files.

    Parts lie beside the first, where engines expect them; a companion lies in the
    directory of its digest.
    """
    first_dir = first.target.rpartition("/")[0]
    count = sum(not file.role for file in files) + 1
    roles: dict[str, int] = {}
    artifacts = []
    for number, file in enumerate(files, 2):
        sources = _catalogue_sources(file, environment)
        folder = first_dir
        label = f"{first.label} part {number} of {count}"
        if file.role:
            folder = model_dir(environment.cache, file.sha256, sources[0])
            label = f"{first.label} {file.role}"
            roles[file.role] = roles.get(file.role, 0) + 1
            if roles[file.role] > 1:
                label += f" {roles[file.role]}"
        target = inside(folder, filename_of(file.url))
        artifact = Artifact(label, sources, target, file.sha256, file.size)
        is_text = file.role == TEMPLATE
        artifacts.append(
            artifact._replace(adopt_from=first.adopt_from, is_text=is_text)
        )
    return tuple(artifacts)


def companion_files(
    files: tuple[FileSpec, ...], artifacts: tuple[Artifact, ...]
) -> tuple[CompanionFile, ...]:
    """Return what is served with a model, of its further files and their artifacts."""
    return tuple(
        CompanionFile(file.role, artifact.target, file.scale)
        for file, artifact in zip(files, artifacts, strict=True)
        if file.role
    )


def adoption_folders(catalogue: Catalogue, environment: Environment) -> tuple[str, ...]:
    """Return the absolute paths of `adopt_from`; `~` is expanded later."""
    return tuple(
        folder
        if folder.startswith("~")
        else environment.absolute(folder, environment.root)
        for folder in catalogue.adopt_from
    )


def absolute_source(url: str, environment: Environment, base: str) -> str:
    """Return a URL unchanged, and a path as an absolute path."""
    if is_local(url) and not url.lower().startswith("file:"):
        return environment.absolute(url, base)
    return url


def local_file(
    path: str,
    url: str | None,
    sha256: str | None,
    catalogue: Catalogue,
    environment: Environment,
) -> ModelSource:
    """Return the file of `--llamafile PATH`: downloaded there if missing (R2, R6).

    Raises:
        UsageError: the URL is not allowed.
    """
    target = environment.absolute(path, environment.cwd)
    filename = _filename(target)
    known = catalogue.by_filename(filename)
    question = ""
    if known and url:
        question = _question(known, url, catalogue)
        if not question:  # the catalogue's own URL, so the catalogue's digest applies
            sha256 = sha256 or catalogue.model(known).sha256
    sources = () if url is None else (_checked(url, sha256),)
    name = _task_name(filename)
    artifact = Artifact(name, sources, target, sha256, None, in_cache=False)
    return ModelSource(name, Model(filename, "unknown", url or ""), artifact, question)


def own_name(path: str) -> str:
    """Return the name of the model that `local_file` makes of a path."""
    return _task_name(_filename(path))


def _filename(path: str) -> str:
    return re.split(r"[\\/]", path)[-1]


def file_from_url(
    word: str,
    url: str,
    sha256: str | None,
    catalogue: Catalogue,
    environment: Environment,
) -> ModelSource:
    """Return the file of `--llamafile-url URL`: of a catalogued model or not (R3, R4).

    Raises:
        UsageError: the URL is not allowed, or is not that of a model's file.
    """
    filename = filename_of(url)
    name = catalogue.name(word) if word else catalogue.by_filename(filename)
    if name is None:
        return _uncatalogued(filename, url, sha256, environment)
    question = _question(name, url, catalogue)
    model = catalogue.model(name)
    if sha256 not in (None, model.sha256):
        model = replace(model, sha256=sha256, size=None)
    artifact = entry_artifact(name, model, environment)
    if question:
        # without a digest, the URL determines the directory
        folder = model_dir(environment.cache, model.sha256, url)
        target = inside(folder, filename_of(model.url))
        sources = (_checked(url, model.sha256),)
        artifact = artifact._replace(sources=sources, target=target)
    return ModelSource(name, model, artifact, question)


def _uncatalogued(
    filename: str, url: str, sha256: str | None, environment: Environment
) -> ModelSource:
    if not filename.lower().endswith(MODEL_ENDINGS):
        endings = " or ".join(MODEL_ENDINGS)
        raise UsageError(
            f"the file name in {url} is {filename!r}: expected one ending in {endings}",
            fix="doit serve --llamafile NAME.gguf (or NAME.llamafile) "
            f"--llamafile-url {url}",
        )
    target = inside(model_dir(environment.cache, sha256, url), filename)
    name = _task_name(filename)
    artifact = Artifact(name, (_checked(url, sha256),), target, sha256)
    return ModelSource(name, Model(filename, "unknown", url), artifact)


def _question(name: str, url: str, catalogue: Catalogue) -> str:
    """Return the question to confirm another URL; empty for one of the model's own."""
    model = catalogue.model(name)
    if url in (model.url, *model.mirrors):
        return ""
    return (
        f"the catalogue's URL of {name} is\n  {model.url}\n"
        f"the requested URL is\n  {url}\n"
        "Download from the requested URL?"
    )


def _checked(url: str, sha256: str | None) -> str:
    problem = url_error(url, pinned=sha256 is not None)
    if problem:
        fix = "add --sha256 HEX" if "sha256" in problem else ""
        raise UsageError(f"--llamafile-url: {problem}", fix=fix)
    return url


def _task_name(filename: str) -> str:
    """Derive a task's name from a file name; `=`, `:` and `*` are special to doit."""
    stem = filename
    if filename.lower().endswith(MODEL_ENDINGS):
        stem = filename.rpartition(".")[0]
    return short_name(re.sub(r"[^\w.-]+", "-", stem)).strip("-.") or "file"


def parse_sha256(text: str | None) -> str | None:
    """Parse the value of `--sha256`.

    Raises:
        UsageError: it is not a SHA-256.
    """
    if text is None:
        return None
    plain = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise UsageError(f"--sha256: expected 64 hexadecimal digits, got {text!r}")
    return plain


def check_url(url: str, path: str | None) -> None:
    """Check the value of `--llamafile-url`.

    Raises:
        UsageError: it is not allowed.
    """
    problem = url_error(url, pinned=True) or split_error(url)
    if problem:
        raise UsageError(f"--llamafile-url: {problem}")
    count = split_count(url)
    if path is not None and count:
        what = f"{url} is the first of {count} files, which must keep their names"
        raise UsageError(what, fix="remove --llamafile")


def check_pins(url: str, first: Artifact, files: Iterable[FileSpec]) -> None:
    """Check that all parts of a file are pinned, or none.

    Raises:
        UsageError: only some are.
    """
    parts = [file.sha256 for file in files if not file.role]
    problem = pins_error(url, [first.sha256, *parts])
    if problem:
        raise UsageError(problem, fix=f"doit add {url}")
