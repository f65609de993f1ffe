"""Between the recipe and doit: errors, logging, the reporter and how a task is built. No decisions."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

from doit.exceptions import BaseFail, InvalidDodoFile, TaskFailed
from doit.reporter import ConsoleReporter
from doit.task import Task

from tasks.console import formatting
from tasks.console.text import LINES, WORD, Styled, visible
from tasks.errors import RecipeError, UsageError

INFO, ERROR = 20, 40  # logging's own numbers; a run with nothing to do does not import it


def log() -> Any:
    """The recipe's logger."""
    from tasks.console.logs import logger

    return logger()


def ci() -> Any:
    """What CI systems read; a run with nothing to do does not import it."""
    from tasks.console import ci

    return ci


def at_load(function: Callable[[], Any]) -> Any:
    """Call a function while tasks are loaded, where only InvalidDodoFile gives a clean message (status 3)."""
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  # closed by whoever started us
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a Windows console does not know every letter of a title
    try:
        return function()
    except UsageError as error:
        if is_json(os.environ):
            say("error", "%s", error, level=ERROR)
            raise SystemExit(3) from None
        sys.stderr.write(_annotation(str(error)))
        raise InvalidDodoFile(_safe(str(error))) from None
    except (MemoryError, ImportError) as error:
        raise InvalidDodoFile(_safe(_no_room(error))) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + 2) from None


def _no_room(error: MemoryError | ImportError) -> str:
    """Say that memory is used up, or that a package cannot be loaded, for which that may be the reason."""
    if isinstance(error, MemoryError):
        return "there is not enough memory\n  fix: raise the limit (ulimit -v), or end other programs"
    return f"a package cannot be loaded: {error}\n  fix: install the recipe again, and see `ulimit -v`"


def _safe(text: str) -> str:
    """Make text safe for a terminal, and free of commands for GitHub."""
    return str(ci().neutral(visible(text), os.environ))


def _guarded(function: Callable[..., object], *args: Any) -> TaskFailed | None:
    """Run an action: what it raises for the user becomes doit's TaskFailed, without a traceback."""
    from tasks.system.signals import on_signals

    log()
    try:
        with on_signals(_unwind):
            function(*args)
    except RecipeError as error:
        return TaskFailed(str(error))
    except OSError as error:  # no permission, a full disk, a file where a folder should be
        return TaskFailed(f"{error.filename or 'the system refuses'}: {error.strerror or error}")
    except (MemoryError, ImportError) as error:
        return TaskFailed(_no_room(error))
    except RuntimeError as error:
        if "start new thread" not in str(error):  # what Python says where the system refuses one
            raise
        return TaskFailed(_no_room(MemoryError()))
    except _Signalled as signalled:
        _ignore_signals()
        log().warning("interrupted; what was downloaded is kept, the same command goes on with it")
        raise SystemExit(128 + signalled.args[0]) from None  # as a shell says it
    return None


def _ignore_signals() -> None:
    import signal

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _Signalled(BaseException):
    """A signal that asks to end; not an Exception, so that nothing on the way takes it for a failure."""


def _unwind(number: int) -> None:
    """Left alone, SIGTERM would end doit on the spot, and what it has started would live on.

    One is enough: what follows would strike while the partial is saved.
    """
    _ignore_signals()
    raise _Signalled(number)


def task(name: str, fields: Mapping[str, Any]) -> Task:
    """Make a doit task from a dictionary; its actions see the real terminal.

    Errors for the user end an action as a failure, without a traceback.
    """
    fields = dict(fields)
    actions = [(_guarded, [function, *args]) for function, args in fields.pop("actions")]
    if "doc" in fields:  # `doit list` prints it
        fields["doc"] = ci().neutral(visible(fields["doc"], WORD), os.environ)
    return Task(name, actions, verbosity=2, io={"capture": False}, **fields)


def group(name: str, deps: Iterable[str], **fields: Any) -> Task:
    """A doit task that only stands for others; they need not be all of its sub-tasks."""
    return Task(name, None, task_dep=list(deps), has_subtask=True, **fields)


def _annotation(text: str, title: str = "") -> str:
    """An error as GitHub shows it beside the log; nothing elsewhere."""
    if not ci().is_github(os.environ):
        return ""
    return str(ci().command("error", visible(text), visible(title)))


