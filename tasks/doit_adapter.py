"""Adapt the recipe to doit: errors, logging, output, how a task is built."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from doit.exceptions import InvalidDodoFile, TaskFailed
from doit.task import Task

from tasks.console.log_format import is_json
from tasks.console.program import as_typed
from tasks.console.text import LINES, WORD, Styled, visible
from tasks.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from tasks.console.report import Report

INFO, ERROR = 20, 40  # as in logging, which a run with nothing to do does not import
_USAGE_ERROR = 3  # exit status
_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def log() -> Any:
    """Return the recipe's logger."""
    from tasks.console.logs import logger

    return logger()


def ci() -> Any:
    """Return the module `ci`, which a run with nothing to do does not import."""
    from tasks.console import ci

    return ci


def prepare_streams() -> None:
    """Make stderr and stdout safe to write to.

    Python has no stderr if the parent process closed it. The encoding of a Windows
    console does not have every character of a title.
    """
    if not sys.stderr:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open until the process ends
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def as_load_error(function: Callable[[], Any]) -> Any:
    """Call a function while doit loads the tasks; report its errors as doit's.

    Raises:
        InvalidDodoFile: the only exception for which doit prints a clean message at
            this stage (status 3).
        SystemExit: the error is logged, or the user pressed Ctrl-C.
    """
    prepare_streams()
    try:
        return function()
    except UsageError as error:
        if is_json(os.environ):
            log_event("error", "%s", error.what, level=ERROR, **error.fields())
            raise SystemExit(_USAGE_ERROR) from None
        sys.stderr.write(annotation(str(error), "llamafile-recipe"))
        if _is_styled(sys.stderr):  # doit prints the message without styles
            sys.stderr.write(error_text(str(error), sys.stderr))
            raise SystemExit(_USAGE_ERROR) from None
        raise InvalidDodoFile(safe(str(error))) from None
    except (MemoryError, ImportError) as error:
        raise InvalidDodoFile(safe(_no_memory(error))) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + 2) from None


def _is_styled(stream: Any) -> bool:
    """Return whether a stream is a terminal that gets styles."""
    if not getattr(stream, "isatty", bool)():
        return False
    from tasks.console.logs import is_styled

    return is_styled(stream)


def error_text(text: str, stream: Any) -> str:
    """Return the lines of an error for a stream."""
    message = f"ERROR: {safe(text)}\n"
    if not _is_styled(stream):
        return message
    from tasks.console.styles import style_message

    return style_message(message)


def _no_memory(error: MemoryError | ImportError) -> str:
    """Explain a lack of memory, which may also be why a package cannot be loaded."""
    if isinstance(error, MemoryError):
        what = "there is not enough memory"
        fix = "raise the limit (ulimit -v), or end other programs"
    else:
        what = f"a package cannot be loaded: {error}"
        fix = "install the recipe again, and see `ulimit -v`"
    return f"{what}\n  fix: {fix}"


def safe(text: str) -> str:
    """Make text safe for a terminal, and disable commands for GitHub."""
    return str(ci().escape_workflow_commands(visible(as_typed(text)), os.environ))


def _guarded(function: Callable[..., object], *args: Any) -> TaskFailed | None:
    """Run an action; return an error that the user can understand as TaskFailed."""
    from tasks.system.signals import handle_signals

    log()
    try:
        with handle_signals(_unwind):
            function(*args)
    except RecipeError as error:
        return RecipeFailed(error)
    except OSError as error:  # no permission, a full disk, a file instead of a folder
        where = error.filename or "the system refuses"
        return TaskFailed(f"{where}: {error.strerror or error}")
    except (MemoryError, ImportError) as error:
        return TaskFailed(_no_memory(error))
    except RuntimeError as error:
        if "start new thread" not in str(error):  # Python's text for lack of memory
            raise
        return TaskFailed(_no_memory(MemoryError()))
    except _SignalledError as signalled:
        _ignore_signals()
        log().warning(
            "Interrupted. Partial downloads are kept; run the same command to resume."
        )
        raise SystemExit(128 + signalled.args[0]) from None  # as a shell reports it
    return None


class RecipeFailed(TaskFailed):  # type: ignore[misc]  # doit has no types
    """A task that failed with an error of the recipe, whose facts a log may need."""

    def __init__(self, error: RecipeError) -> None:
        super().__init__(str(error))
        self.error = error


def _ignore_signals() -> None:
    import signal

    for name in _STOP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _SignalledError(BaseException):
    """A signal asks the program to end; no handler of Exception must catch it."""


