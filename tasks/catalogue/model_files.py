"""The files of a model, of the catalogue's or the user's, as artifacts. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from tasks.catalogue.artifact import Artifact, engine_dir, engine_filename, model_dir
from tasks.catalogue.environment import Place
from tasks.catalogue.file_specs import part, split_count
from tasks.catalogue.types import LATEST, Catalogue, File, Model
from tasks.errors import UsageError
from tasks.system.paths import inside, short_name
from tasks.urls import MODEL_ENDINGS, filename_of, is_local, url_problem

WINDOWS_EXE_LIMIT = 4 * 1024**3  # bytes; Windows starts no executable above it (R9)


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
    sources = tuple(absolute_source(u, place, place.root) for u in (engine.url, *engine.mirrors))
    folder = engine_dir(place.cache, engine.sha256, sources[0])
    target = inside(folder, engine_filename(engine.version, place.platform))
    label, adopt_from = f"llamafile {engine.version}", adoption_folders(catalogue, place)
    return Artifact(label, sources, target, engine.sha256, engine.size, adopt_from=adopt_from)


def entry_artifact(name: str, model: Model, place: Place) -> Artifact:
    sources = tuple(absolute_source(u, place, place.root) for u in (model.url, *model.mirrors))
    folder = model_dir(place.cache, model.sha256, sources[0])
    return Artifact(name, sources, inside(folder, filename_of(model.url)), model.sha256, model.size)


def further_files(artifact: Artifact, known: tuple[File, ...]) -> tuple[File, ...]:
    """The further files of a model that comes from another URL: its parts are beside the first one."""
    url = artifact.sources[0]
    parts = [File(part(url, n)) for n in range(2, split_count(url) + 1)]
    pins = [file for file in known if not file.mmproj]
    if len(pins) == len(parts):
        parts = [file._replace(url=new.url, mirrors=()) for file, new in zip(pins, parts, strict=True)]
    return (*parts, *(file for file in known if file.mmproj))


def further_artifacts(first: Artifact, files: tuple[File, ...], place: Place) -> tuple[Artifact, ...]:
    """The further files: parts beside the first, where engines look for them; a projector by its digest."""
    beside, found = first.target.rpartition("/")[0], []
    count = sum(not file.mmproj for file in files) + 1
    for number, file in enumerate(files, 2):
        sources = tuple(absolute_source(u, place, place.root) for u in (file.url, *file.mirrors))
        folder = model_dir(place.cache, file.sha256, sources[0]) if file.mmproj else beside
        label = f"{first.label} " + ("mmproj" if file.mmproj else f"part {number} of {count}")
        target = inside(folder, filename_of(file.url))
        found.append(Artifact(label, sources, target, file.sha256, file.size, adopt_from=first.adopt_from))
    return tuple(found)


def adoption_folders(catalogue: Catalogue, place: Place) -> tuple[str, ...]:
    """The catalogue's folders; one with ~ is the user's, whoever that is."""
    return tuple(f if f.startswith("~") else place.absolute(f, place.root) for f in catalogue.adopt_from)


def absolute_source(url: str, place: Place, base: str) -> str:
    """A URL as it is, a path made absolute."""
    return place.absolute(url, base) if is_local(url) and not url.lower().startswith("file:") else url


_Found = tuple[str, Model, Artifact, str]


def own_file(path: str, url: str | None, sha256: str | None, catalogue: Catalogue, place: Place) -> _Found:
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


def file_from_url(word: str, url: str, sha256: str | None, catalogue: Catalogue, place: Place) -> _Found:
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
    artifact = entry_artifact(name, model, place)
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
