"""`doit restart`: the same server again, with the settings of now."""

from __future__ import annotations

import os
import re

import pytest

from tests.server.test_serve_cli import ask, with_llamafile
from tests.support.project import Project
from tests.support.servers import failed, port_of, record, rows, started, two_models

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def test_the_settings_of_now(servers: Project) -> None:
    """Issue 14.5: another process on the same port; what changes is said."""
    with_llamafile(servers)
    url = started(servers, "--port", "0", "--ctx-size", "512")
    pid = record(servers)["engine"]["pid"]
    result = servers.background("restart")
    assert (result.status, result.out) == (0, f"{url}\n"), result.err
    assert "m changes --ctx-size: running 512, requested 0\n" in result.err
    lines = [line for line in result.err.splitlines() if re.search("stop|starting|is ready", line)]
    assert lines[0] == f"stopping m at {url}"
    assert lines[1] == "m has stopped"
    assert lines[2].startswith("starting m ")
    assert lines[3].startswith(f"m is ready at {url} after ")
    assert record(servers)["engine"]["pid"] != pid
    assert ask(url, "Hello") == "Hello"
    again = servers.background("restart", "--model", "m", "--ctx-size", "64")
    assert "m changes --ctx-size: running 0, requested 64\n" in again.err
    assert record(servers)["spec"]["--ctx-size"] == "64"
    last = servers.background("restart", "--", "--parallel", "2")
    assert last.status == 0, last.err
    assert record(servers)["command"][-2:] == ["--parallel", "2"]


def test_which_one(servers: Project) -> None:
    """Issue 14.5: one of several has to be chosen, by model or by port."""
    two_models(servers)
    first, second = (started(servers, "--model", name, "--port", "0") for name in "ab")
    said = failed(servers.background("restart"), 3)
    assert f"b, port {port_of(second)}, pid " in said
    assert f": doit restart --port {port_of(second)}\n" in said
    before = [row["pid"] for row in rows(servers)]
    assert servers.background("restart", "--port", port_of(first)).out == f"{first}\n"
    assert servers.background("restart:b").out == f"{second}\n"
    assert not {row["pid"] for row in rows(servers)} & set(before)
    assert {row["url"] for row in rows(servers)} == {first, second}


def test_nothing_to_restart(servers: Project) -> None:
    """Issue 14.5: without a server a named model is started, and no name is an error."""
    with_llamafile(servers)
    said = failed(servers.background("restart"), 3)
    assert said == "ERROR: there is no server to restart\n  fix: doit start --model NAME\n"
    result = servers.background("restart", "--model", "m", "--port", "0")
    assert result.status == 3  # no server has port 0
    assert servers.background("restart", "--model", "m").status == 0
    assert [row["state"] for row in rows(servers)] == ["ready"]


def test_the_server_stays_until_all_is_known_to_be_right(servers: Project) -> None:
    """Issue 14.5: a wrong setting, or a broken catalogue, leaves it as it is."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    pid = record(servers)["engine"]["pid"]
    assert servers.background("restart", "--ctx-size", "x").status == 3
    catalogue = servers.path / "models.yaml"
    text = catalogue.read_text()
    catalogue.write_text(text.replace('"default"', '"defualt"'))
    assert "did you mean default" in failed(servers.background("restart"), 3)
    catalogue.write_text(text)
    assert record(servers)["engine"]["pid"] == pid
    with servers.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        port = next(port_of(row["url"]) for row in rows(servers) if row["by"] == "doit serve")
        said = failed(servers.background("restart", "--port", port), 3)
        assert "runs in another terminal" in said
        assert servers.doit("stop", "--port", port).status == 0
        assert running.finish().status == 0
