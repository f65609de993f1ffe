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
from tasks.cache import unpacked
from tasks.catalogue.engine_release import pinned_server
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import ResolvedModel, resolve_entry
from tasks.catalogue.settings import ServeSettings
from tasks.catalogue.variants import budget
from tasks.command_line import TaskRequest
from tasks.console.report import Column, Fact, Report, Row
from tasks.context import Context
from tasks.doctor import checks as health
from tasks.doctor import probes
from tasks.doctor.checks import CheckResult
from tasks.engine.command import KEY_VARIABLE
from tasks.engine.environment import system_config
from tasks.engine.isolation import is_open_to_pages, open_pages
from tasks.engine.version import engine_version
from tasks.errors import ServerError, TransferError, UsageError
from tasks.network import huggingface
from tasks.planning.estimate import (
    MemoryEstimate,
    estimate_memory,
    memory_remedy,
    plan_file,
)
from tasks.planning.on_disk import on_disk
from tasks.server import run_folder, server_registry
from tasks.system import files, memory, ports
from tasks.system.packages import find_program

# of all checks together, which run in parallel; the slowest one makes four attempts
LIMIT_S = 25.0

_Check = Callable[[], CheckResult | list[CheckResult]]


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`, which checks for the needs of one model."""
    resolved = None
    if not context.catalogue_error:
        name = (request.models or (context.catalogue.default,))[0]
        resolved = resolve_entry(name, context.catalogue, context.environment)
    return [context, resolved, bool(request.options.get("json"))]


def run(context: Context, resolved: ResolvedModel | None, as_json: bool) -> None:
    """Print the report to stdout.

    Args:
        resolved: None where the catalogue cannot be read.

    Raises:
        SystemExit: 1 if a check fails.
    """
    cache = context.environment.cache
    findings = _findings({"cache": partial(_cache, context)})
    if context.catalogue_error:
        what = context.catalogue_error.what.splitlines()[0].removesuffix(":")
        findings.append(health.check_catalogue(what))
    checks = _machine(context, resolved)
    if findings[0].state is health.CheckState.OK:
        checks.update(_programs(cache))
    if resolved:
        checks.update(_needs(context, resolved))
    findings += _findings({**checks, **_network(resolved)})
    doit_adapter.show_report(_report(findings), as_json)
    if any(result.state is health.CheckState.FAIL for result in findings):
        raise SystemExit(1)


def _findings(checks: dict[str, _Check]) -> list[CheckResult]:
    """Return the findings of all checks, in order; a check that breaks is one, too."""
    findings: list[CheckResult] = []
    for name, result in probes.run_concurrently(checks, LIMIT_S).items():
        if result is None or isinstance(result, BaseException):
            findings.append(health.check_failed(name, result))
        elif isinstance(result, list):
            findings += result
        else:
            findings.append(result)
    return findings


def _cache(context: Context) -> CheckResult:
    cache = context.environment.cache
    problem = probes.write_error(cache)
    state = ""
    if problem and os.path.isdir(os.path.join(cache, "models")):
        state = run_folder.folder(cache) or ""
    return health.check_cache(cache, problem, state)


def _machine(context: Context, resolved: ResolvedModel | None) -> dict[str, _Check]:
    """Return the checks of the hardware, and of an engine that is installed."""
    machine = platform.machine()
    checks: dict[str, _Check] = {}
    if resolved and resolved.engine == "embedded":
        checks["embedded"] = lambda: health.check_embedded(probes.version("xllamacpp"))
    if resolved and resolved.engine == "llama-server":
        checks["llama-server"] = partial(_llama_server, context)
    return {
        **checks,
        "cpu": lambda: health.check_cpu(
            machine, probes.has_avx(), sys.platform, probes.under_rosetta()
        ),
        "gpu": lambda: health.check_gpu(probes.gpus(machine)),
    }


def _llama_server(context: Context) -> CheckResult:
    """Check the llama-server that models.yaml names, or that on PATH."""
    try:
        server = pinned_server(context.catalogue, context.environment)
    except UsageError as error:
        return health.check_llama_server("", error.what, error.fix)
    if server is None:
        return health.check_llama_server(find_program("llama-server"))
    found = server.program.target
    if server.archive and not unpacked.is_intact(server.archive):
        found = f"{server.archive.label}, which `doit exe` downloads"
    return health.check_llama_server(found)


def _programs(cache: str) -> dict[str, _Check]:
    """Return the checks of programs and locks in a cache that is writable."""
    locks = os.path.join(cache, "locks")
    return {
        "engine": partial(_engine, cache),
        "locks": lambda: health.check_locks(locks, probes.lock_problem(locks)),
    }


def _engine(cache: str) -> list[CheckResult]:
    """Check that engines can run, one check after the other: each writes a program."""
    place = probes.existing(cache)
    if sys.platform == "win32":
        ran = probes.run([sys.executable, "-c", f"print({health.EXPECTED_OUTPUT!r})"])
        return [health.check_engine(ran, sys.platform)]
    findings = [
        health.check_engine(
            probes.run_test_program(place, health.TINY_APE, "/bin/sh"), sys.platform
        ),
        health.check_runnable(
            "noexec", cache, probes.run_test_program(place, health.TINY_SCRIPT)
        ),
    ]
    # a llamafile writes its loader there, unless the program `ape` is installed
    folder = files.nearest_existing_dir(
        os.environ.get("TMPDIR") or os.environ.get("HOME") or cache
    )
    if not which("ape"):
        script = probes.run_test_program(folder, health.TINY_SCRIPT)
        findings.append(health.check_runnable("loader", folder, script))
    return findings


def _needs(context: Context, resolved: ResolvedModel) -> dict[str, _Check]:
    """Return the checks of disk, memory and port for one model."""
    return {
        "origins": partial(_origins, context, resolved),
        "config": _config,
        "disk": partial(_disk_and_memory, context, resolved),
        "port": partial(_port, context.environment.cache, resolved.settings),
    }


def _origins(context: Context, resolved: ResolvedModel) -> list[CheckResult]:
    """Report a model whose engine cannot restrict which web pages use it."""
    version = engine_version(context.environment.cache, context.catalogue, resolved)
    key = resolved.key or os.environ.get(KEY_VARIABLE, "")
    if not is_open_to_pages(resolved.engine, version, resolved.settings, key):
        return []
    return [health.open_to_pages(*open_pages(resolved.name, resolved.engine, version))]


def _config() -> list[CheckResult]:
    """Report llama.cpp's configuration for all users, which engines read."""
    path = system_config(os.environ, sys.platform)
    if not os.path.exists(path):
        return []
    return [health.system_config(path)]


def _disk_and_memory(context: Context, resolved: ResolvedModel) -> list[CheckResult]:
    """Check disk and memory with the estimates of `doit plan`."""
    artifacts = list(resolved.files)
    # the catalogue may lack the program's URL
    with suppress(UsageError):
        if resolved.engine == "llamafile":
            artifacts.append(llamafile_exe(context.catalogue, context.environment))
        elif resolved.engine == "llama-server":
            server = pinned_server(context.catalogue, context.environment)
            artifacts += filter(None, [server and server.archive])
    needs = [plan_file(context.environment.cache, artifact) for artifact in artifacts]
    to_write = [file_plan.to_write for file_plan in needs if file_plan.state != "have"]
    free = disk_usage(files.nearest_existing_dir(context.environment.cache)).free
    return [
        health.check_disk(free, to_write, resolved.name),
        _memory(context, resolved, estimate_memory(resolved, needs)),
    ]


def _memory(
    context: Context, resolved: ResolvedModel, estimate: MemoryEstimate
) -> CheckResult:
    here = memory.total()
    remedy = ""
    if here < (estimate.needed or 0):
        smaller = _largest_that_fits(context, resolved.model.kind, here)
        remedy = memory_remedy(estimate, here, smaller)
    return health.check_memory(
        here, memory.available(), estimate.needed, resolved.name, remedy
    )


def _largest_that_fits(context: Context, kind: str, here: int) -> str:
    """Return the model of a kind that needs the most of this memory; "" if none."""
    needs: dict[str, int] = {}
    for name in context.catalogue.names:
        resolved = resolve_entry(name, context.catalogue, context.environment)
        if resolved.model.kind == kind:
            needs[name] = on_disk(context.environment.cache, resolved).memory or 0
    fitting = {name: need for name, need in needs.items() if 0 < need <= budget(here)}
    return max(fitting, key=fitting.__getitem__, default="")


def _port(cache: str, settings: ServeSettings) -> CheckResult:
    host = settings.host
    number = settings.port
    host, number = settings.host, settings.port
    address = f"{host}:{number}"
    if not number:
        address = f"some port of {host}"
    running = server_registry.running(cache)
    server = next((one.name for one in running if one.port == number), "")
    try:
        ports.free_port(host, number)
    except ServerError as error:
        return health.check_port(address, error.what, error.fix, server)
    return health.check_port(address, "", "")


def _network(resolved: ResolvedModel | None) -> dict[str, _Check]:
    host = "127.0.0.1"
    if resolved and resolved.settings.host:
        host = resolved.settings.host
    return {"hub": hub_findings, "proxy": partial(_proxy, host)}


def _proxy(host: str) -> list[CheckResult]:
    """Check NO_PROXY, if a proxy is set."""
    if not urls.no_proxy(os.environ, host):
        return []
    return [health.proxy(urls.needed_no_proxy(os.environ, host))]


def hub_findings(limit_s: float = probes.LOOK_S) -> list[CheckResult]:
    """Check that the Hub can be reached, unless the network is forbidden."""
    if variable := huggingface.offline(os.environ):
        return [
            CheckResult("hub", health.CheckState.OK, f"offline, as {variable} asks")
        ]
    from tasks.network import http

    endpoint = huggingface.endpoint(os.environ)
    try:
        answer = http.request(
            http.new_session(), "HEAD", endpoint, {}, hops=10, limit_s=limit_s
        )
    except TransferError as error:
        fatal = isinstance(error, http.PermanentTransferError)
        return [health.check_hub(endpoint, None, error.what, error.fix, fatal)]
    return [health.check_hub(endpoint, answer.status)]


def _report(found: list[CheckResult]) -> Report:
    """Return the table, the fixes, and the number of findings of each state."""
    rows = [{**one._asdict(), "state": one.state.value} for one in found]
    fixes: list[Fact | str] = []
    for one in found:
        if one.remedy:
            fixes.append(Fact(f"{one.check}: ", one.found))
            fixes.append(Fact("  fix: ", one.remedy))
    if fixes:
        fixes.insert(0, "")
    states = [one.state for one in found]
    counts = [f"{states.count(state)} {state.value}" for state in health.CheckState]
    return Report(_COLUMNS, rows, [*fixes, ", ".join(counts)])


def _style(row: Row) -> str:
    return {"ok": "green", "warn": "yellow", "fail": "bold red"}[row["state"]]


_COLUMNS = (
    Column("check", "check"),
    Column("state", "state", style=_style),
    Column("found", "found", least=10),
)
