"""`doit chmod`: make a downloaded llamafile executable, no other file (R8, R31)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doit.task import Task

from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine.file_format import make_executable, why_skipped
from tasks.system import files


def is_done(recipe: Recipe, job: Job) -> bool:
    """Whether the file is executable, or need not be."""
    if why_skipped(recipe.place.platform, job.engine):
        return True
    return files.is_executable(job.artifact.target, job.artifact.owned)


def title(recipe: Recipe, job: Job) -> Callable[[Task], str]:
    """Return the function for the task's line, which says why the task is skipped."""
    skipped = why_skipped(recipe.place.platform, job.engine)

    def text(task: Task) -> str:
        if skipped:
            return f"{task.name}  ({skipped})"
        return str(task.name)

    return text


def actions(recipe: Recipe, job: Job) -> list[Any]:
    """Return the task's action; none if `doit -a` must skip it, too."""
    if why_skipped(recipe.place.platform, job.engine):
        return []
    return [(run, [recipe, job])]


def run(recipe: Recipe, job: Job) -> None:
    """Set mode 0755.

    Raises:
        RecipeError: the file is not a program, or not the verified one.
    """
    make_executable(recipe.place.cache, job.artifact)
