"""`doit verify`: the model's program, or the engine for it, runs here and says its version (R8)."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine import file_format
from tasks.engine.version import ask_version, keep_version, launch_of, proven_version


def is_proven(recipe: Recipe, job: Job) -> bool:
    """Tell whether the engine has run with these very bytes."""
    return proven_version(recipe.place.cache, job.artifact, job.engine) is not None


def run(recipe: Recipe, job: Job) -> None:
    """Ask the engine for its version and keep the answer in the target's stamp.

    Raises:
        ServerError: it does not run here.
        IntegrityError: the model is not a file such an engine opens.
    """
    file_format.check_format(job.artifact, job.engine)
    for further in job.more:
        file_format.check_format(further, "embedded")  # a GGUF for whatever engine
    if job.engine == "llamafile":  # the task `exe` has asked it
        version = recipe.catalogue.engine("llamafile").version or ""
    else:
        version = ask_version(job.name, launch_of(recipe.place.platform, job), recipe.place.cache, job.files)
    hint = job.model.engine_version
    if job.engine == "self" and hint and version and not f"{version}.".startswith(f"{hint}."):
        doit_adapter.log().warning(
            "%s says llamafile %s; %s says %s", job.name, version, recipe.catalogue.where, hint
        )
    keep_version(recipe.place.cache, job.artifact, job.engine, version)
