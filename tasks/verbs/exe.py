"""`doit exe`: install the program llamafile, which serves .gguf files (R9).

On Windows it also serves llamafiles: Windows does not start programs over 4 GiB.
"""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.context import Context
from tasks.engine.command import Launch
from tasks.engine.file_format import make_executable, native_program, why_skipped
from tasks.engine.version import ask_version, record_version, recorded_version
from tasks.errors import TransferError
from tasks.system import files
from tasks.transfer.ensure import ensure_file


def is_proven(context: Context, artifact: Artifact) -> bool:
    """Whether the program is here, has the pinned digest, is executable, and ran."""
    if context.environment.platform != "win32" and not files.is_executable(
        artifact.target
    ):
        return False
    return (
        recorded_version(context.environment.cache, artifact, "llamafile") is not None
    )


def run(context: Context, artifact: Artifact) -> None:
    """Download it, make it executable and ask for its version, as with a llamafile."""
    cache, platform = context.environment.cache, context.environment.platform
    policy = context.download_policy()
    try:
        ensure_file(cache, artifact, policy)
    except TransferError as error:
        if not policy.engine_fix or policy.engine_fix in error.fix:
            raise
        fix = f"{error.fix}\n{policy.engine_fix}"
        raise TransferError(error.what, error.facts, fix) from None
    skipped = why_skipped(platform, "self")
    if skipped:
        doit_adapter.log().info("chmod %s", skipped)
    else:
        make_executable(cache, artifact)
    native = bool(native_program(artifact.target))
    launch = Launch("llamafile", platform, "", artifact.target, native=native)
    others = policy.engine_fix
    version = ask_version(artifact.label, launch, cache, [artifact], others)
    record_version(cache, artifact, "llamafile", version)
