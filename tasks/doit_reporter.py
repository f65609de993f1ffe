"""What doit prints about tasks: for people, or as events (LLAMAFILE_LOG=json)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from doit.exceptions import BaseFail, TaskFailed
from doit.reporter import ConsoleReporter
from doit.task import Task

from tasks.console import formatting
from tasks.console.log_format import is_json
from tasks.doit_adapter import (
    ERROR,
    RecipeFailed,
    annotation,
    ci,
    error_text,
    log_event,
    safe,
)

# verbs whose output is what the user asked for: CI systems do not group it
_UNGROUPED = ("serve", "with", "chat", "bench", "check")


def reporter(env: Mapping[str, str]) -> type[Reporter]:
    """Return the reporter that LLAMAFILE_LOG selects."""
    return EventReporter if is_json(env) else Reporter


def _is_internal(task: Task) -> bool:
    return bool(task.name[0] == "_")


def _is_report(task: Task) -> bool:
    return bool((task.meta or {}).get("report"))


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit has no types
    """Print doit's lines to stderr, the recipe's errors, and the time of each task.

    In a CI system that supports it, the lines of each task are a group.
    """

    def __init__(self, outstream: Any, options: Any) -> None:
        if outstream is sys.stdout:
            outstream = sys.stderr
        super().__init__(outstream, options)
        self._start = 0.0
        self._folded = ""  # the task whose group is open

    def execute_task(self, task: Task) -> None:
        """Print that a task begins; a report prints its own output only."""
        self._start = time.monotonic()
        if _is_report(task) or not task.actions or _is_internal(task):
            return
        verb = task.name.partition(":")[0]
        if ci().supports_groups(os.environ) and verb not in _UNGROUPED:
            self._folded = task.name
            self.write(ci().group_marker(task.name, time.time(), os.environ))
        else:
            self.write(f".  {safe(task.title())}\n")
        self.outstream.flush()

    def skip_uptodate(self, task: Task) -> None:
        """Print that a task is up to date."""
        if not _is_internal(task):
            self.write(f"-- {safe(task.title())}\n")

    def _unfold(self) -> None:
        if self._folded:
            self.write(
                ci().group_marker(self._folded, time.time(), os.environ, end=True)
            )
            self._folded = ""

    def add_success(self, task: Task) -> None:
        """Log how long a task took."""
        self._unfold()
        if _is_report(task) or not task.actions or _is_internal(task):
            return
        seconds = time.monotonic() - self._start
        log_event(
            "task_done",
            "   %s took %s",
            task.name,
            formatting.format_duration(seconds),
            task=task.name,
            seconds=round(seconds, 3),
        )

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Print the recipe's error; a traceback only for an unexpected exception."""
        if isinstance(fail, TaskFailed):
            text = fail.message
            self.write(error_text(text, self.outstream))
        else:
            super().add_failure(task, fail)
            text = fail.get_msg()
        self._unfold()
        self.write(annotation(text, task.name.removeprefix("_check_")))

    def complete_run(self) -> None:
        """Print errors that belong to no task; all others are printed already."""
        self._unfold()
        for text in self.runtime_errors:
            self.write(error_text(text, self.outstream))


class EventReporter(Reporter):
    """Log the same as events (LLAMAFILE_LOG=json): each line of stderr is an object."""

    def execute_task(self, task: Task) -> None:
        """Log that a task begins."""
        self._start = time.monotonic()
        if task.actions and not _is_internal(task):
            log_event("task_started", "%s", task.name, task=task.name)

    def skip_uptodate(self, task: Task) -> None:
        """Log that a task is up to date."""
        log_event("task_up_to_date", "%s", task.name, task=task.name)

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Log an error."""
        fields: dict[str, object] = {}
        if isinstance(fail, RecipeFailed):
            text = fail.error.what
            fields = fail.error.fields()
        elif isinstance(fail, TaskFailed):
            text = fail.message
        else:
            text = fail.get_msg()
        fields["task"] = task.name.removeprefix("_check_")
        log_event("task_failed", "%s", text, level=ERROR, **fields)

    def complete_run(self) -> None:
        """Log errors that belong to no task."""
        for text in self.runtime_errors:
            log_event("error", "%s", text, level=ERROR)
