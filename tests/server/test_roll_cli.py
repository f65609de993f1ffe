"""`doit roll`: the servers of a model are restarted one by one, and no request is lost."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tasks.server.haproxy import Member, parse_servers
from tasks.server.nginx import parse_members, with_state
from tasks.system.ports import local_hosts

from tests.server.test_drain_cli import ANSWER, SLOW, asked, hanging
from tests.server.test_serve_cli import behave, with_llamafile
from tests.support import haproxy, nginx
from tests.support.balanced_load import WHOLE, load
from tests.support.ports import free_port, free_ports
from tests.support.project import Project, wait_until
from tests.support.servers import engines, failed, port_of, rows, started, two_models

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
HEAD = "# pxname,svname,qcur,scur,status,addr,\n"
Balancer = Callable[[Path, list[str], str], AbstractContextManager[tuple[str, list[str]]]]
REQUESTS = int(os.environ.get("FLEET_REQUESTS", "200"))
TOKENS = int(os.environ.get("FLEET_TOKENS", "64"))  # of an answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEAD}b,r1,1,2,UP,127.0.0.1:81,\n", [Member("b", "r1", 81, 3, "UP", "127.0.0.1")]),
        (f"{HEAD}b,r1,,0,no check,[::1]:81,\n", [Member("b", "r1", 81, 0, "no check", "::1")]),
        (f"{HEAD}b,r1,0,0,DOWN 1/2,10.0.0.1:81,\n", [Member("b", "r1", 81, 0, "DOWN 1/2", "10.0.0.1")]),
        (f"{HEAD}b,r1,0,0,UP,,\n", []),  # a socket without a port
        (f"{HEAD}b;x,r1,0,0,UP,127.0.0.1:81,\n", []),
        (HEAD, []),
    ],
)
def test_servers_of_haproxy(text: str, expected: list[Member]) -> None:
    """Issue 17.3: by address, whatever their names are."""
    assert parse_servers(text) == expected


@pytest.mark.parametrize(
    ("hosts", "local"),
    [
        (["127.0.0.1", "198.51.100.1"], {"127.0.0.1"}),
        (["127.0.0.1", "127.0.0.1", "localhost"], {"127.0.0.1", "localhost"}),
        (["198.51.100.1", "198.51.100.2"], set()),
        (["198.51.100.1", "198.51.100.1"], {"198.51.100.1"}),  # the machine of a container
        ([], set()),
    ],
)
def test_which_servers_are_of_this_machine(hosts: list[str], local: set[str]) -> None:
    """Issue 17.3: those of other machines have the same ports, and are not drained."""
    assert local_hosts(hosts) == local


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty answer"),
        ("Permission denied\n", "Permission denied"),
        (f"{HEAD}b,r1,x,y,UP,127.0.0.1:81,\n", "invalid literal"),
    ],
)
def test_what_haproxy_does_not_say(text: str, said: str) -> None:
    """Issue 17.3: any other answer is an error."""
    with pytest.raises(ValueError, match=said):
        parse_servers(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server 127.0.0.1:81;\n", "server 127.0.0.1:81 down;\n"),
        ("  server [::1]:81 weight=2 ; # r1\n", "  server [::1]:81 weight=2 down; # r1\n"),
        ("server a.lan:81 down backup;", "server a.lan:81 backup down;"),
        ("server 127.0.0.1:81;\nserver 127.0.0.1:810;", "server 127.0.0.1:81 down;\nserver 127.0.0.1:810;"),
        ("# server 127.0.0.1:81;\nserver {\n  listen 127.0.0.1:81;\n}", None),
        ("server unix:/s;\nserver 127.0.0.1;\nserver_name a:81;", None),
    ],
)
def test_servers_of_nginx(text: str, expected: str | None) -> None:
    """Issue 17.3: those on a port are down, and nothing else changes; and back."""
    titles = [one.title for one in parse_members(text) if one.port == 81]
    assert len(titles) == (expected is not None)
    down = with_state(text, titles, down=True)
    assert down == (expected or text)
    assert with_state(down, titles, down=True) == down
    assert with_state(down, titles, down=False) == (expected or text).replace(" down", "")


def pids(project: Project) -> dict[str, int]:
    return {row["url"]: row["pid"] for row in rows(project)}


def test_one_by_one(servers: Project) -> None:
    """Issue 17.3: other processes on the same ports; an answer in progress is finished first."""
    two_models(servers)
    assert failed(servers.background("roll"), 3).startswith("ERROR: there is no server to roll\n")
    behave(servers, **SLOW)
    made = servers.background("start", "--model", "b", "--replicas", "2", "--port", "0")
    assert made.status == 0, made.err
    before = pids(servers)
    with asked(next(iter(before))) as answer:
        wait_until(lambda: sum(row["requests"] for row in rows(servers)) == 1)
        result = servers.background("roll", "--", "--parallel", "2")
        assert answer() == ANSWER
    assert result.status == 0, result.err
    ports = sorted(before, key=lambda url: int(port_of(url)))
    assert result.out.splitlines() == ports
    steps = [line for line in result.err.splitlines() if line.startswith(("stopping", "b is ready"))]
    assert [line.split()[:3] for line in steps] == [["stopping", "b", "at"], ["b", "is", "ready"]] * 2
    after = pids(servers)
    assert [run["argv"][-2:] for run in engines(servers)[-2:]] == [["--parallel", "2"]] * 2
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    started(servers, "--model", "a", "--port", "0")
    assert "2 are running" in failed(servers.background("roll"), 3)
    assert failed(servers.background("roll", "b", "--ctx-size", "x"), 3)


def test_haproxy_that_is_not_there(servers: Project, tmp_path: Path) -> None:
    """Issue 17.3: an error before anything is stopped."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    before = pids(servers)
    said = failed(servers.background("roll", "--haproxy", "none.sock"))
    path = servers.path / "none.sock"
    assert said.startswith(f"ERROR: haproxy does not answer at {path}: No such file or directory\n")
    assert pids(servers) == before


