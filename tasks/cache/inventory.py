"""What a catalogue names, file by file, and what in a cache's folders belongs to which file. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from unicodedata import normalize

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.environment import Place
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import catalogued
from tasks.catalogue.types import Catalogue
from tasks.errors import UsageError

STAMP = ".stamp.json"

# what is made beside a target (see core.artifact, effects.adopt, effects.files, effects.partial)
_BESIDE = re.compile(
    r"(?P<target>.+?)(?P<stamp>\.stamp\.json)?(?P<partial>\.partial(?:\.json|\.live)?)?"
    r"(?P<copy>\.\d+-\d+\.copy)?(?P<temporary>(?:\.\d+-\d+(?:\.new|\.old)?\.tmp)*)"
)


class Item(NamedTuple):
    """One file that a catalogue names, or that was fetched without one."""

    artifact: Artifact
    models: tuple[str, ...]  # whose file it is; none for a program, and for what no catalogue names
    title: str
    license: str  # empty where nobody says
    is_program: bool = False
    is_named: bool = True  # by the catalogue

    @property
    def label(self) -> str:
        """What people know it by: the model, or which file of it; several models, where they share it."""
        return ", ".join(self.models) if len(self.models) > 1 else self.artifact.label


class Part(NamedTuple):
    """What a file in the cache is to a target."""

    target: str
    kind: str  # whole, stamp, partial, copy or temporary


def items(catalogue: Catalogue, place: Place, names: Iterable[str] | None = None) -> list[Item]:
    """Every file of the catalogue, each once: of all its models and llamafile's program, or of those named.

    Raises UsageError: an entry cannot be meant.
    """
    found: dict[str, Item] = {}
    for name in catalogue.names if names is None else names:
        job = catalogued(name, catalogue, place)
        for artifact in job.files:
            known = found.get(artifact.target)
            models = (*known.models, name) if known else (name,)
            found[artifact.target] = Item(artifact, models, job.model.title, job.model.license)
    return [*found.values(), *(_program(catalogue, place) if names is None else ())]


def _program(catalogue: Catalogue, place: Place) -> Iterable[Item]:
    try:
        artifact = llamafile_exe(catalogue, place)
    except UsageError:  # the catalogue has none, and needs none for llamafiles
        return ()
    engine = catalogue.engine("llamafile")
    return (Item(artifact, (), engine.title, engine.license, is_program=True),)


def unnamed(path: str, source: str, cache: str) -> Item:
    """A file of the cache that the catalogue does not name.

    Args:
        path: from the cache, with `/`.
        source: where its stamp says that it came from; empty where nothing does.
    """
    name = path.rpartition("/")[2]
    artifact = Artifact(name, (source,) if source else (), f"{cache}/{path}")
    return Item(artifact, (), name, "", path.startswith("engines/"), is_named=False)


def part(path: str) -> Part:
    """The target that a path of `models/` or `engines/` belongs to, and what it is to it."""
    found = _BESIDE.fullmatch(path)
    if found is None:
        return Part(path, "whole")
    kinds = ("temporary", "copy", "partial", "stamp")
    return Part(found["target"], next((kind for kind in kinds if found[kind]), "whole"))


def strangers(paths: Sequence[str], targets: Iterable[str]) -> list[str]:
    """Those of a cache's files that have a stamp, and are no targets of the catalogue; all from the cache."""
    there, named = set(paths), {same_name(target) for target in targets}
    return [path for path in paths if path + STAMP in there and same_name(path) not in named]


def same_name(path: str) -> str:
    """What is equal for all spellings of a path that some file system takes for one: case and accents."""
    return normalize("NFC", path).casefold()
