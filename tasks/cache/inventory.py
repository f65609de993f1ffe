"""List the files of a catalogue, and match the files of a cache to them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from unicodedata import normalize

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_release import NAME, UNPACKED, release_archives
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import resolve_variants
from tasks.catalogue.types import Catalogue
from tasks.errors import UsageError

STAMP = ".stamp.json"

# names of the files that are written beside a target, by catalogue.artifact,
# transfer.local_sources, transfer.partial and system.files
_BESIDE = re.compile(
    r"(?P<target>.+?)(?P<stamp>\.stamp\.json)?(?P<partial>\.partial(?:\.json|\.live)?)?"
    r"(?P<copy>\.\d+-\d+\.copy)?(?P<temporary>(?:\.\d+-\d+(?:\.new|\.old)?\.tmp)*)"
)


class CachedFile(NamedTuple):
    """One file that a catalogue names, or that was downloaded by another one."""

    artifact: Artifact
    models: tuple[str, ...]  # that use it; empty for a program and for other files
    title: str
    license: str  # empty if unknown
    is_program: bool = False
    is_named: bool = True  # by this catalogue

    @property
    def label(self) -> str:
        """The name to show; for a file that several models share, their names."""
        if len(self.models) > 1:
            return ", ".join(self.models)
        return self.artifact.label


class FileRole(NamedTuple):
    """The role of a file in the cache: a target, or a file beside one."""

    target: str
    kind: str  # whole, stamp, unpacked, partial, copy or temporary


def cached_files(
    catalogue: Catalogue, environment: Environment, names: Iterable[str] | None = None
) -> list[CachedFile]:
    """Return each file of the catalogue once.

    Args:
        names: models; None for all of them and the programs of engines.

    Raises:
        UsageError: an entry is not a valid combination.
    """
    programs: Iterable[CachedFile] = ()
    if names is None:
        names = catalogue.names
        programs = [
            *_program(catalogue, environment),
            *_release(catalogue, environment),
        ]
    found: dict[str, CachedFile] = {}
    for name in names:
        for resolved in resolve_variants(name, catalogue, environment):
            for artifact in resolved.files:
                known = found.get(artifact.target)
                models = dict.fromkeys((*(known.models if known else ()), name))
                model = resolved.model
                found[artifact.target] = CachedFile(
                    artifact, tuple(models), model.title, model.license
                )
    return [*found.values(), *programs]


def _program(catalogue: Catalogue, environment: Environment) -> Iterable[CachedFile]:
    try:
        artifact = llamafile_exe(catalogue, environment)
    except UsageError:  # the catalogue has no engine, and llamafiles need none
        return ()
    engine = catalogue.engine("llamafile")
    return (CachedFile(artifact, (), engine.title, engine.license, is_program=True),)


def _release(catalogue: Catalogue, environment: Environment) -> Iterable[CachedFile]:
    for artifact in release_archives(catalogue, environment):
        engine = catalogue.engine(NAME)
        yield CachedFile(artifact, (), engine.title, engine.license, is_program=True)


def uncatalogued_file(path: str, source: str, cache: str) -> CachedFile:
    """Return the item of a file in the cache that the catalogue does not name.

    Args:
        path: relative to the cache, with `/`.
        source: the URL in its stamp; empty if there is none.
    """
    name = path.rpartition("/")[2]
    sources = (source,) if source else ()
    artifact = Artifact(name, sources, f"{cache}/{path}")
    return CachedFile(
        artifact, (), name, "", path.startswith("engines/"), is_named=False
    )


def classify_path(path: str) -> FileRole:
    """Return a path's target in `models/` or `engines/`, and its role."""
    archive, ending, _ = path.partition(f"{UNPACKED}/")
    if ending:
        return FileRole(archive, "unpacked")
    match = _BESIDE.fullmatch(path)
    if match is None:
        return FileRole(path, "whole")
    kinds = ("temporary", "copy", "partial", "stamp")
    return FileRole(
        match["target"], next((kind for kind in kinds if match[kind]), "whole")
    )


def uncatalogued_paths(paths: Sequence[str], targets: Iterable[str]) -> list[str]:
    """Return the files that have a stamp and that the catalogue does not name.

    Args:
        paths: files of the cache, relative to it.
        targets: of the catalogue, relative to the cache.
    """
    existing = set(paths)
    named = {fold_path(target) for target in targets}
    stamped = (path for path in paths if path + STAMP in existing)
    return [path for path in stamped if fold_path(path) not in named]


def fold_path(path: str) -> str:
    """Fold case and accents: some file systems take such spellings for one path."""
    return normalize("NFC", path).casefold()
