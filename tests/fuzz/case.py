"""One input of the recipe: files, variables and command lines, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Content = bytes | str  # bytes of a file, or one of the words below
GONE = "gone"
FIFO = "fifo"
FOLDER = "folder"
LINK = "link:"  # and where it leads

STATUSES = (0, 1, 3)  # the documented ones: it went well, a step failed, a wrong command line or catalogue


@dataclass(frozen=True)
class Case:
    """What differs from a world in which all is well.

    In all texts, @PORT@ stands for the port of the world's server, @HOSTILE@ for that of
    the server that gives `answer` to every request, and @WORLD@ for the world's folder.
    """

    runs: tuple[tuple[str, ...], ...]  # command lines of doit, one after the other
    files: Mapping[str, Content] = field(default_factory=dict)  # by a pattern of paths in the world
    env: Mapping[str, str] = field(default_factory=dict)
    warm: bool = True  # whether the models are in the cache
    reread: bool = False  # whether a first run reads the copies of the world's files again
    answer: bytes = b""
    statuses: tuple[int, ...] = STATUSES  # of each run