def _unwind(number: int) -> None:
    """Leave the action by an exception, so that it stops what it has started.

    Without a handler, SIGTERM would end doit at once. Further signals are ignored: they
    would interrupt the saving of a partial file.
    """
    _ignore_signals()
    raise _SignalledError(number)


def action_task(name: str, fields: Mapping[str, Any]) -> Task:
    """Make a doit task from a dictionary; its actions see the real terminal.

    Errors for the user end an action as a failure, without a traceback.
    """
    fields = dict(fields)
    actions = [
        (_guarded, [function, *args]) for function, args in fields.pop("actions")
    ]
    if "doc" in fields:  # `doit list` prints it
        fields["doc"] = ci().escape_workflow_commands(
            visible(as_typed(fields["doc"]), WORD), os.environ
        )
    return Task(name, actions, verbosity=2, io={"capture": False}, **fields)


def group_task(name: str, deps: Iterable[str], **fields: Any) -> Task:
    """Return a doit task that only depends on others; it may leave out sub-tasks."""
    return Task(name, None, task_dep=list(deps), has_subtask=True, **fields)


def annotation(text: str, title: str = "") -> str:
    """Return an error for GitHub to show beside the log; "" elsewhere."""
    if not ci().is_github(os.environ):
        return ""
    message = visible(as_typed(text))
    return str(ci().workflow_command("error", message, visible(title)))


def log_event(
    event: str, text: str, *args: object, level: int = INFO, **facts: object
) -> None:
    """Log an event with its facts, as `logs.say`."""
    log()
    from tasks.console import logs

    logs.log_event(event, text, *args, level=level, **facts)


def log_for_people(text: str) -> None:
    """Log lines for people; a log in JSON has the same facts in its events."""
    if not is_json(os.environ):
        log().info("%s", text)


def print_report(*blocks: str) -> None:
    """Print the blocks of a report to stdout, a newline between them."""
    safe = [block if isinstance(block, Styled) else visible(block) for block in blocks]
    text = ci().escape_workflow_commands(as_typed("\n".join(safe)), os.environ)
    with ignore_broken_pipe():
        print(text, flush=True)


def print_json(data: object) -> None:
    """Print data to stdout as ASCII JSON that has no command for GitHub."""
    text = json.dumps(data, indent=2).replace("##[", "#\\u0023[")
    with ignore_broken_pipe():
        print(text, flush=True)


def show_report(report: Report, as_json: bool) -> None:
    """Print a report to stdout: for people, or as JSON."""
    if as_json:
        print_json(report.as_json())
    else:
        print_report(*report.as_text())


def escape_stream(blocks: Iterable[str], keep: str = LINES) -> Iterator[str]:
    """Make an engine's output safe if stdout is a terminal or a log of GitHub.

    A pipe or a file receives it unchanged. GitHub receives whole lines.

    Args:
        keep: as in `visible`.
    """
    if ci().is_github(os.environ):
        yield from _without_commands(blocks, keep)
    elif sys.stdout.isatty():
        yield from (visible(block, keep) for block in blocks)
    else:
        yield from blocks


def _without_commands(blocks: Iterable[str], keep: str) -> Iterator[str]:
    rest = ""
    for block in blocks:
        lines, newline, rest = (rest + block).rpartition("\n")
        yield ci().escape_workflow_commands(visible(lines + newline, keep), os.environ)
    yield ci().escape_workflow_commands(visible(rest, keep), os.environ)


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Ignore a reader of stdout that closes the pipe, such as `doit | head -1`."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes stdout once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unshared(
    task: str, fields: Mapping[str, Any], owners: dict[str, str]
) -> dict[str, Any]:
    """Return a task without the targets that another task has.

    Two models may have one file, which doit accepts as a target only once. The second
    task follows the first.

    Args:
        owners: of each target the task that has it; this one is added.
    """
    for path in fields["targets"]:
        owners.setdefault(path, task)
    own = [path for path in fields["targets"] if owners[path] == task]
    others = {owners[path] for path in fields["targets"]} - {task}
    return {**fields, "targets": own, "task_dep": sorted(others)}


def docstring(function: Callable[..., Any]) -> str:
    """Return a docstring from the source: PYTHONOPTIMIZE=2 removes `__doc__`."""
    import ast
    import inspect

    [definition] = ast.parse(inspect.getsource(function)).body
    return ast.get_docstring(definition) or ""  # type: ignore[arg-type]
