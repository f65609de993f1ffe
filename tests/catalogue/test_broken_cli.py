"""A broken models.yaml or models.lock stops nothing that does not need it."""

from __future__ import annotations

import json
import os

import pytest

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import Project
from tests.support.servers import failed, rows, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

BROKEN = [
    ("models.yaml", '{"version": 1', "models.yaml is not YAML: "),
    ("models.yaml", "version: 1\ndefault: mien\n", "models.yaml has "),
    ("models.yaml", None, "cannot read the catalogue "),
    ("models.lock", "version: [", "models.lock is not YAML: "),
]


def break_catalogue(project: Project, name: str, text: str | None) -> None:
    path = project.path / name
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)


@pytest.mark.parametrize(("name", "text", "said"), BROKEN)
def test_a_running_server(servers: Project, name: str, text: str | None, said: str) -> None:
    """Issue 14.4: it is seen, asked and stopped; one line of stderr says what is wrong."""
    with_llamafile(servers)
    url = started(servers, "--port", "0")
    right = (servers.path / "models.yaml").read_text()
    break_catalogue(servers, name, text)
    for words, out in (
        (["status"], url),
        (["status", "--model", "m", "--json"], url),
        (["logs", "--model", "m"], "server listening"),
        (["chat", "Hello"], "Hello\n"),
        (["prune", "--dry-run"], "catalogue not checked: "),
        (["stop", "--model", "m"], ""),
        (["stop"], ""),
    ):
        result = servers.doit(*words)
        assert (result.status, out in result.out) == (0, True), (words, result)
        lines = [line for line in result.err.splitlines() if line.startswith("warning: ")]
        assert len(lines) == 1, result.err
        assert said in lines[0]
        assert lines[0].endswith("; `doit catalogue` shows the whole error")
    shown = failed(servers.doit("catalogue"), 3)
    assert said in shown
    assert failed(servers.doit("chat", "Hello"), 3) == shown
    assert failed(servers.doit("start"), 3) == shown
    assert failed(servers.doit("prune"), 3) == shown
    (servers.path / "models.yaml").write_text(right)
    (servers.path / "models.lock").unlink(missing_ok=True)


def test_events(project: Project) -> None:
    """LLAMAFILE_LOG=json: the line is an event."""
    break_catalogue(project, *BROKEN[1][:2])
    result = project.doit("status", env={"LLAMAFILE_LOG": "json"})
    assert result.status == 1
    events = [json.loads(line) for line in result.err.splitlines()]
    [event] = [one for one in events if one["level"] != "info"]
    assert (event["event"], event["level"]) == ("catalogue_error", "warning")


def test_nothing_is_taken_for_unneeded(servers: Project) -> None:
    """Issue 14.4: which files the catalogue needs is not known, so all of them are kept."""
    with_llamafile(servers)
    assert servers.doit("download").status == 0
    break_catalogue(servers, *BROKEN[1][:2])
    result = servers.doit("prune", "--dry-run", "--json")
    assert result.status == 0, result.err
    facts = json.loads(result.out)
    assert [row["path"] for row in facts["removed"] if row["path"].startswith(("models/", "engines/"))] == []
    assert facts["not_asked"] == [f"{servers.path}/models.yaml, which has an error"]


def test_doctor(servers: Project) -> None:
    """Issue 14.4: the machine is checked, and the catalogue is a finding."""
    with_llamafile(servers)
    break_catalogue(servers, *BROKEN[1][:2])
    result = servers.doit("doctor", "--json", env={"LLAMAFILE_OFFLINE": "1"})
    assert result.status == 1
    found = {row["check"]: row for row in json.loads(result.out)}
    assert found["catalogue"]["state"] == "fail"
    assert found["catalogue"]["remedy"] == "`doit catalogue` shows each error"
    assert {"cache", "cpu", "engine", "locks"} <= found.keys()
    assert rows(servers) == []
