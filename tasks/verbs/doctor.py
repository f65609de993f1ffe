"""`doit doctor`: what on this machine would make downloading or serving fail, each with its remedy."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from shutil import disk_usage, which
from typing import Any

from tasks import doit_adapter
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

LIMIT_S = 25.0  # of all checks together, which run side by side; the slowest one takes four looks

_Check = Callable[[], Finding | list[Finding]]


def arguments(recipe: Recipe, ask: Ask) -> list[Any]:
    """Return the arguments of `run`: it looks with the needs of one model."""
    name = (ask.models or (recipe.catalogue.default,))[0]
    job = catalogued(name, recipe.catalogue, recipe.place)
    return [recipe, job, bool(ask.options.get("json"))]


def run(recipe: Recipe, job: Job, as_json: bool) -> None:
    """Print the report to stdout. Raises SystemExit: 1 where something fails."""
    cache = recipe.place.cache
    found = _findings({"cache": lambda: health.cache(cache, probes.unwritable(cache))})
    writable = found[0].state is health.State.OK
    checks = {**_machine(job), **(_programs(cache) if writable else {})}
    found += _findings({**checks, **_needs(recipe, job), **_network()})
    if as_json:
        rows = [{**one._asdict(), "state": one.state.value} for one in found]
        doit_adapter.show_json(rows)
    else:
        doit_adapter.show(*_report(found))
    if any(one.state is health.State.FAIL for one in found):
        raise SystemExit(1)


def _findings(checks: dict[str, _Check]) -> list[Finding]:
    """What all checks find, in order; one that breaks or hangs is a finding."""
    out: list[Finding] = []
    for name, what in probes.side_by_side(checks, LIMIT_S).items():
        bad = what is None or isinstance(what, BaseException)
        one = health.broken(name, what) if bad else what
        out += one if isinstance(one, list) else [one]
    return out


def _machine(job: Job) -> dict[str, _Check]:
    """Checks of the hardware, and of the package that the embedded engine needs."""
    machine = platform.machine()
    package: dict[str, _Check] = {"embedded": lambda: health.embedded(probes.version("xllamacpp"))}
    return {
        **(package if job.engine == "embedded" else {}),
        "cpu": lambda: health.cpu(machine, probes.avx(), sys.platform, probes.translated()),
        "gpu": lambda: health.gpu(probes.gpus(machine)),
    }


def _programs(cache: str) -> dict[str, _Check]:
    """Whether programs run, and locks hold, in a cache that can be written."""
    locks = os.path.join(cache, "locks")
    checks: dict[str, _Check] = {"engine": partial(_engine, cache)}
    return {**checks, "locks": lambda: health.locks(locks, probes.lock_problem(locks))}


def _engine(cache: str) -> list[Finding]:
    """One after the other, for each writes a program."""
    if sys.platform == "win32":
        ran = probes.run([sys.executable, "-c", f"print({health.WORD!r})"])
        return [health.engine(ran, sys.platform)]
    found = [
        health.engine(probes.tiny(cache, health.TINY_APE, "/bin/sh"), sys.platform),
        health.runnable("noexec", cache, probes.tiny(cache, health.TINY_SCRIPT)),
    ]
    loader = files.existing(os.environ.get("TMPDIR") or os.environ.get("HOME") or cache)
    if not which("ape"):  # its own loader, which an APE takes where there is one
        found.append(health.runnable("loader", loader, probes.tiny(loader, health.TINY_SCRIPT)))
    return found


def _needs(recipe: Recipe, job: Job) -> dict[str, _Check]:
    """Disk, memory and port, against what one model needs."""
    return {
        "disk": partial(_room, recipe, job),
        "port": partial(_port, job.settings.host or "127.0.0.1", job.settings.port or 0),
    }


def _room(recipe: Recipe, job: Job) -> list[Finding]:
    """Disk and memory, as `doit plan` sees them."""
    wanted = list(job.files)
    with suppress(UsageError):  # the catalogue does not say where it comes from
        wanted += [llamafile_exe(recipe.catalogue, recipe.place)] if job.engine == "llamafile" else []
    needs = [need_of(recipe.place.cache, artifact) for artifact in wanted]
    free = disk_usage(files.existing(recipe.place.cache)).free
    takes = memory_of(job, needs).needed
    return [
        health.disk(free, [need.to_write for need in needs if need.state != "have"], job.name),
        health.memory(memory.total(), memory.available(), takes, job.name),
    ]


def _port(host: str, number: int) -> Finding:
    what = fix = ""
    try:
        ports.free_port(host, number)
    except ServerError as error:
        what, fix = error.what, error.fix
    return health.port(f"{host}:{number}" if number else f"some port of {host}", what, fix)


def _network() -> dict[str, _Check]:
    """Checks of the network."""
    return {"hub": hub_findings}


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
    """The table, then what is to be done, then how many of each."""
    from rich.text import Text

    from tasks.console.tables import table

    colours = {health.State.OK: "green", health.State.WARN: "yellow", health.State.FAIL: "bold red"}
    rows = [[Text(one.check), Text(one.state.value, colours[one.state]), Text(one.found)] for one in found]
    lines: list[str] = [table(("check", "state", "found"), rows)]
    bad = [one for one in found if one.remedy]
    lines += [f"{one.check}: {one.found}\n  fix: {one.remedy}" for one in bad]
    counts = [f"{sum(one.state is state for one in found)} {state.value}" for state in health.State]
    return [*lines, ", ".join(counts)]
