"""`doit download`: download and verify a model's files."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, State
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.transfer.ensure import bring


def files_of(recipe: Recipe, job: Job) -> list[Artifact]:
    """Return the model's files; with --no-adopt without other programs' copies."""
    if "no_adopt" in recipe.options_of(job):
        return [file._replace(adopt_from=None) for file in job.files]
    return list(job.files)


def are_fresh(recipe: Recipe, files: Sequence[Artifact]) -> bool:
    """Whether each file is here and is the one that was verified."""
    return all(stamps.state(recipe.place.cache, file) is State.FRESH for file in files)


def run(recipe: Recipe, job: Job, files: Sequence[Artifact]) -> None:
    """Download missing files.

    Raises:
        RecipeError: a file is not available.
    """
    policy = recipe.download_policy()
    yes = "yes" in recipe.options_of(job)
    bring(recipe.place.cache, files, policy, job.question, yes)
