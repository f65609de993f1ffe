"""A stop finishes the answers in progress; `doit idle` waits for them from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tasks.network.answers import requests_in_metrics
from tasks.server.drain import wait_idle

from tests.server.test_serve_cli import ask, behave, url_in, with_llamafile
from tests.support.ports import closed_port
from tests.support.project import Project, Running, wait_until
from tests.support.servers import (
    failed,
    known,
    marked,
    port_of,
    process,
    records,
    rows,
    started,
    write_record,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
ANSWER = " ".join(map(str, range(40)))
SLOW = {"answer": ANSWER, "token_seconds": 0.05}


@pytest.mark.parametrize(
    ("counts", "limit_s", "left"),
    [
        ([0, 0], 9, 0),
        ([2, 1, 0, 0], 9, 0),
        ([1, 0, 1, 0, 0], 9, 0),  # the next one had waited for the slot
        ([None], 9, None),  # the server does not tell
        ([1, None], 9, None),
        ([3], 0, 3),
    ],
)
def test_when_a_server_is_idle(counts: list[int | None], limit_s: float, left: int | None) -> None:
    """Issue 17.3: idle is what works on nothing, twice in a row."""
    looks = iter(counts)
    assert wait_idle(lambda: next(looks), limit_s) == left
    assert list(looks) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"# TYPE x\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n", 5),
        (b"llamacpp:requests_processing 0", 0),
        (b"llamacpp:requests_processing -1", None),
        (b"llamacpp:requests_processing 1\nllamacpp:requests_deferred nan", None),
        (b"other 1", None),
        (b"\xff", None),
    ],
)
def test_requests_in_metrics(text: bytes, count: int | None) -> None:
    """Issue 17.3: those in progress and those that wait; a page that does not say is unknown."""
    assert requests_in_metrics(text) == count


@contextlib.contextmanager
def asked(url: str) -> Iterator[Callable[[], str]]:
    """Ask a server in a thread; yield a function that waits for the answer."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(ask(url, "Hello")))
    thread.start()

    def answer() -> str:
        thread.join(90)
        return answers[0]

    yield answer
    thread.join(90)


@contextlib.contextmanager
def hanging(url: str) -> Iterator[None]:
    """Ask a server that never answers, until the block ends."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port_of(url)), timeout=60)
    with contextlib.closing(connection):
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        yield


def works(project: Project) -> None:
    """Wait until a server works on a request."""
    wait_until(lambda: [row.get("requests") for row in rows(project)] == [1])


def serve(project: Project, *args: str) -> Running:
    return project.start("serve", "--port", "0", *args)


@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
def test_a_signal_lets_answers_be_finished(project: Project, version: str) -> None:
    """Issue 17.3: SIGTERM ends `doit serve` after the last answer, and it says what it waits for."""
    with_llamafile(project, version=version)
    behave(project, **SLOW)
    with serve(project) as running:
        url = url_in(running.wait_for("stop     Ctrl-C"))
        with asked(url) as answer:
            works(project)
            running.send(signal.SIGTERM)
            running.wait_for("m finishes a request before it ends, for at most 20 s")
            assert answer() == ANSWER
        assert running.finish().status == 0


@pytest.mark.parametrize("args", [[], ["--drain", "0"], ["--drain", "1"]])
def test_an_answer_without_an_end(project: Project, args: list[str]) -> None:
    """Issue 17.3: a second signal ends it at once, and --drain after its seconds."""
    with_llamafile(project, version="0.10.5")
    behave(project, chat_hang=True)
    with serve(project, *args) as running:
        url = url_in(running.wait_for("stop     Ctrl-C"))
        with hanging(url):
            works(project)
            running.send(signal.SIGTERM)
            if not args:
                running.wait_for("m finishes a request")
                running.send(signal.SIGTERM)
            result = running.finish()
    assert result.status == 0
    assert ("finishes a request" in result.err) == (args != ["--drain", "0"])
    assert "m has stopped" in result.err


def test_stop(servers: Project) -> None:
    """Issue 17.3: `doit stop` waits as the server was started, or as it is told; again, it ends at once."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, **SLOW)
    url = started(servers, "--port", "0")
    with asked(url) as answer:
        works(servers)
        result = servers.doit("stop")
        assert answer() == ANSWER
    assert result.status == 0
    assert result.err.splitlines()[:2] == [
        f"stopping m at {url}",
        "m finishes a request before it ends, for at most 20 s; stop it again to end it at once",
    ]
    behave(servers, chat_hang=True)
    url = started(servers, "--port", "0")
    with hanging(url):
        works(servers)
        with servers.start("stop", "--drain", "600") as waiting:
            waiting.wait_for("for at most 10 min")
            wait_until(lambda: [row["state"] for row in rows(servers)] == ["stopping"])
            assert servers.doit("stop").status == 0
            assert waiting.finish().status == 0
    assert records(servers) == []
    url = started(servers, "--port", "0", "--drain", "600")
    with hanging(url):
        works(servers)
        result = servers.doit("stop", "--drain", "0")
    assert result.err.splitlines() == [f"stopping m at {url}", "m has stopped"]
    assert not [path for path in servers.run_folder.iterdir() if path.suffix == ".drain"]


