"""`doit chmod`: make a downloaded llamafile executable, no other file (R8, R31)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doit.task import Task

from tasks.catalogue.resolve import ResolvedModel
from tasks.context import Context
from tasks.engine.file_format import make_executable, why_skipped
from tasks.system import files


def is_done(context: Context, resolved: ResolvedModel) -> bool:
    """Whether the file is executable, or need not be."""
    if why_skipped(context.environment.platform, resolved.engine):
        return True
    return files.is_executable(resolved.artifact.target, resolved.artifact.in_cache)


def title(context: Context, resolved: ResolvedModel) -> Callable[[Task], str]:
    """Return the function for the task's line, which says why the task is skipped."""
    skipped = why_skipped(context.environment.platform, resolved.engine)

    def text(task: Task) -> str:
        if skipped:
            return f"{task.name}  ({skipped})"
        return str(task.name)

    return text


def actions(context: Context, resolved: ResolvedModel) -> list[Any]:
    """Return the task's action; none if `doit -a` must skip it, too."""
    if why_skipped(context.environment.platform, resolved.engine):
        return []
    return [(run, [context, resolved])]


def run(context: Context, resolved: ResolvedModel) -> None:
    """Set mode 0755.

    Raises:
        RecipeError: the file is not a program, or not the verified one.
    """
    make_executable(context.environment.cache, resolved.artifact)