def test_nginx_that_cannot_be_told(servers: Project, tmp_path: Path) -> None:
    """Issue 17.3: an error before anything is stopped."""
    with_llamafile(servers)
    port = port_of(started(servers, "--port", "0"))
    before = pids(servers)
    conf, pid = servers.path / "servers.conf", servers.path / "nginx.pid"
    conf.write_text("server 127.0.0.1:81;\n")
    words = ["roll", "--nginx", "servers.conf", "--nginx-pid", "nginx.pid"]
    said = failed(servers.background("roll", "--nginx", "none"))
    assert said.startswith(f"ERROR: cannot read {servers.path / 'none'}: No such file or directory\n")
    said = failed(servers.background(*words))
    assert said.startswith(
        f"ERROR: {conf} has no server on port {port} of this machine\n  servers: 127.0.0.1:81\n"
    )
    conf.write_text(f"server 127.0.0.1:{port};\n")
    for text in ("", "x", str(os.getpid())):  # of another program
        pid.write_text(text)
        said = failed(servers.background(*words))
        assert said.startswith(f"ERROR: no nginx runs with the pid file {pid}\n")
    said = failed(servers.background(*words, "--haproxy", "x"), 3)
    assert said.startswith("ERROR: --haproxy or --nginx, not both\n")
    assert pids(servers) == before


@nginx.needs_nginx
def test_a_server_that_stays_busy(servers: Project) -> None:
    """Issue 17.3: after --wait it is not stopped, and nginx sends requests to it again."""
    with_llamafile(servers)
    behave(servers, chat_hang=True)
    port = port_of(started(servers, "--port", "0"))
    before = pids(servers)
    with tempfile.TemporaryDirectory() as folder, nginx.balancing(Path(folder), [port]) as (url, words):
        with hanging(url):
            wait_until(lambda: [row["requests"] for row in rows(servers)] == [1])
            said = failed(servers.background("roll", *words, "--wait", "0"))
        assert said.startswith("ERROR: nginx still has requests of before after 0 ms; ")
        assert said.endswith(f"port {port} was not stopped\n  fix: allow more time with --wait SECONDS\n")
        assert Path(words[1]).read_text() == f"server 127.0.0.1:{port};\n"
    assert pids(servers) == before


@pytest.mark.fleet
@pytest.mark.parametrize(
    "balancer",
    [
        pytest.param(
            lambda folder, _, text: haproxy.deployed(folder, text), marks=haproxy.needs_haproxy, id="haproxy"
        ),
        pytest.param(
            lambda folder, ports, _: nginx.balancing(folder, ports), marks=nginx.needs_nginx, id="nginx"
        ),
    ],
)
@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="no embedded engine")
def test_no_request_is_lost(servers: Project, balancer: Balancer) -> None:
    """Issue 17.3: three servers are restarted behind a load balancer, under load, half of it streams.

    haproxy.cfg is that of `doit deploy`.
    """
    behave(servers)
    entry: dict[str, Any] = {
        **servers.entry("demo/demo.gguf", (servers.path / "demo" / "demo.gguf").read_bytes()),
        "engine": "embedded",
        "serve": {"parallel": 4, "ctx_size": 8192},
    }
    numbers = free_ports(3)
    deploy = {"models": {"demo": {"replicas": 3, "port": numbers[0], "balance": free_port()}}}
    servers.catalogue({"demo": entry}, deploy=deploy)
    for verb in ("lock", "deploy:balancer"):
        assert servers.doit(verb).status == 0
    text = (servers.path / "deploy" / "haproxy.cfg").read_text()
    ports = [str(number) for number in numbers]
    made = servers.background("start", "--replicas", "3", "--port", ports[0], timeout=300)
    assert made.status == 0, made.err
    before = pids(servers)
    with tempfile.TemporaryDirectory() as folder, balancer(Path(folder), ports, text) as (url, words):
        with load(url, REQUESTS, TOKENS) as answers:
            result = servers.background("roll", "demo", *words, timeout=600)
        assert result.status == 0, result.err
        ended = Counter(answer.how for answer in answers)
        assert set(ended) == {WHOLE}, ended
        assert ended[WHOLE] >= REQUESTS
    assert result.err.count(" is up for ") == 3
    assert set(pids(servers)) == set(before)
    assert not set(pids(servers).values()) & set(before.values())