@pytest.mark.parametrize("verb", ["start", "serve", "stop", "idle"])
def test_seconds_that_are_none(project: Project, verb: str) -> None:
    """Issue 17.3: a wrong number is an error before anything is done."""
    with_llamafile(project)
    option = "--timeout" if verb == "idle" else "--drain"
    said = failed(project.doit(verb, option, "1m"), 3)
    assert said == f"ERROR: {option}: expected seconds, 0 or more, got '1m'\n  fix: {option} 20\n"


def test_idle(servers: Project) -> None:
    """Issue 17.3: status 0 once nothing is in progress, 1 at the end of the time; for preStop."""
    with_llamafile(servers, version="0.10.5")
    assert (servers.doit("idle").status, servers.doit("idle").err) == (0, "nothing runs\n")
    behave(servers, chat_hang=True)
    url = started(servers, "--port", "0")
    assert servers.doit("idle", "--model", "m").status == 0
    with hanging(url):
        works(servers)
        result = servers.doit("idle", "--timeout", "0", "--json")
        assert result.status == 1
        assert result.err == f"m at {url} still works after 0 ms: 1\n"
        assert json.loads(result.out) == [{"model": "m", "url": url, "requests": 1}]
    assert servers.doit("idle", "--port", port_of(url)).status == 0
    assert servers.doit("stop").status == 0
    behave(servers, **SLOW)
    with asked(started(servers, "--port", "0")) as answer:
        works(servers)
        assert servers.doit("idle").status == 0
        assert [row["requests"] for row in rows(servers)] == [0]
        assert answer() == ANSWER


def test_an_engine_that_does_not_tell(servers: Project) -> None:
    """Issue 17.3: with --no-slots, its open connections are counted; a stop finishes the answers."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, no_slots=True, **SLOW)
    with asked(started(servers, "--port", "0")) as answer:
        wait_until(lambda: servers.doit("idle", "--timeout", "0").status == 1)
        stopped = servers.doit("stop")
        assert answer() == ANSWER
    assert "m finishes a request before it ends" in stopped.err
    started(servers, "--port", "0")
    assert json.loads(servers.doit("idle", "--json").out)[0]["requests"] == 0


def test_idle_of_a_server_that_does_not_listen(project: Project) -> None:
    """Issue 17.3: an error instead of `idle`, with commands for that server."""
    mark = "0123456789abcdef"
    with closed_port() as port, process(**marked(project, mark)) as running:
        mine = known(running.pid)
        write_record(project, port, mark=mark, engine=mine, keeper=mine)
        said = failed(project.doit("idle", "m"))
    assert said == (
        f"ERROR: m at http://127.0.0.1:{port} does not tell what it works on\n"
        f"  fix: `doit logs --port {port}` shows why, `doit restart --port {port}` starts it again\n"
    )


def test_stop_all(servers: Project) -> None:
    """Issue 17.3: all servers finish their answers at the same time."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, chat_hang=True)
    made = servers.background("start", "--replicas", "2", "--port", "0", "--drain", "600")
    first, second = made.out.splitlines()
    with hanging(first), hanging(second):
        wait_until(lambda: [row.get("requests") for row in rows(servers)] == [1, 1])
        with servers.start("stop", "--all") as waiting:
            wait_until(lambda: [row["state"] for row in rows(servers)] == ["stopping"] * 2)
            assert servers.doit("stop", "--all").status == 0
            result = waiting.finish()
    assert result.status == 0
    assert result.err.count("m finishes a request before it ends") == 2
    assert records(servers) == []


def test_idle_without_a_catalogue(project: Project) -> None:
    """Issue 17.3: an error in models.yaml does not keep a server from being drained."""
    (project.path / "models.yaml").write_text("models: [")
    result = project.doit("idle")
    assert result.status == 0
    assert result.err.endswith("nothing runs\n")


def test_an_earlier_record(servers: Project) -> None:
    """Issue 17.3: a record without `drain`, of an earlier version, is found and stopped."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    [path] = records(servers)
    data: dict[str, Any] = json.loads(path.read_text())
    assert data.pop("drain") == 20
    path.write_text(json.dumps(data))
    assert [row["state"] for row in rows(servers)] == ["ready"]
    assert servers.doit("stop").status == 0
