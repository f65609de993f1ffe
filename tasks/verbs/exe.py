"""`doit exe`: llamafile without a model, for Windows (which starts nothing over 4 GiB) and for .gguf (R9)."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.context import Recipe
from tasks.engine.command import Launch
from tasks.engine.file_format import make_executable, why_skipped
from tasks.engine.version import ask_version, keep_version, proven_version
from tasks.system import files
from tasks.transfer.ensure import check_allowed, converge


def is_proven(found: Recipe, artifact: Artifact) -> bool:
    """Whether the program is here, has the digest asked for, may be run, and ran."""
    executable = found.place.platform == "win32" or files.is_executable(artifact.target)
    return executable and proven_version(found.place.cache, artifact, "llamafile") is not None


def run(found: Recipe, artifact: Artifact) -> None:
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
