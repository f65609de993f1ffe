"""`doit chmod`: a downloaded llamafile becomes a program (mode 0755); nothing else ever does (R8, R31)."""

from __future__ import annotations

import os

from doit.task import Task

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine.file_format import MODE, make_executable, why_skipped
from tasks.errors import IntegrityError
from tasks.system import files


def task(recipe: Recipe, job: Job) -> Task:
    """The task of one model."""
    name, artifact = f"chmod:{job.name}", job.artifact
    skipped = why_skipped(recipe.place.platform, job.engine)
    return doit_adapter.task(
        name,
        make_executable,
        [recipe.place.cache, artifact],
        task_dep=[f"download:{job.name}"],
        uptodate=[True if skipped else lambda: files.is_executable(artifact.target, artifact.owned)],
        title=lambda task: f"{task.name}  ({skipped})" if skipped else str(task.name),
    )


def _chmod(cache: str, artifact: Artifact) -> None:
    """Change the mode of the very file that was proven, and prove it again with its new state."""
    follow = getattr(os, "O_NOFOLLOW", 0) if artifact.owned else 0
    handle = os.open(artifact.target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | follow)
    try:
        files.check_unchanged(cache, [artifact])
        stamp, found = files.proof(cache, artifact), os.fstat(handle)
        if stamp is not None and stamp.stat != files.stat_of(found):
            what = f"{artifact.target} was replaced while its mode was changed"
            raise IntegrityError(what, fix="run it again")
        mode = found.st_mode
        os.fchmod(handle, MODE if artifact.owned else mode | (mode & 0o444) >> 2)
        if stamp is not None:
            now = files.stat_of(os.fstat(handle))
            stamps.write_stamp(cache, artifact, stamp._replace(stat=now))
    finally:
        os.close(handle)
