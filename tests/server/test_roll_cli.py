"""`doit roll`: the servers of a model are restarted one by one, and no request is lost."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tasks.server.haproxy import Member, parse_servers

from tests.server.test_drain_cli import ANSWER, SLOW, asked
from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.haproxy import balancing, needs_haproxy
from tests.support.project import Project, wait_until
from tests.support.servers import engines, failed, port_of, rows, started, two_models

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
HEAD = "# pxname,svname,qcur,scur,status,addr,\n"
REQUESTS = int(os.environ.get("FLEET_REQUESTS", "200"))
TOKENS = int(os.environ.get("FLEET_TOKENS", "64"))  # of an answer
CLIENTS = 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEAD}b,r1,1,2,UP,127.0.0.1:81,\n", [Member("b", "r1", 81, 3, "UP")]),
        (f"{HEAD}b,r1,,0,no check,[::1]:81,\n", [Member("b", "r1", 81, 0, "no check")]),
        (f"{HEAD}b,r1,0,0,DOWN 1/2,10.0.0.1:81,\n", [Member("b", "r1", 81, 0, "DOWN 1/2")]),
        (f"{HEAD}b,r1,0,0,UP,,\n", []),  # a socket without a port
        (f"{HEAD}b;x,r1,0,0,UP,127.0.0.1:81,\n", []),
        (HEAD, []),
    ],
)
def test_servers_of_haproxy(text: str, expected: list[Member]) -> None:
    """Issue 17.3: by address, whatever their names are."""
    assert parse_servers(text) == expected


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


def ask(url: str, number: int, tokens: int) -> str:
    """Ask once, every second time for a stream; return how it ended."""
    host = url.removeprefix("http://")
    body = {
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": bool(number % 2),
    }
    link = http.client.HTTPConnection(host, timeout=600)
    try:
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = link.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__} {error}"
    finally:
        link.close()
    if response.status != 200:
        return f"status {response.status}"
    if body["stream"]:
        return "whole" if text.endswith("data: [DONE]\n\n") else "a stream that was cut"
    return "whole" if json.loads(text)["usage"]["completion_tokens"] == tokens else "a short answer"


@contextmanager
def load(url: str, tokens: int) -> Iterator[Counter[str]]:
    """Ask all the time while the block runs, and at least REQUESTS times."""
    ended: Counter[str] = Counter()
    numbers, lock, over = iter(range(10**9)), threading.Lock(), threading.Event()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers)
            if over.is_set() and number >= REQUESTS:
                return
            how = ask(url, number, tokens)
            with lock:
                ended[how] += 1

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield ended
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.fleet
@needs_haproxy
@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="no embedded engine")
def test_no_request_is_lost(servers: Project) -> None:
    """Issue 17.3: three servers are restarted behind haproxy, under load, half of it streams."""
    behave(servers)
    entry: dict[str, Any] = {
        **servers.entry("demo/demo.gguf", (servers.path / "demo" / "demo.gguf").read_bytes()),
        "engine": "embedded",
        "serve": {"parallel": 4, "ctx_size": 8192},
    }
    servers.catalogue({"demo": entry})
    made = servers.background("start", "--replicas", "3", "--port", "0", timeout=300)
    assert made.status == 0, made.err
    before = pids(servers)
    ports = [port_of(url) for url in made.out.splitlines()]
    with tempfile.TemporaryDirectory() as folder, balancing(Path(folder), ports[:2]) as (_, socket):
        said = failed(servers.background("roll", "--haproxy", socket))
        assert said.startswith(f"ERROR: haproxy at {socket} has no server on port {ports[2]}\n")
        assert pids(servers) == before
    with tempfile.TemporaryDirectory() as folder, balancing(Path(folder), ports) as (url, socket):
        with load(url, TOKENS) as ended:
            result = servers.background("roll", "demo", "--haproxy", socket, timeout=600)
        assert result.status == 0, result.err
        assert set(ended) == {"whole"}, ended
        assert ended["whole"] >= REQUESTS
    print(f"{ended['whole']} of {sum(ended.values())} answers of {TOKENS} tokens are whole")
    assert result.err.count(" is up for haproxy\n") == 3
    assert set(pids(servers)) == set(before)
    assert not set(pids(servers).values()) & set(before.values())
