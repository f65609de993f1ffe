"""`doit doctor`: find what would make downloading or serving fail, with the fix."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from shutil import disk_usage, which
from typing import Any

from tasks import doit_adapter, urls
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import Job, catalogued
from tasks.command_line import Ask
from tasks.context import Recipe
from tasks.doctor import checks as health
from tasks.doctor import probes
from tasks.doctor.checks import Finding
from tasks.errors import ServerError, TransferError, UsageError
from tasks.network import huggingface
from tasks.planning.estimate import memory_of, need_of
from tasks.system import files, memory, ports

# of all checks together, which run in parallel; the slowest one makes four attempts
LIMIT_S = 25.0

_Check = Callable[[], Finding | list[Finding]]


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`, which checks for the needs of one model."""
    name = (ask.models or (recipe.catalogue.default,))[0]
    job = catalogued(name, recipe.catalogue, recipe.place)
    return [recipe, job, bool(ask.options.get("json"))]


def run(recipe: Recipe, job: Job, as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        SystemExit: 1 if a check fails.
    """
    cache = recipe.place.cache
    findings = _findings({"cache": partial(_cache, cache)})
    checks = _machine(job)
    if findings[0].state is health.State.OK:
        checks.update(_programs(cache))
    findings += _findings({**checks, **_needs(recipe, job), **_network(job)})
    if as_json:
        rows = [{**one._asdict(), "state": one.state.value} for one in findings]
        doit_adapter.show_json(rows)
    else:
        doit_adapter.show(*_report(findings))
    if any(finding.state is health.State.FAIL for finding in findings):
        raise SystemExit(1)


def _findings(checks: dict[str, _Check]) -> list[Finding]:
    """Return the findings of all checks, in order; a check that breaks is one, too."""
    findings: list[Finding] = []
    for name, result in probes.side_by_side(checks, LIMIT_S).items():
        if result is None or isinstance(result, BaseException):
            findings.append(health.broken(name, result))
        elif isinstance(result, list):
            findings += result
        else:
            findings.append(result)
    return findings


def _cache(cache: str) -> Finding:
    return health.cache(cache, probes.unwritable(cache))


def _machine(job: Job) -> dict[str, _Check]:
    """Return the checks of the hardware, and of the embedded engine's package."""
    machine = platform.machine()
    checks: dict[str, _Check] = {}
    if job.engine == "embedded":
        checks["embedded"] = lambda: health.embedded(probes.version("xllamacpp"))
    return {
        **checks,
        "cpu": lambda: health.cpu(machine, probes.avx(), sys.platform, probes.translated()),
        "gpu": lambda: health.gpu(probes.gpus(machine)),
    }


def _programs(cache: str) -> dict[str, _Check]:
    """Return the checks of programs and locks in a cache that is writable."""
    locks = os.path.join(cache, "locks")
    return {
        "engine": partial(_engine, cache),
        "locks": lambda: health.locks(locks, probes.lock_problem(locks)),
    }


def _engine(cache: str) -> list[Finding]:
    """Check that engines can run, one check after the other: each writes a program."""
    if sys.platform == "win32":
        ran = probes.run([sys.executable, "-c", f"print({health.WORD!r})"])
        return [health.engine(ran, sys.platform)]
    findings = [
        health.engine(probes.tiny(cache, health.TINY_APE, "/bin/sh"), sys.platform),
        health.runnable("noexec", cache, probes.tiny(cache, health.TINY_SCRIPT)),
    ]
    # a llamafile writes its loader there, unless the program `ape` is installed
    folder = files.existing(os.environ.get("TMPDIR") or os.environ.get("HOME") or cache)
    if not which("ape"):
        script = probes.tiny(folder, health.TINY_SCRIPT)
        findings.append(health.runnable("loader", folder, script))
    return findings


def _needs(recipe: Recipe, job: Job) -> dict[str, _Check]:
    """Return the checks of disk, memory and port for one model."""
    return {
        "disk": partial(_disk_and_memory, recipe, job),
        "port": partial(_port, job.settings.host, job.settings.port),
    }


def _disk_and_memory(recipe: Recipe, job: Job) -> list[Finding]:
    """Check disk and memory with the estimates of `doit plan`."""
    artifacts = list(job.files)
    if job.engine == "llamafile":
        # the catalogue may lack the program's URL
        with suppress(UsageError):
            artifacts.append(llamafile_exe(recipe.catalogue, recipe.place))
    needs = [need_of(recipe.place.cache, artifact) for artifact in artifacts]
    to_write = [need.to_write for need in needs if need.state != "have"]
    free = disk_usage(files.existing(recipe.place.cache)).free
    needed = memory_of(job, needs).needed
    return [
        health.disk(free, to_write, job.name),
        health.memory(memory.total(), memory.available(), needed, job.name),
    ]


def _port(host: str, number: int) -> Finding:
    address = f"{host}:{number}"
    if not number:
        address = f"some port of {host}"
    try:
        ports.free_port(host, number)
    except ServerError as error:
        return health.port(address, error.what, error.fix)
    return health.port(address, "", "")


def _network(job: Job) -> dict[str, _Check]:
    host = job.settings.host or "127.0.0.1"
    return {"hub": hub_findings, "proxy": partial(_proxy, host)}


def _proxy(host: str) -> list[Finding]:
    """Check NO_PROXY, if a proxy is set."""
    if not urls.no_proxy(os.environ, host):
        return []
    return [health.proxy(urls.needed_no_proxy(os.environ, host))]


def hub_findings(limit_s: float = probes.LOOK_S) -> list[Finding]:
    """Check that the Hub can be reached, unless the network is forbidden."""
    if variable := huggingface.offline(os.environ):
        return [Finding("hub", health.State.OK, f"offline, as {variable} asks")]
    from tasks.network import http

    endpoint = huggingface.endpoint(os.environ)
    try:
        answer = http.ask(http.new_session(), "HEAD", endpoint, {}, hops=10, limit_s=limit_s)
    except TransferError as error:
        fatal = isinstance(error, http.FatalTransfer)
        return [health.hub(endpoint, None, error.what, error.fix, fatal)]
    return [health.hub(endpoint, answer.status)]


def _report(found: list[Finding]) -> list[str]:
    """Return the table, the fixes, and the number of findings of each state."""
    from rich.text import Text

    from tasks.console.tables import table

    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    rows = [
        [Text(one.check), Text(one.state.value, colours[one.state.value]), Text(one.found)] for one in found
    ]
    lines: list[str] = [table(("check", "state", "found"), rows)]
    lines += [f"{one.check}: {one.found}\n  fix: {one.remedy}" for one in found if one.remedy]
    states = [one.state for one in found]
    counts = [f"{states.count(state)} {state.value}" for state in health.State]
    return [*lines, ", ".join(counts)]