_OPEN = ("serve", "with", "chat")  # what these show is what the user came for: no CI system folds it


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit has no types
    """doit's lines, on stderr; failures as the recipe words them; how long each step took.

    A CI system that can fold a log gets a fold for each task that does something.
    """

    def __init__(self, outstream: Any, options: Any) -> None:
        super().__init__(sys.stderr if outstream is sys.stdout else outstream, options)
        self._start = 0.0
        self._folded = ""  # the task whose lines are being folded

    @staticmethod
    def _is_report(task: Task) -> bool:
        return bool((task.meta or {}).get("report"))

    def execute_task(self, task: Task) -> None:
        """Say that a task begins; a report speaks for itself."""
        self._start = time.monotonic()
        verb = task.name.partition(":")[0]
        if self._is_report(task) or not task.actions or task.name[0] == "_":
            return
        if ci().folds(os.environ) and verb not in _OPEN:
            self._folded = task.name
            self.write(ci().fold(task.name, time.time(), os.environ))
        else:
            self.write(f".  {_safe(task.title())}\n")
        self.outstream.flush()

    def skip_uptodate(self, task: Task) -> None:
        """Say that there is nothing to do."""
        if task.name[0] != "_":
            self.write(f"-- {_safe(task.title())}\n")

    def _unfold(self) -> None:
        if self._folded:
            self.write(ci().fold(self._folded, time.time(), os.environ, end=True))
            self._folded = ""

    def add_success(self, task: Task) -> None:
        """Say how long it took."""
        self._unfold()
        if task.actions and not self._is_report(task) and task.name[0] != "_":
            seconds = time.monotonic() - self._start
            text = formatting.seconds(seconds)
            say("task_done", "   %s took %s", task.name, text, task=task.name, seconds=round(seconds, 3))

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Say what failed, in the recipe's words; a traceback only for what nobody foresaw."""
        if isinstance(fail, TaskFailed):
            text = fail.message
            self.write(f"ERROR: {_safe(text)}\n")
        else:
            super().add_failure(task, fail)
            text = fail.get_msg()
        self._unfold()
        self.write(_annotation(text, task.name.removeprefix("_check_")))

    def complete_run(self) -> None:
        """Everything was said when it happened."""
        self._unfold()
        for text in self.runtime_errors:
            self.write(f"ERROR: {_safe(text)}\n")


class EventReporter(Reporter):
    """The same as events, for LLAMAFILE_LOG=json: every line of stderr is an object."""

    def execute_task(self, task: Task) -> None:
        """Say that a task begins."""
        self._start = time.monotonic()
        if task.actions and task.name[0] != "_":
            say("task_started", "%s", task.name, task=task.name)

    def skip_uptodate(self, task: Task) -> None:
        """Say that there is nothing to do."""
        say("task_up_to_date", "%s", task.name, task=task.name)

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Say what failed."""
        text = fail.message if isinstance(fail, TaskFailed) else fail.get_msg()
        say("task_failed", "%s", text, level=ERROR, task=task.name)

    def complete_run(self) -> None:
        """Say what no task can be blamed for."""
        for text in self.runtime_errors:
            say("error", "%s", text, level=ERROR)


def say(event: str, text: str, *args: object, level: int = INFO, **facts: object) -> None:
    """Say something that is an event with facts (see effects.events)."""
    log()
    from tasks.console import logs

    logs.say(event, text, *args, level=level, **facts)


def reporter(env: Mapping[str, str]) -> type[Reporter]:
    """The reporter that LLAMAFILE_LOG asks for."""
    return EventReporter if is_json(env) else Reporter


def show(*blocks: str) -> None:
    """Print the blocks of a report to stdout, a newline between them."""
    safe = [block if isinstance(block, Styled) else visible(block) for block in blocks]
    text = ci().neutral("\n".join(safe), os.environ)
    with quiet_pipe():
        print(text, flush=True)


def show_json(data: object) -> None:
    """Print data to stdout as JSON in ASCII, in which GitHub sees no command."""
    text = json.dumps(data, indent=1).replace("##[", "#\\u0023[")
    with quiet_pipe():
        print(text, flush=True)


def harmless(blocks: Iterable[str], keep: str = LINES) -> Iterator[str]:
    """Make what an engine says safe for stdout, where that is a terminal or a log of GitHub.

    A pipe or a file gets it unchanged. GitHub gets whole lines.

    Args:
        keep: as in `visible`.
    """
    if not ci().is_github(os.environ):
        shown = sys.stdout.isatty()
        yield from (visible(block, keep) if shown else block for block in blocks)
        return
    rest = ""
    for block in blocks:
        lines, newline, rest = (rest + block).rpartition("\n")
        yield ci().neutral(visible(lines + newline, keep), os.environ)
    yield ci().neutral(visible(rest, keep), os.environ)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """A reader that has seen enough (`doit | head -1`) is no failure."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end


def is_json(env: Mapping[str, str]) -> bool:
    """Whether events were asked for."""
    return env.get("LLAMAFILE_LOG", "").strip().lower() == "json"
