"""`doit check`: ask a model the questions of its `checks:` in models.yaml."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks import doit_adapter
from tasks.catalogue.check_options import Check
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.types import Catalogue
from tasks.console import formatting
from tasks.console.report import Column, Report
from tasks.context import Context
from tasks.errors import ServerError, UsageError
from tasks.server.checks import Outcome, run_checks
from tasks.server.server_record import ServerRecord
from tasks.server.session import check_start, pick_port
from tasks.server.temporary_server import ask_served

_DIGESTS = re.compile("[0-9a-f]{64}(,[0-9a-f]{64})*")  # of a model's files
_SHOWN = 2000  # characters of an answer in an error


def check(context: Context, resolved: ResolvedModel) -> None:
    """Check that the model has checks and can be served, before it is downloaded.

    Raises:
        UsageError: it has no checks.
        ServerError: it cannot be served.
    """
    _checks_of(context.catalogue, resolved.name)
    cache = context.environment.cache
    check_start(cache, resolved, context.download_policy())
    pick_port(cache, resolved.settings.host, resolved.port_to_try(any_free=True))


def _checks_of(catalogue: Catalogue, name: str) -> tuple[Check, ...]:
    """Return the checks of an entry.

    Raises:
        UsageError: it has none.
    """
    checks = catalogue.model(name).checks
    if not checks:
        what = f"{name} has no checks in {catalogue.where}"
        fix = f"add `checks:` to models.{name}, such as [{{ask: …, contains: …}}]"
        raise UsageError(what, fix=fix)
    return checks


def run(context: Context, resolved: ResolvedModel) -> None:
    """Serve the model, run its checks, and stop the server.

    Raises:
        ServerError: a check failed, or the model could not be served.
        SystemExit: a signal came (128 + signal).
    """
    checks = _checks_of(context.catalogue, resolved.name)
    server, outcomes = ask_served(
        context.environment,
        context.catalogue,
        resolved,
        resolved.port_to_try(any_free=True),
        lambda record, stopped: run_checks(record, checks, stopped),
    )
    _report(context, server, outcomes)


def run_with(context: Context, server: ServerRecord) -> None:
    """Run the checks of a running server's model.

    Raises:
        UsageError: it has no checks.
        ServerError: a check failed, or the server did not complete an answer.
    """
    checks = _checks_of(context.catalogue, server.name)
    doit_adapter.log().info("checking %s at %s", server.name, server.url)
    _report(context, server, run_checks(server, checks, lambda: False))


def _report(
    context: Context, server: ServerRecord, outcomes: Sequence[Outcome]
) -> None:
    """Print the report to stdout.

    Raises:
        ServerError: a check failed.
    """
    identity = server.spec.get("model", "")
    digests = None
    if _DIGESTS.fullmatch(identity):
        digests = identity
    failures = [outcome for outcome in outcomes if not outcome.passed]
    rows = [outcome.as_json() for outcome in outcomes]
    data = {
        "model": server.name,
        "sha256": digests,
        "engine": server.spec.get("--engine", ""),
        "passed": not failures,
        "checks": rows,
    }
    request = context.command_line.tasks[-1]
    report = Report(_COLUMNS, rows, data=data)
    doit_adapter.show_report(report, bool(request.options.get("json")))
    if failures:
        what = f"{server.name}: {len(failures)} of {len(outcomes)} checks failed"
        facts = [fact for outcome in failures for fact in _facts(outcome)]
        fix = "if the new answer is right, edit `checks:` in models.yaml"
        raise ServerError(what, facts, fix=fix)


def _facts(outcome: Outcome) -> list[tuple[str, object]]:
    return [
        ("question", outcome.check.ask),
        ("expected", outcome.check.expected),
        ("got", outcome.got[:_SHOWN] or outcome.problem),
        ("why", outcome.problem),
    ]


def _passed(passed: object) -> str:
    if passed:
        return "passed"
    return "failed"


def _rate(rate: float) -> str:
    return f"{rate:.4g}/s"


_COLUMNS = (
    Column("passed", "result", _passed),
    Column("ask", "question", least=20),
    Column("seconds", ">time", formatting.format_duration),
    Column("predicted_per_second", ">tokens", _rate, "?", optional=True),
)
