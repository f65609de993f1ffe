"""`doit start --for NAME` and `doit stop --for NAME`: who needs a server."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import Project, wait_until
from tests.support.servers import failed, port_of, records, rows, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def test_the_last_one_stops_it(servers: Project) -> None:
    """Issue 18.4: a server that two projects share ends with the second one."""
    with_llamafile(servers)
    url = started(servers, "--port", "0", "--for", "shop")
    assert started(servers, "--for", "blog") == started(servers, "--for", "shop") == url
    result = servers.doit("stop", "--for", "shop")
    assert (result.status, result.err) == (0, f"m at {url} runs on: blog needs it\n")
    said = servers.doit("stop", "--for", "shop", "--json").out
    assert json.loads(said) == {"stopped": [], "not_running": []}
    assert [row["url"] for row in rows(servers)] == [url]
    result = servers.doit("stop", "--for", "blog", "--json")
    assert json.loads(result.out) == {"stopped": [{"model": "m", "url": url}], "not_running": []}
    assert servers.doit("stop", "--for", "blog").err == "nothing runs for blog\n"
    assert not list(servers.run_folder.glob("*.users"))


def test_a_server_without_a_name(servers: Project) -> None:
    """What a user has started stays until the user stops it, and `stop` needs no name."""
    with_llamafile(servers)
    url = started(servers, "--port", "0")
    assert started(servers, "--for", "shop") == url
    assert servers.doit("stop", "--for", "shop").err == "nothing runs for shop\n"
    assert [row["url"] for row in rows(servers)] == [url]
    assert servers.doit("stop").status == 0
    started(servers, "--port", "0", "--for", "shop")
    assert servers.doit("stop").status == 0
    assert (records(servers), list(servers.run_folder.glob("*.users"))) == ([], [])


def test_other_settings(servers: Project) -> None:
    """They replace a server on its port, unless another project needs it."""
    with_llamafile(servers)
    url = started(servers, "--port", "0", "--for", "shop")
    result = servers.background("start", "--ctx-size", "512", "--for", "shop")
    assert (result.status, result.out) == (0, f"{url}\n"), result.err
    assert "m changes --ctx-size: running " in result.err
    assert rows(servers)[0]["url"] == url
    started(servers, "--ctx-size", "512", "--for", "blog")
    said = failed(servers.background("start", "--for", "shop"))
    assert f"m is already running at {url}, with other settings" in said
    assert servers.doit("stop", "--port", port_of(url)).status == 0


@pytest.mark.parametrize("is_killed", [False, True])
def test_stop_while_it_starts(servers: Project, is_killed: bool) -> None:
    """`stop` waits for the start, as Compose's `down` beside an `up`; a killed one has left the name."""
    with_llamafile(servers)
    behave(servers, load_seconds=2)
    with servers.start("start", "--port", "0", "--for", "shop") as running:
        running.wait_for("starting m", 60)
        wait_until(lambda: list(servers.run_folder.glob("*.users")))
        if is_killed:
            os.kill(running.pid, signal.SIGKILL)
        result = servers.doit("stop", "--for", "shop")
    assert (result.status, rows(servers)) == (0, [])
    assert is_killed or "m has stopped" in result.err
    assert not list(servers.run_folder.glob("*.users"))


def test_a_file_that_names_no_users(servers: Project) -> None:
    """What cannot be a name is none: a record that somebody has edited, or a cut one."""
    with_llamafile(servers)
    started(servers, "--port", "0", "--for", "shop")
    [file] = servers.run_folder.glob("*.users")
    file.write_text(json.dumps(["a\x1b[31m\nb", 1, None, "shop"]), "utf-8")
    result = servers.doit("stop", "--for", "shop")
    assert (result.status, rows(servers)) == (0, [])
    assert "\x1b" not in result.err


@pytest.mark.parametrize(
    "words", [["start", "--for", ""], ["start", "--for", "a\nb"], ["stop", "--for", " "]]
)
def test_names(servers: Project, words: list[str]) -> None:
    with_llamafile(servers)
    result = servers.doit(*words)
    assert result.status == 3
    assert "ERROR: --for: expected a name of 1 to 200 characters, got " in result.err
