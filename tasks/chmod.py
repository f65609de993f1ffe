"""`doit chmod`: a downloaded llamafile becomes a program (mode 0755); nothing else ever does (R8, R31)."""

from __future__ import annotations

import os

from doit.task import Task

from tasks import glue
from tasks.core.artifact import Artifact
from tasks.core.errors import RecipeError
from tasks.core.jobs import Job
from tasks.effects import files
from tasks.recipe import Recipe

MODE = 0o755


def task(recipe: Recipe, job: Job) -> Task:
    """The task of one model."""
    name, artifact = f"chmod:{job.name}", job.artifact
    skipped = why_skipped(recipe.place.platform, job.engine)
    return glue.task(
        name,
        make_executable,
        [artifact],
        task_dep=[f"download:{job.name}"],
        uptodate=[True if skipped else lambda: files.is_executable(artifact.target, artifact.owned)],
        title=lambda task: f"{task.name}  ({skipped})" if skipped else str(task.name),
    )


def why_skipped(platform: str, engine: str) -> str:
    """Why there is nothing to do, or nothing (R31)."""
    if platform == "win32":
        return "skipped: Windows has no chmod"
    return "" if engine == "self" else "skipped: it is data here, no program"


def make_executable(artifact: Artifact) -> None:
    """Mode 0755; a file of the user's keeps its mode and may be run by those who may read it.

    Raises RecipeError: it is no program, or the file system or its owner forbids it.
    """
    files.check_format(artifact, "self")
    path = artifact.target
    try:
        mode = os.stat(path).st_mode
        os.chmod(path, MODE if artifact.owned else mode | (mode & 0o444) >> 2)
    except OSError as error:
        what = f"cannot make {path} executable: {error.strerror}"
        raise RecipeError(what, fix="its owner has to: chmod +x, or copy it to a place of yours") from None
