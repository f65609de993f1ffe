"""`doit exe`: llamafile without a model, for Windows (which starts nothing over 4 GiB) and for .gguf (R9)."""

from __future__ import annotations

from doit.task import Task

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.model_files import llamafile_exe
from tasks.context import Recipe
from tasks.engine.command import Launch
from tasks.engine.file_format import make_executable, why_skipped
from tasks.engine.version import ask_version, keep_version, proven_version
from tasks.system import files
from tasks.transfer.ensure import check_allowed, converge


def task(found: Recipe) -> Task:
    """The one task; UsageError's message where the catalogue does not name the program."""
    artifact: Artifact = llamafile_exe(found.catalogue, found.place)
    return doit_adapter.task(
        "exe",
        bring,
        [found, artifact],
        targets=[artifact.target],
        uptodate=[lambda: is_proven(found, artifact)],
    )


def is_proven(found: Recipe, artifact: Artifact) -> bool:
    """Whether the program is here, has the digest asked for, may be run, and ran."""
    executable = found.place.platform == "win32" or files.is_executable(artifact.target)
    return executable and proven_version(found.place.cache, artifact, "llamafile") is not None


def bring(found: Recipe, artifact: Artifact) -> None:
    """Download, chmod, `--version`: the same three steps as for a llamafile."""
    cache, platform = found.place.cache, found.place.platform
    converge(cache, artifact, check=lambda one: check_allowed(found, one))
    skipped = why_skipped(platform, "self")
    if skipped:
        doit_adapter.log().info("chmod %s", skipped)
    else:
        make_executable(cache, artifact)
    launch = Launch("llamafile", platform, "", artifact.target)
    version = ask_version(artifact.label, launch, cache, [artifact])
    keep_version(cache, artifact, "llamafile", version)
