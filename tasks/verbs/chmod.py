"""`doit chmod`: a downloaded llamafile becomes a program (mode 0755); nothing else ever does (R8, R31)."""

from __future__ import annotations

import os

from doit.task import Task

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.errors import IntegrityError, RecipeError
from tasks.system import files

MODE = 0o755


def task(recipe: Recipe, job: Job) -> Task:
    """The task of one model."""
    name, artifact = f"chmod:{job.name}", job.artifact
    skipped = why_skipped(recipe.place.platform, job.engine)
    return doit_adapter.task(
        name,
        make_executable,
        [recipe.place.cache, artifact],
        task_dep=[f"download:{job.name}"],
        uptodate=[True if skipped else lambda: files.is_executable(artifact.target, artifact.owned)],
        title=lambda task: f"{task.name}  ({skipped})" if skipped else str(task.name),
    )


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
    files.check_format(artifact, "self")
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
        files.check_unchanged(cache, [artifact])
        stamp, found = files.proof(cache, artifact), os.fstat(handle)
        if stamp is not None and stamp.stat != files.stat_of(found):
            what = f"{artifact.target} was replaced while its mode was changed"
            raise IntegrityError(what, fix="run it again")
        mode = found.st_mode
        os.fchmod(handle, MODE if artifact.owned else mode | (mode & 0o444) >> 2)
        if stamp is not None:
            now = files.stat_of(os.fstat(handle))
            files.write_stamp(cache, artifact, stamp._replace(stat=now))
    finally:
        os.close(handle)
