"""`doit download`: the bytes come here and are proven to be the right ones."""

from __future__ import annotations

import os

from doit.task import Task

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, State
from tasks.catalogue.resolve import Job
from tasks.console import formatting
from tasks.context import Recipe
from tasks.errors import RecipeError
from tasks.transfer.ensure import _same_bytes, bring


def task(recipe: Recipe, job: Job) -> Task:
    """The task of one model."""
    cache, options = recipe.place.cache, _options(recipe, job)
    wanted = [one._replace(adopt_from=None) if "no_adopt" in options else one for one in job.files]
    return doit_adapter.task(
        f"download:{job.name}",
        bring,
        [recipe, wanted, job.question, "yes" in options],
        targets=[one.target for one in wanted],
        uptodate=[lambda: all(stamps.state(cache, one) is State.FRESH for one in wanted)],
        doc=formatting.task_line(job.model.title, job.model.size),
    )


def _options(recipe: Recipe, job: Job) -> set[str]:
    """Options given for this model by any task."""
    return {key for ask, names in recipe.jobs.asked if job.name in names for key in ask.options}


def _is_right_there(cache: str, artifact: Artifact) -> bool:
    """Whether a read-only cache has the right bytes: nothing needs to be locked or fetched then."""
    return stamps.state(cache, artifact) is State.MOVED and _same_bytes(cache, artifact)


def check_place(cache: str, artifact: Artifact) -> None:
    """See that a file may be put at the target. Raises RecipeError: something else lies in the way."""
    from tasks.system import own_files

    if artifact.owned:
        own_files.check_inside(cache, artifact.target)
    elif os.path.lexists(artifact.target) and not os.path.isfile(os.path.realpath(artifact.target)):
        what = f"{artifact.target} is not a regular file, and is not replaced by a download"
        raise RecipeError(what, fix="--llamafile PATH of a file, or remove it")
