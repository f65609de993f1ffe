"""`doit download`: the bytes come here and are proven to be the right ones."""

from __future__ import annotations

from doit.task import Task

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import State
from tasks.catalogue.resolve import Job
from tasks.console import formatting
from tasks.context import Recipe
from tasks.transfer.ensure import bring


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
