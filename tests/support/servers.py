"""Helpers for tests of background servers: start them, read records and processes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tasks.server.run_folder import folder
from tasks.system import process_identity
from tasks.system.process_id import MARK_VARIABLE

from tests.fakes import llamafile
from tests.server.test_serve_cli import AS_BEFORE, behave, runs
from tests.support.project import Project, Result


def started(project: Project, *args: str, env: dict[str, str] | None = None) -> str:
    """Run `doit start ARGS`, which must succeed; return the URL, its only output."""
    result = project.background("start", *args, env=env)
    assert result.status == 0, result.err
    [url] = result.out.splitlines()
    assert url.startswith("http://")
    return url


def port_of(url: str) -> str:
    return url.rpartition(":")[2]


def failed(result: Result, status: int = 1) -> str:
    """Return the error of a command that failed, with nothing on stdout."""
    assert (result.status, result.out) == (status, ""), result
    return result.err[result.err.index("ERROR: ") :]


def engines(project: Project) -> list[dict[str, Any]]:
    """Return the runs of fake engines that were servers."""
    return [run for run in runs(project) if "--server" in run["argv"]]


def records(project: Project) -> list[Path]:
    return sorted(project.cache.glob("run/*/*.json"))


def record(project: Project, name: str = "m") -> dict[str, Any]:
    """Return the only record of a model."""
    [path] = project.cache.glob(f"run/*/{name}-*.json")
    return dict(json.loads(path.read_text()))


def rows(project: Project, *args: str) -> list[dict[str, Any]]:
    """Return the rows of `doit status --json`, whatever its exit status."""
    return list(json.loads(project.doit("status", "--json", *args).out))


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def two_models(project: Project, **top: Any) -> None:
    """Write a catalogue of the models `a` and `b`, each with a fake llamafile."""
    models = {}
    for name, version in (("a", "0.8.6"), ("b", "0.10.5")):
        data = llamafile.build(project.path / f"{name}.llamafile", version=version).read_bytes()
        models[name] = project.entry(f"{name}.llamafile", data, serve=AS_BEFORE)
    project.catalogue(models, **top)
    behave(project)


@contextmanager
def process(code: str = "", **env: str) -> Iterator[psutil.Popen]:
    """Start a Python process that runs until the test ends it."""
    words = [sys.executable, "-c", f"{code}\nprint(1, flush=True)\nimport time\ntime.sleep(600)"]
    environment = {"PATH": os.environ["PATH"], **env}
    with psutil.Popen(words, env=environment, stdout=-1) as running:
        try:
            running.stdout.readline()
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def known(pid: int, **changes: Any) -> dict[str, Any]:
    """Return a process in the form of a record; another `started` means another process."""
    if "started" in changes:
        changes.setdefault("start_ticks", 1)
    return {**process_identity.process(pid).as_record(), **changes}


def write_record(project: Project, port: int, *, mark: str = "0123456789abcdef", **changes: Any) -> Path:
    """Write a record of the model `m`, as a killed supervisor leaves it."""
    place = folder(str(project.cache))
    assert place is not None
    base = os.path.join(place, f"m-{port}")
    values = {
        "name": "m", "mode": "start", "host": "127.0.0.1", "port": port, "spec": {}, "command": [],
        "log": f"{base}.log", "mark": mark, "key": "", "state": "ready",
        "ready_s": 0.1, "ended": None, "ended_at": None, "engine": None, "keeper": None, "owner": 1,
    }  # fmt: skip
    path = Path(f"{base}.json")
    path.write_text(json.dumps({**values, **changes}))
    return path


def marked(project: Project, mark: str) -> dict[str, str]:
    """Return the environment of a process that an engine with that marker has started."""
    return {MARK_VARIABLE: mark, "HOME": project.env["HOME"]}
