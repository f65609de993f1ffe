"""Whether a file is what its engine needs, and making it executable."""

from __future__ import annotations

import os

from tasks.cache import stamps
from tasks.catalogue.artifact import PROGRAMS, Artifact, is_gguf
from tasks.errors import IntegrityError, RecipeError
from tasks.system import files


def check_format(artifact: Artifact, engine: str) -> None:
    """Refuse what the engine cannot be: a shell would read a web page saved as a llamafile as a script.

    Raises IntegrityError: the target is no program, or no model, as the engine needs it.
    """
    with open(artifact.target, "rb") as file:
        head = file.read(8)
    if engine == "self":
        fits, kind, expected = head.startswith(PROGRAMS), "llamafile", repr(PROGRAMS[0])
    else:
        fits, kind, expected = is_gguf(head), "GGUF file", "b'GGUF' and version 2 or 3"
    if engine == "llamafile" and not fits and artifact.target.endswith(".llamafile"):
        from zipfile import is_zipfile  # -m takes a llamafile for the model inside

        fits, kind, expected = is_zipfile(artifact.target), "whole llamafile", "a zip with a model at its end"
    if not fits:
        facts = [("begins with", repr(head)), ("expected", expected)]
        fix = "delete it and download it again" if artifact.owned else "give the path of a model"
        raise IntegrityError(f"{artifact.target} is no {kind}", facts, fix)


MODE = 0o755


def why_skipped(platform: str, engine: str) -> str:
    """Why there is nothing to do, or nothing (R31)."""
    if platform == "win32":
        return "skipped: Windows has no chmod"
    return "" if engine == "self" else "skipped: it is data here, no program"


def make_executable(cache: str, artifact: Artifact) -> None:
    """Mode 0755; a file of the user's keeps its mode and may be run by those who may read it.

    Raises:
        RecipeError: it is no program, or the file system or its owner forbids it.
        IntegrityError: it is not the file that was proven.
    """
    check_format(artifact, "self")
    path = artifact.target
    if artifact.owned and os.path.islink(path):
        what = f"{path} is a link, and the mode of what it leads to is not changed"
        raise RecipeError(what, fix=f"delete {path} and run it again, or chmod +x what it leads to")
    try:
        _chmod(cache, artifact)
    except OSError as error:
        what = f"cannot make {path} executable: {error.strerror}"
        raise RecipeError(what, fix="its owner has to: chmod +x, or copy it to a place of yours") from None


def _chmod(cache: str, artifact: Artifact) -> None:
    """Change the mode of the very file that was proven, and prove it again with its new state."""
    follow = getattr(os, "O_NOFOLLOW", 0) if artifact.owned else 0
    handle = os.open(artifact.target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | follow)
    try:
        stamps.check_unchanged(cache, [artifact])
        stamp, found = stamps.proof(cache, artifact), os.fstat(handle)
        if stamp is not None and stamp.stat != files.stat_of(found):
            what = f"{artifact.target} was replaced while its mode was changed"
            raise IntegrityError(what, fix="run it again")
        mode = found.st_mode
        os.fchmod(handle, MODE if artifact.owned else mode | (mode & 0o444) >> 2)
        if stamp is not None:
            now = files.stat_of(os.fstat(handle))
            stamps.write_stamp(cache, artifact, stamp._replace(stat=now))
    finally:
        os.close(handle)
