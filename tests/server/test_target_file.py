"""What Prometheus reads about a running server, and how long it can."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tasks.server.server_record import Mode, ServerRecord
from tasks.server.target_file import targets

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import Project, wait_until
from tests.support.servers import port_of, record, rows, started

ROUTER = {"--engine": "llama-server 11669", "models.a": "", "models.b": "", "keep": "b", "metrics": "true"}
A = {"__param_model": "a", "__param_autoload": "false", "loading": "on demand"}
B = {"__param_model": "b", "__param_autoload": "false"}
OFFICE = {"endpoint": "m", "engine": "llama-server", "version": "11669"}
ROWS: list[tuple[str, dict[str, str], list[tuple[str, dict[str, str]]]]] = [  # host, spec, (address, labels)
    ("127.0.0.1", {"--engine": "embedded 7"}, []),
    ("127.0.0.1", {"--engine": "embedded 7", "metrics": "false"}, []),
    ("127.0.0.1", {"--engine": "embedded 7", "metrics": "true"},
     [("127.0.0.1:80", {"model": "m", "engine": "embedded", "version": "7"})]),
    ("0.0.0.0", {"--engine": "self", "metrics": "true", "--variant": "q4"},
     [("127.0.0.1:80", {"model": "m", "engine": "self", "variant": "q4"})]),
    ("::1", {"metrics": "true"}, [("[::1]:80", {"model": "m"})]),
    ("127.0.0.1", ROUTER,
     [("127.0.0.1:80", {"model": "a", **OFFICE, **A}), ("127.0.0.1:80", {"model": "b", **OFFICE, **B})]),
]  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize(("host", "spec", "expected"), ROWS)
def test_targets(host: str, spec: dict[str, str], expected: list[tuple[str, dict[str, str]]]) -> None:
    """One for a server, one for each model of an endpoint; none without `metrics: true`."""
    server = ServerRecord("m", Mode.START, host, 80, spec, [], "", "", key="secret")
    found: list[Any] = targets(server)
    assert [(one["targets"], one["labels"]) for one in found] == [([url], labels) for url, labels in expected]


@pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
def test_as_long_as_the_record(servers: Project) -> None:
    """A server that ended by itself stays a target, so that Prometheus reports it; a stopped one does not."""
    with_llamafile(servers, version="0.10.5", serve={"metrics": True})
    result = servers.background("start", "--port", "0", env={"LLAMA_API_KEY": "secret"})
    url = result.out.strip()
    path = Path(servers.run_folder, f"m-{port_of(url)}.targets.yaml")
    assert f"\n  targets  {path}\n" in result.err
    [target] = json.loads(path.read_text())
    assert (target["targets"], target["labels"]["model"]) == ([url.removeprefix("http://")], "m")
    assert "secret" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    os.kill(record(servers)["engine"]["pid"], signal.SIGKILL)
    wait_until(lambda: record(servers)["state"] == "stopped")
    assert rows(servers)[0]["state"] == "stopped"
    assert servers.doit("stop").status == 0
    assert path.exists()
    assert servers.doit("stop", "m").status == 0
    assert not path.exists()
    other = Path(servers.run_folder, f"m-{port_of(started(servers, '--port', '0'))}.targets.yaml")
    assert other.exists()
    assert servers.doit("stop").status == 0
    assert not other.exists()
