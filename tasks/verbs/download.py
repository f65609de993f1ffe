"""`doit download`: download and verify a model's files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, TargetState
from tasks.catalogue.resolve import ResolvedModel
from tasks.context import Context


def files_of(context: Context, resolved: ResolvedModel) -> list[Artifact]:
    """Return the model's files; with --no-adopt without other programs' copies."""
    if "no_adopt" in context.options_of(resolved):
        return [file._replace(adopt_from=None) for file in resolved.files]
    return list(resolved.files)


def own_targets(context: Context, resolved: ResolvedModel) -> list[str]:
    """Return the paths of the model's files that no earlier model has.

    doit permits one task for a target, and two models may share a draft or a projector.
    """
    taken: set[str] = set()
    for other in context.resolution.by_name.values():
        if other.name == resolved.name:
            break
        taken.update(file.target for file in other.files)
    targets = dict.fromkeys(file.target for file in resolved.files)
    return [target for target in targets if target not in taken]


def are_fresh(context: Context, files: Sequence[Artifact]) -> bool:
    """Whether each file is here and is the one that was verified."""
    return all(
        stamps.target_state(context.environment.cache, file) is TargetState.FRESH
        for file in files
    )


def run(context: Context, files: Sequence[Artifact]) -> None:
    """Download missing files.

    Raises:
        RecipeError: a file is not available.
    """
    from tasks.system import sd_notify
    from tasks.transfer.ensure import ensure_files

    policy = context.download_policy()
    names = ", ".join(os.path.basename(file.target) for file in files)
    with sd_notify.extending(os.environ, f"downloading {names}"):
        ensure_files(context.environment.cache, files, policy)
