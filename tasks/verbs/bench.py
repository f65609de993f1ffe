"""`doit bench`: measure tokens per second of a model on this machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import doit_adapter
from tasks.catalogue.resolve import ResolvedModel
from tasks.console import formatting
from tasks.console.report import Fact, Report
from tasks.console.text import Styled
from tasks.context import Context
from tasks.doctor import probes
from tasks.errors import RecipeError, ServerError, UsageError
from tasks.server import rates
from tasks.server.load import Load, measure
from tasks.server.rates import Measurement
from tasks.server.requests_by_kind import kind_of
from tasks.server.server_record import ServerRecord
from tasks.server.session import check_start, pick_port
from tasks.server.temporary_server import ask_served

_MAX_FILE = 1024 * 1024  # bytes of --compare's file
_MOST_LEVELS = 8
_MAXIMA = {"parallel": 256, "requests": 1000, "n_predict": 8192, "limit": 24 * 3600}
_EXAMPLES = {"parallel": "1,2,4", "requests": "4", "n_predict": "64", "limit": "300"}
_DIGESTS = re.compile("[0-9a-f]{64}(,[0-9a-f]{64})*")  # of a model's files
_SETTINGS = ("--ctx-size", "--threads", "--ngl", "--gpu", "--mmproj", "--")


def load_of(context: Context) -> Load:
    """Return what to measure.

    Raises:
        UsageError: a value is invalid.
    """
    options = _options(context)
    load = Load()
    if "requests" in options:
        load = load._replace(requests=_number("requests", options["requests"]))
    if "n_predict" in options:
        load = load._replace(n_predict=_number("n_predict", options["n_predict"]))
    if "limit" in options:
        load = load._replace(limit_s=_number("limit", options["limit"]))
    if "levels" in options:
        words = str(options["levels"]).split(",")
        levels = tuple(_number("parallel", word.strip()) for word in words)
        if len(levels) > _MOST_LEVELS:
            what = f"--parallel: expected at most {_MOST_LEVELS} numbers"
            raise UsageError(f"{what}, got {len(levels)}", fix="--parallel 1,2,4")
        load = load._replace(levels=tuple(dict.fromkeys(levels)))
    return load


def _number(name: str, text: str) -> int:
    """Return the number of an option.

    Raises:
        UsageError: it is not a number, or is out of range.
    """
    most = _MAXIMA[name]
    if text.isascii() and text.isdigit() and 0 < int(text[:9]) <= most:
        return int(text[:9])
    option = f"--{name.replace('_', '-')}"
    what = f"{option}: expected a whole number from 1 to {most}, got {text!r}"
    raise UsageError(what, fix=f"{option} {_EXAMPLES[name]}")


def check(context: Context, resolved: ResolvedModel) -> None:
    """Check that the model can be measured, before anything is downloaded.

    Raises:
        ServerError: it cannot be served, or it is of another kind.
        RecipeError: --compare names no report.
    """
    _check_kind(resolved.name, resolved.model.kind)
    cache = context.environment.cache
    check_start(cache, resolved, context.download_policy())
    _earlier(context)
    pick_port(cache, resolved.settings.host, resolved.port_to_try(any_free=True))


def _check_kind(name: str, kind: str) -> None:
    """Check that a model can be measured: the requests are for answers in tokens.

    Raises:
        ServerError: it is of another kind.
    """
    if kind == "chat":
        return
    what = f"`bench` measures chat models, and {name} is of kind: {kind}"
    raise ServerError(what, fix="`doit catalogue --kind chat` lists the chat models")


def run(context: Context, resolved: ResolvedModel, load: Load) -> None:
    """Serve the model, measure it, and stop the server.

    Raises:
        ServerError: it could not be served, or not be measured.
        SystemExit: a signal came (128 + signal).
    """
    if "--parallel" not in (*resolved.settings.args, *resolved.engine_args):
        slots = ("--parallel", str(max(load.levels)))
        resolved = resolved._replace(engine_args=(*resolved.engine_args, *slots))
    server, rows = ask_served(
        context.environment,
        context.catalogue,
        resolved,
        resolved.port_to_try(any_free=True),
        lambda record, stopped: measure(record, load, stopped),
    )
    _report(context, server, load, rows)


def run_with(context: Context, server: ServerRecord, load: Load) -> None:
    """Measure a running server.

    Raises:
        ServerError: it could not be measured, or it is of another kind.
        RecipeError: --compare names no report.
    """
    _check_kind(server.name, kind_of(server))
    _earlier(context)
    doit_adapter.log().info("measuring %s at %s", server.name, server.url)
    rows = measure(server, load, lambda: False)
    _report(context, server, load, rows)


def _options(context: Context) -> Mapping[str, Any]:
    """Return the options of the command line; empty for one of doit's commands."""
    for request in context.command_line.tasks:
        if request.verb == "bench":
            return request.options
    return {}


