"""Serve a model as a catalogue pins it, run its checks, and measure its speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import ResolvedModel, resolve
from tasks.catalogue.types import Catalogue
from tasks.command_line import CommandLine, Kind, TaskRequest
from tasks.context import Context
from tasks.errors import RecipeError, ServerError
from tasks.planning import preflight
from tasks.server.checks import Outcome, run_checks
from tasks.server.load import Load, measure
from tasks.server.server_record import ServerRecord
from tasks.server.temporary_server import ask_served

# one request at once: what a reader compares is one number
_LOAD = Load(levels=(1,), requests=2)


class Steps(NamedTuple):
    """The verbs that make a model ready to be served."""

    exe: Callable[[Context, Sequence[Artifact]], None]
    download: Callable[[Context, Sequence[Artifact]], None]
    chmod: Callable[[Context, ResolvedModel], list[Any]]  # returns the actions
    verify: Callable[[Context, ResolvedModel], None]


class Trial(NamedTuple):
    """What came of a model with some bytes."""

    outcomes: tuple[Outcome, ...] = ()
    per_second: float | None = None  # generated tokens; None if it was not measured
    engine: str = ""
    error: str = ""  # why it could not be served or asked

    @property
    def problem(self) -> str:
        """Return why its checks do not pass; empty if they do."""
        if self.error:
            return self.error.splitlines()[0]
        failed = sum(not outcome.passed for outcome in self.outcomes)
        if failed:
            return f"{failed} of {len(self.outcomes)} checks failed"
        return ""


class Subject(NamedTuple):
    """A model, its variant, and the engine that serves it."""

    name: str
    variant: str = ""
    engine: str = ""  # empty: as the rule chooses

    @property
    def title(self) -> str:
        """Return how people name it."""
        return f"{self.name} {self.variant}".strip()


def context_for(context: Context, catalogue: Catalogue, subject: Subject) -> Context:
    """Return the context of a command that serves the model.

    Raises:
        UsageError: it cannot be served here.
    """
    options = {"variant": subject.variant, "engine": subject.engine}
    given = {key: value for key, value in options.items() if value}
    request = TaskRequest("check", subject.name, given, kind=Kind.SERVER)
    args = CommandLine((request,))
    return context._replace(
        catalogue=catalogue,
        command_line=args,
        resolution=resolve(args, catalogue, context.environment),
        server=None,
        endpoints={},
    )


def job_of(context: Context) -> ResolvedModel:
    """Return the only job of a context."""
    return next(iter(context.resolution.by_name.values()))


def run(
    context: Context, catalogue: Catalogue, subject: Subject, steps: Steps
) -> Trial:
    """Download what is missing, serve the model, run its checks, and measure it.

    Raises:
        SystemExit: a signal came (128 + signal).
    """
    try:
        own = context_for(context, catalogue, subject)
        _prepare(own, steps)
        return _serve(own)
    except RecipeError as error:
        return Trial(error=str(error))


def _prepare(context: Context, steps: Steps) -> None:
    """Bring the files here, verified, and prove that the engine runs.

    Raises:
        RecipeError: that is not possible.
    """
    resolved = job_of(context)
    command = context.planned_command()
    preflight.ask(command, preflight.refuse(command))
    if resolved.exe:
        steps.exe(context, (resolved.exe,))
    steps.download(context, resolved.files)
    for function, args in steps.chmod(context, resolved):
        function(*args)
    steps.verify(context, resolved)


def _serve(context: Context) -> Trial:
    """Serve the model on a free port until all is asked.

    Raises:
        ServerError: it could not be served, or did not complete an answer.
        SystemExit: a signal came (128 + signal).
    """
    resolved = job_of(context)
    _, trial = ask_served(
        context.environment,
        context.catalogue,
        resolved,
        0,
        lambda record, stopped: _ask(record, resolved, stopped),
    )
    return trial


def _ask(
    record: ServerRecord, resolved: ResolvedModel, stopped: Callable[[], object]
) -> Trial:
    outcomes = run_checks(record, resolved.model.checks, stopped)
    rate = None
    try:
        [row] = measure(record, _LOAD, stopped)
        rate = row.predicted_per_second
    except ServerError:
        pass  # an engine without timings: the checks still decide
    return Trial(tuple(outcomes), rate, record.spec.get("--engine", ""))
