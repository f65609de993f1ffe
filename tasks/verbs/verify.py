"""`doit verify`: check that a model's engine runs here, with `--version` (R8)."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine import file_format
from tasks.engine.version import ask_version, keep_version, launch_of, proven_version


def is_proven(recipe: Recipe, job: Job) -> bool:
    """Whether the engine has run with exactly these bytes."""
    return proven_version(recipe.place.cache, job.artifact, job.engine) is not None


def run(recipe: Recipe, job: Job) -> None:
    """Ask the engine for its version and write it into the model's stamp.

    Raises:
        ServerError: the engine does not run here.
        IntegrityError: the model has a format that the engine does not read.
    """
    cache = recipe.place.cache
    file_format.check_format(job.artifact, job.engine)
    for further in job.more:
        # a GGUF, whatever the engine
        file_format.check_format(further, "embedded")
    if job.engine == "llamafile":
        # the task `exe` has run the program
        version = recipe.catalogue.engine("llamafile").version or ""
    else:
        launch = launch_of(recipe.place.platform, job)
        version = ask_version(job.name, launch, cache, job.files)
    if job.engine == "self":
        _warn_of_other(recipe, job, version)
    keep_version(cache, job.artifact, job.engine, version)


def _warn_of_other(recipe: Recipe, job: Job, version: str) -> None:
    """Warn if a llamafile's version is not the one in models.yaml."""
    expected = job.model.engine_version
    if not expected or not version or f"{version}.".startswith(f"{expected}."):
        return
    text = "%s says llamafile %s; %s says %s"
    where = recipe.catalogue.where
    doit_adapter.log().warning(text, job.name, version, where, expected)
