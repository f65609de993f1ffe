"""Several servers of one model on one machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from tasks.server.replicas import first_of_each
from tasks.server.server_record import Mode

from tests.server.test_selection import server
from tests.server.test_serve_cli import ask, with_llamafile
from tests.support.ports import free_port
from tests.support.project import Project
from tests.support.servers import failed, port_of, records, rows, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
ONE, TWO, OTHER = server("m", 1), server("m", 2), server("x", 3)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1),
        ({"spec": {"--port": "2"}}, 1),
        ({"spec": {"--ctx-size": "9"}}, 2),
        ({"key": "sesame"}, 2),
        ({"mode": Mode.SERVE}, 2),
    ],
)
def test_what_a_replica_is(changes: dict[str, Any], count: int) -> None:
    """Issue 17.4: all but the port is equal, so that any of them may be asked."""
    kept = first_of_each([ONE, OTHER, replace(TWO, **changes)])
    assert [one.port for one in kept] == [1, 3, 2][: count + 1]


def test_another_port(servers: Project) -> None:
    """Issue 17.4: a requested port is another server; without one, the one that runs is meant."""
    with_llamafile(servers)
    first = started(servers, "--port", "0")
    port = str(free_port())
    second = started(servers, "--port", port)
    assert port_of(second) == port
    assert [row["url"] for row in rows(servers)] == [first, second]
    assert len({row["log"] for row in rows(servers)}) == 2
    assert started(servers) == first
    assert started(servers, "--port", port) == second
    said = failed(servers.background("start", "--port", port, "--ctx-size", "512"))
    assert f"ERROR: m is already running at {second}, with other settings\n" in said
    assert servers.doit("chat", "Hello").out == "Hello\n"
    assert "2 of m are running" in failed(servers.doit("stop", "m"), 3)
    assert "2 of m are running" in failed(servers.background("restart", "m"), 3)
    assert servers.background("restart", "--port", port).out == f"{second}\n"
    assert servers.doit("stop", "--port", port_of(first)).status == 0
    assert [row["url"] for row in rows(servers)] == [second]


def test_replicas(servers: Project) -> None:
    """Issue 17.4: as many as are asked for; those that run already stay."""
    with_llamafile(servers, top={"defaults": {"port": free_port()}})
    result = servers.background("start", "--replicas", "2", "--json")
    made = json.loads(result.out)
    assert [row["started"] for row in made] == [True, True]
    assert len({row["url"] for row in made}) == 2
    for row in made:
        assert ask(row["url"], "Hello") == "Hello"
    result = servers.background("start", "--replicas", "3")
    assert result.out.splitlines()[:2] == [row["url"] for row in made]
    assert result.err.count("m is already running at ") == 2
    assert [row["state"] for row in rows(servers)] == ["ready"] * 3
    assert servers.doit("idle").status == 0
    stopped = json.loads(servers.doit("stop", "--all", "--json").out)["stopped"]
    assert len(stopped) == 3
    assert records(servers) == []


def test_ports_of_replicas(servers: Project) -> None:
    """Issue 17.4: from --port upwards; a port that another program has is an error before any is started."""
    with_llamafile(servers)
    for words, said in (
        (["--replicas", "0"], "--replicas: expected a number from 1 to 99, got '0'\n  fix: --replicas 2\n"),
        (["--replicas", "3", "--port", "65534"], "--replicas 3: the last port would be 65536"),
    ):
        assert said in failed(servers.background("start", *words), 3)
    first = free_port()
    result = servers.background("start", "--replicas", "2", "--port", str(first))
    if result.status == 1:  # another program has the second port
        assert f"port {first + 1} is in use" in result.err
        assert records(servers) == []
        return
    assert [port_of(url) for url in result.out.splitlines()] == [str(first), str(first + 1)]
    assert result.err.count("stop     doit stop --model m --port ") == 2