def _earlier(context: Context) -> dict[str, Any] | None:
    """Return the report of --compare; None without it.

    Raises:
        RecipeError: the file cannot be read, or is something else.
    """
    name = _options(context).get("compare")
    if name is None:
        return None
    path = os.path.join(context.environment.cwd, os.path.expanduser(name))
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return rates.parse_earlier(file.read(_MAX_FILE), name)
    except OSError as error:
        what = f"--compare: {name}: {error.strerror or error}"
        raise RecipeError(what, fix=f"doit bench --json > {name}") from None


def _report(
    context: Context, server: ServerRecord, load: Load, rows: Sequence[Measurement]
) -> None:
    """Print the report to stdout."""
    report = {**_facts(server, load), "rows": [row.as_json() for row in rows]}
    report["complete"] = len(rows) == len(load.levels)
    earlier = _earlier(context)
    if earlier is not None:
        for row in report["rows"]:
            row["ratio"] = rates.ratios(row, earlier["rows"])
        report["differs"] = rates.differences(report, earlier)
    if _options(context).get("json"):
        doit_adapter.print_json(report)
    else:
        doit_adapter.print_report(*_lines(report), "", _table(report["rows"]))
    if not report["complete"]:
        limit = formatting.format_duration(load.limit_s)
        left = ", ".join(map(str, load.levels[len(rows) :]))
        text = "warning: not measured within %s: %s requests at once; see --limit"
        doit_adapter.log().warning(text, limit, left)


def _facts(server: ServerRecord, load: Load) -> dict[str, Any]:
    """Return what the rates depend on."""
    spec = server.spec
    context = spec.get("--ctx-size", "")
    identity = spec.get("model", "")
    key = "file"  # the path of one that is not pinned
    if _DIGESTS.fullmatch(identity):
        key = "sha256"
    return {
        "model": server.name,
        "sha256": None,
        "file": None,
        key: identity,
        "engine": spec.get("--engine", ""),
        "context": int(context) if context.isdigit() else None,
        "settings": {name: spec[name] for name in _SETTINGS if name in spec},
        "cpu": probes.cpu_model(),
        "cpus": os.cpu_count(),
        "gpus": probes.gpus(platform.machine()),
        "n_predict": load.n_predict,
    }


def _lines(report: Mapping[str, Any]) -> list[str]:
    """Return the lines above the table, wrapped to the width of a terminal."""
    settings = " ".join(f"{name} {value}" for name, value in report["settings"].items())
    identity = f"not pinned: {report['file']}"
    if report["sha256"]:
        identity = f"sha256 {report['sha256'][:12]}"
    facts = {
        "model": f"{report['model']}, {identity}",
        "engine": ", ".join(filter(None, (report["engine"], settings))),
        "CPU": f"{report['cpu']}, {report['cpus']} logical cores",
        "GPU": ", ".join(report["gpus"]) or "none",
    }
    lines = [Fact(f"{name:<8} ", value) for name, value in facts.items()]
    lines += [Fact("differs  ", text) for text in report.get("differs", ())]
    return Report((), (), lines).as_text()


def _table(rows: Sequence[Mapping[str, Any]]) -> Styled:
    from rich.text import Text

    from tasks.console.tables import render_table

    titles = (">at once", ">requests", ">prompt", ">generation", ">all", ">time")
    cells = [
        [
            Text(str(row["parallel"])),
            Text(str(row["requests"])),
            *(Text(_rate(row, name)) for name in rates.RATES),
            Text(formatting.format_duration(row["seconds"])),
        ]
        for row in rows
    ]
    return render_table(titles, cells)


def _rate(row: Mapping[str, Any], name: str) -> str:
    """Return a rate in tokens per second: `41.2/s`, or `41.2/s (1.05x)`."""
    value = row[name]
    if value is None:
        return "?"
    text = f"{value:.4g}/s"
    ratio = row.get("ratio", {}).get(name)
    if ratio is not None:
        text += f" ({ratio:.2f}x)"
    return text
