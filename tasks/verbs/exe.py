"""`doit exe`: install the programs of engines that models.yaml pins (R9).

llamafile serves .gguf files, and on Windows also llamafiles: Windows does not start
programs over 4 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks import doit_adapter
from tasks.cache import unpacked
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_choice import alternatives
from tasks.catalogue.engine_release import (
    NAME,
    program_name,
    program_path,
    usable_engines,
)
from tasks.context import Context
from tasks.engine.command import Launch
from tasks.engine.file_format import make_executable, native_program, why_skipped
from tasks.engine.version import ask_version, record_version, recorded_version
from tasks.errors import IntegrityError, TransferError
from tasks.system import files
from tasks.transfer.ensure import ensure_files
from tasks.transfer.unpack import ensure_unpacked


def are_proven(context: Context, programs: Sequence[Artifact]) -> bool:
    """Whether every program is here, has the pinned digest, is executable, and ran."""
    return all(_is_proven(context, artifact) for artifact in programs)


def _is_proven(context: Context, artifact: Artifact) -> bool:
    cache = context.environment.cache
    if artifact.unpacked:
        has_run = recorded_version(cache, artifact, NAME) is not None
        return has_run and unpacked.is_intact(artifact)
    if context.environment.platform != "win32" and not files.is_executable(
        artifact.target
    ):
        return False
    return recorded_version(cache, artifact, "llamafile") is not None


def run(context: Context, programs: Sequence[Artifact]) -> None:
    """Download each, make it executable and ask for its version.

    Raises:
        RecipeError: one is not available, or does not run here.
    """
    for artifact in programs:
        if not _is_proven(context, artifact):
            _download(context, artifact)
            if artifact.unpacked:
                _install_release(context, artifact)
            else:
                _install_llamafile(context, artifact)


def _download(context: Context, artifact: Artifact) -> None:
    policy = context.download_policy()
    try:
        ensure_files(context.environment.cache, [artifact], policy)
    except TransferError as error:
        if not policy.engine_fix or policy.engine_fix in error.fix:
            raise
        fix = f"{error.fix}\n{policy.engine_fix}"
        raise TransferError(error.what, error.facts, fix) from None


def _install_llamafile(context: Context, artifact: Artifact) -> None:
    cache, platform = context.environment.cache, context.environment.platform
    skipped = why_skipped(platform, "self")
    if skipped:
        doit_adapter.log().info("chmod %s", skipped)
    else:
        make_executable(cache, artifact)
    native = bool(native_program(artifact.target))
    launch = Launch("llamafile", platform, "", artifact.target, native=native)
    others = context.download_policy().engine_fix
    version = ask_version(artifact.label, launch, cache, [artifact], others)
    record_version(cache, artifact, "llamafile", version)


def _install_release(context: Context, artifact: Artifact) -> None:
    cache, platform = context.environment.cache, context.environment.platform
    others = ""
    if context.resolution.by_name:
        usable = usable_engines(context.catalogue, context.environment)
        others = alternatives(NAME, usable, is_gguf=True)
    try:
        ensure_unpacked(cache, artifact, program_name(platform))
    except IntegrityError as error:
        fix = "\n".join(filter(None, [error.fix, others]))
        raise IntegrityError(error.what, error.facts, fix) from None
    launch = Launch(NAME, platform, "", program_path(artifact.unpacked, platform))
    version = ask_version(artifact.label, launch, cache, [artifact], others)
    record_version(cache, artifact, NAME, version)
