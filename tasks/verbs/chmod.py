"""`doit chmod`: a downloaded llamafile becomes a program (mode 0755); nothing else ever does (R8, R31)."""

from __future__ import annotations

from doit.task import Task

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine.file_format import make_executable, why_skipped
from tasks.system import files


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
