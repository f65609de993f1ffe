"""`doit chmod`: a downloaded llamafile becomes a program, and nothing else does (R8, R31)."""

from __future__ import annotations

from collections.abc import Callable

from doit.task import Task

from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine.file_format import make_executable, why_skipped
from tasks.system import files


def is_done(recipe: Recipe, job: Job) -> bool:
    """Tell whether the file may be executed, or need not."""
    if why_skipped(recipe.place.platform, job.engine):
        return True
    return files.is_executable(job.artifact.target, job.artifact.owned)


def title(recipe: Recipe, job: Job) -> Callable[[Task], str]:
    """Return what doit prints for the task: why it is skipped, if it is."""
    skipped = why_skipped(recipe.place.platform, job.engine)

    def text(task: Task) -> str:
        return f"{task.name}  ({skipped})" if skipped else str(task.name)

    return text


def run(recipe: Recipe, job: Job) -> None:
    """Set mode 0755. Raises RecipeError: it is not a program, or not the verified file."""
    if not why_skipped(recipe.place.platform, job.engine):
        make_executable(recipe.place.cache, job.artifact)
