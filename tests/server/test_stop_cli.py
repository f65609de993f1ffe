"""`doit stop` and `doit status`: what runs, whether it may be asked, and that it is really gone; never a
stranger's process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from tests.server.test_serve_cli import ask, behave, with_llamafile
from tests.support.ports import free_port
from tests.support.project import Project, wait_until
from tests.support.servers import (
    alive,
    engines,
    failed,
    known,
    marked,
    port_of,
    process,
    record,
    records,
    rows,
    started,
    two_models,
    write_record,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def test_stop(servers: Project) -> None:
    """Issue 4.2: engine and supervisor have ended, the port is free, there is no record."""
    with_llamafile(servers)
    url = started(servers, "--port", "0")
    result = servers.doit("stop")
    assert (result.status, result.out) == (0, "")
    assert result.err.splitlines() == [f"stopping m at {url}", "m has stopped"]
    assert servers.processes() == []
    assert records(servers) == []
    with socket.create_server(("127.0.0.1", int(port_of(url)))):
        pass
    for words in (["status", "--model", "m"], ["status"]):
        result = servers.doit(*words)
        assert result.status == 1
        assert ("stopped" if "m" in words else "nothing runs") in result.out
    assert rows(servers, "--model", "m") == [{"model": "m", "state": "stopped"}]
    assert rows(servers) == []


def test_start_and_stop_for_programs(servers: Project) -> None:
    """Issue 14.8: an object on stdout says what was started, what ran already, and what was stopped."""
    with_llamafile(servers)
    words = ["start", "--port", "0", "--json"]
    first, again = (json.loads(servers.background(*words).out) for _ in range(2))
    [row] = rows(servers)
    facts = {name: row[name] for name in ("model", "url", "engine", "log")}
    facts["id"] = "m"
    assert first == {**facts, "started": True}
    assert again == {**facts, "started": False}
    stopped = [{"model": "m", "url": row["url"]}]
    for found, absent in ((stopped, []), ([], ["m"])):
        result = servers.doit("stop", "--model", "m", "--json")
        assert (result.status, json.loads(result.out)) == (0, {"stopped": found, "not_running": absent})


def test_nothing_to_stop(servers: Project) -> None:
    """Issue 4.2: without a server `doit stop` reports that, with status 0."""
    with_llamafile(servers)
    for words, said in (
        (["stop"], "nothing runs"),
        (["stop", "--all"], "nothing runs"),
        (["stop", "--model", "M"], "m does not run"),
        (["stop:m"], "m does not run"),
    ):
        result = servers.doit(*words)
        assert (result.status, result.out, result.err) == (0, "", f"{said}\n")


@pytest.mark.parametrize("words", [["stop", "--model", "tiny"], ["status:tiny"], ["logs", "--model", "tiny"]])
def test_a_name_that_nothing_has(servers: Project, words: list[str]) -> None:
    """R14: an unknown model is an error that names the nearest spelling."""
    with_llamafile(servers)
    servers.catalogue({"tinyllama": servers.entry("m.llamafile")})
    result = servers.doit(*words)
    assert (result.status, result.out) == (3, "")
    assert result.err.startswith("ERROR: there is no model 'tiny' in ")
    assert "did you mean tinyllama?" in result.err


def test_which_one(servers: Project) -> None:
    """Issue 4.2: where several run one has to be named, or all of them."""
    two_models(servers)
    first, second = (started(servers, "--model", name, "--port", "0") for name in "ab")
    pids = [record(servers, name)["engine"]["pid"] for name in "ab"]
    ports = [port_of(url) for url in (first, second)]
    said = failed(servers.doit("stop"), 3)
    assert said.splitlines() == [
        "ERROR: `doit stop` is for one server, and 2 are running",
        *(
            f"  {name}, port {port}, pid {pid}: doit stop --port {port}"
            for name, port, pid in zip("ab", ports, pids, strict=True)
        ),
        "  fix: doit stop --all",
    ]
    said = failed(servers.doit("chat", "Hello"), 3)
    assert said.startswith("ERROR: `doit chat` is for one server, and 2 are running\n")
    assert f": doit chat --port {ports[1]}\n" in said
    result = servers.doit("stop", "--model", "B")
    assert result.err.splitlines() == [f"stopping b at {second}", "b has stopped"]
    assert ask(first, "still there") == "still there"
    started(servers, "--model", "b", "--port", "0")
    result = servers.doit("stop", "--all")
    assert result.status == 0
    assert sorted(re.findall(r"^(.) has stopped$", result.err, re.MULTILINE)) == ["a", "b"]
    assert servers.processes() == []


def test_two_files_of_one_name(servers: Project) -> None:
    """Issue 14.5: each has its own server, which its path names; the second one's command has the port."""
    two_models(servers)
    paths = []
    for folder in ("x", "y"):
        (servers.path / folder).mkdir()
        shutil.copy2(servers.path / "a.llamafile", servers.path / folder / "own.llamafile")
        paths.append(os.path.join(folder, "own.llamafile"))
    urls = [started(servers, paths[0], "--port", "0")]
    second = servers.background("start", paths[1], "--port", "0")
    urls += second.out.splitlines()
    assert f"\n  stop     doit stop --model own --port {port_of(urls[1])}\n" in second.err
    again = servers.background("start", paths[1])
    assert (again.status, again.out) == (0, f"{urls[1]}\n"), again.err
    assert [row["url"] for row in rows(servers, paths[1])] == [urls[1]]
    assert "of own are running" in failed(servers.doit("stop", "own"), 3)
    third = servers.background("start", paths[0], "--port", "0", "--ctx-size", "99")
    assert f"fix: doit stop --model own --port {port_of(urls[0])}\n" in failed(third)
    stopped = servers.doit("stop", str(servers.path / paths[0]))
    assert stopped.err.splitlines()[0] == f"stopping own at {urls[0]}"
    assert ask(urls[1], "still there") == "still there"
    assert servers.doit("chat", paths[1], "Hello").out == "Hello\n"
    assert servers.background("restart", "own").out == f"{urls[1]}\n"
    assert servers.doit("stop", paths[0]).err == "own does not run\n"


def test_one_that_does_not_listen(servers: Project) -> None:
    """Issue 4.2, 4.3, R27: it ignores SIGINT and SIGTERM and is killed; until then it is `stopping`."""
    with_llamafile(servers)
    behave(servers, ignore_sigint=True, ignore_sigterm=True)
    started(servers, "--port", "0")
    pid = record(servers)["engine"]["pid"]
    with subprocess.Popen([servers.doit_program, "stop"], cwd=servers.path, env=servers.env) as stop:
        wait_until(lambda: record(servers)["state"] == "stopping")
        [row] = rows(servers)  # it has ten seconds
        assert row["state"] == "stopping"
        assert alive(pid)
        assert stop.wait(60) == 0
    assert not alive(pid)
    assert records(servers) == []


def test_two_stops_at_the_same_moment(servers: Project) -> None:
    """Issue 4.2: two `doit stop` at once both succeed."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, stop_seconds=2)
    started(servers, "--port", "0")
    words = [servers.doit_program, "stop", "--model", "m"]
    both = [
        subprocess.Popen(words, cwd=servers.path, env=servers.env, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(one.communicate(timeout=60)[1], one.returncode) for one in both]
    assert [status for _, status in ended] == [0, 0], ended
    assert "Traceback" not in str(ended)
    assert servers.processes() == []
    assert records(servers) == []


def test_stop_of_one_that_loads(servers: Project) -> None:
    """Issue 4.2, 4.3: a server is on record from its start: `starting`, and it can be stopped."""
    with_llamafile(servers)
    behave(servers, load_seconds=60)
    with servers.start("start", "--port", "0") as running:
        running.wait_for("starting m")
        wait_until(lambda: records(servers) and record(servers)["engine"])
        status = servers.doit("status")
        assert status.status == 1
        assert " starting " in status.out
        assert servers.doit("stop").status == 0
        result = running.finish()
    assert (result.status, result.out) == (1, "")
    assert "ERROR: m was stopped before it was ready\n" in result.err
    assert records(servers) == []
    assert servers.processes() == []


def test_status(servers: Project) -> None:
    """Issue 4.3: a table for people, an object for each server for programs; status 0: all are ready."""
    two_models(servers)
    first, second = (started(servers, "--model", name, "--port", "0") for name in "ab")
    result = servers.doit("status")
    assert result.status == 0
    titles, *lines = result.out.splitlines()
    assert titles.split() == [
        *("model", "state", "endpoint", "pid", "uptime", "memory", "requests", "engine")
    ]
    for line, (name, url, engine) in zip(
        lines, [("a", first, "self 0.8.6"), ("b", second, "self 0.10.5")], strict=True
    ):
        pid = record(servers, name)["engine"]["pid"]
        assert re.match(rf"{name} +ready +{url} +{pid} +[\d.]+ m?s +[\d.]+ MB .*{engine}$", line.rstrip()), (
            line
        )
    for words in ([], ["--model", "a", "--model", "b"], ["--model", "a"]):
        assert servers.doit("status", *words).status == 0
    found = rows(servers)
    assert [row["model"] for row in found] == ["a", "b"]
    row = found[0]
    assert {k: v for k, v in row.items() if k not in ("uptime_s", "memory", "log", "pid")} == {
        "model": "a", "by": "doit start", "state": "ready", "url": first, "requests": 0,
        "engine": "self 0.8.6",
    }  # fmt: skip
    assert 0 <= row["uptime_s"] < 600
    assert row["memory"] > 1_000_000
    assert row["pid"] == record(servers, "a")["engine"]["pid"]
    assert os.path.exists(row["log"])


def test_status_of_one_and_of_another(servers: Project) -> None:
    """Issue 4.3: the exit status is about what was asked for: here one of two does not run."""
    two_models(servers)
    started(servers, "--model", "a", "--port", "0")
    assert servers.doit("status", "--model", "a").status == 0
    assert servers.doit("status:a", "--json").status == 0
    assert servers.doit("status").status == 0
    result = servers.doit("status", "--model", "a", "--model", "b")
    assert result.status == 1
    assert re.search(r"^b +stopped *$", result.out, re.MULTILINE)
    assert servers.doit("status:b").status == 1


@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
def test_requests_in_flight(servers: Project, version: str) -> None:
    """Issue 4.3: how many requests the engine works on, as its version tells, also where it wants a key."""
    with_llamafile(servers, version=version)
    behave(servers, chat_hang=True)
    url = started(servers, "--port", "0", "--api-key", "sesame")
    assert [row["requests"] for row in rows(servers)] == [0]
    body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sesame"}
    connection = http.client.HTTPConnection("127.0.0.1", int(port_of(url)), timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", body, headers)
        wait_until(lambda: rows(servers)[0]["requests"] == 1)


def test_status_of_a_server_that_hangs(servers: Project) -> None:
    """Issue 4.3: a ready server that stops answering is `unhealthy` until it answers."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    pid = record(servers)["engine"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        result = servers.doit("status")
        assert result.status == 1
        assert " unhealthy " in result.out
        assert [row["state"] for row in rows(servers)] == ["unhealthy"]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: rows(servers)[0]["state"] == "ready")


def test_a_server_in_another_terminal(servers: Project) -> None:
    """Issue 4.2, 4.3: `doit serve` is seen, and may be stopped: it ends in order."""
    with_llamafile(servers)
    with servers.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        [row] = rows(servers)
        assert (row["by"], row["state"]) == ("doit serve", "ready")
        assert servers.doit("stop").status == 0
        assert running.finish().status == 0
    assert records(servers) == []


def test_one_model_in_two_ways(servers: Project) -> None:
    """Issue 14.5: `doit start` beside `doit serve` of the same model; `doit stop` never ends two for one."""
    with_llamafile(servers, top={"defaults": {"port": free_port()}})
    with servers.start("serve") as running:
        running.wait_for("stop     Ctrl-C")
        started(servers)
        assert [(row["by"], row["state"]) for row in rows(servers)] == [
            ("doit serve", "ready"),
            ("doit start", "ready"),
        ]
        ports = [str(port_of(row["url"])) for row in rows(servers)]
        for words in (["stop"], ["stop", "--model", "m"], ["logs"], ["chat", "Hello"]):
            said = failed(servers.doit(*words), 3)
            assert f"ERROR: `doit {words[0]}` is for one server, and 2 of m are running" in said
        for words, status in ((["status"], 0), (["logs"], 0), (["chat", "Hello"], 0), (["stop"], 0)):
            result = servers.doit(words[0], "--port", ports[1], *words[1:])
            assert result.status == status, result
        [row] = rows(servers)
        assert (row["by"], row["state"]) == ("doit serve", "ready")
        for words, status, text in (
            (["stop"], 0, f"nothing runs on port {ports[1]}"),
            (["status"], 1, f"nothing runs on port {ports[1]}"),
            (["chat", "Hello"], 3, f"no server is ready on port {ports[1]}"),
        ):
            result = servers.doit(words[0], "--port", ports[1], *words[1:])
            assert (result.status, text in result.out + result.err) == (status, True), result
        started(servers, "--port", "0")
        assert servers.doit("stop", "--model", "m", "--all").status == 0
        assert running.finish().status == 0
    assert servers.processes() == []


def test_the_engine_is_killed_and_its_child_has_left(servers: Project) -> None:
    """Issue 4.2, 4.5: an engine's descendants end with it, in any session."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    run = record(servers)
    with process("import os; os.setsid()", **marked(servers, run["mark"])) as child:
        os.kill(run["engine"]["pid"], signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    wait_until(lambda: not servers.processes())
    assert [row["state"] for row in rows(servers)] == ["stopped"]


def test_the_engine_is_killed(servers: Project) -> None:
    """Issue 4.3: record and log of a crashed server stay until the next start."""
    with_llamafile(servers, version="0.10.5")
    started(servers, "--port", "0")
    os.kill(record(servers)["engine"]["pid"], signal.SIGKILL)
    wait_until(lambda: not servers.processes())
    result = servers.doit("status")
    assert result.status == 1
    assert re.search(r"^m +stopped \(signal 9 \(SIGKILL\), .* ago\)", result.out, re.MULTILINE), result.out
    [row] = rows(servers)
    assert (row["state"], row["ended"]) == ("stopped", -signal.SIGKILL)
    assert time.time() - 600 < row["ended_at"] <= time.time()
    for words in ([], ["--model", "m"]):
        shown = servers.doit("logs", *words)
        assert shown.status == 0
        assert "server is listening on" in shown.out
    stopped = servers.doit("stop")
    assert (stopped.status, stopped.err) == (0, "nothing runs\n")
    url = started(servers, "--port", "0")
    assert ask(url, "again") == "again"
    assert [row["state"] for row in rows(servers)] == ["ready"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the next start ends the engine")
def test_the_keeper_is_killed(servers: Project) -> None:
    """Issue 4.10: on Linux its engine goes with it; what is left on record hinders nothing."""
    usual = free_port()
    with_llamafile(servers, top={"defaults": {"port": usual}})
    started(servers)
    os.kill(record(servers)["keeper"]["pid"], signal.SIGKILL)
    wait_until(lambda: not servers.processes())
    assert [row["state"] for row in rows(servers)] == ["stopped"]
    assert port_of(started(servers)) == str(usual)
    assert len(records(servers)) == 1


def test_the_keeper_of_a_group_is_killed(servers: Project) -> None:
    """Issue 4.2, 4.10: what the engine had started is left, on its port; the next start ends it."""
    with_llamafile(servers)
    behave(servers, fork=True)
    url = started(servers, "--port", "0")
    run = record(servers)
    [child] = psutil.Process(run["engine"]["pid"]).children()
    os.kill(run["keeper"]["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(run["keeper"]["pid"]))
    behave(servers)
    assert started(servers, "--port", port_of(url)) == url
    assert not alive(child.pid)


LISTEN = "import socket; taken = socket.create_server(('127.0.0.1', {}))"


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_an_engine_that_was_left(servers: Project, verb: str) -> None:
    """Issue 4.2, 4.10: without parent-death signals (macOS), the next start or stop ends the engine."""
    port, mark = free_port(), os.urandom(8).hex()
    with_llamafile(servers, top={"defaults": {"port": port}})
    with process(LISTEN.format(port), **marked(servers, mark)) as left:
        gone = known(os.getpid(), started=1.0)
        write_record(servers, port, mark=mark, engine=known(left.pid), keeper=gone)
        assert rows(servers)[0]["state"] == "stopped"
        assert alive(left.pid)
        result = servers.background(verb)
        assert f"ending m (pid {left.pid}), left over by a recipe that was killed" in result.err
        assert left.wait(60) == -signal.SIGKILL
    assert result.status == 0, result.err
    assert len(records(servers)) == (verb == "start")


STALE = [
    pytest.param({"started": 1.0}, id="the pid was used again"),
    pytest.param({"boot": "another"}, id="the machine was started anew"),
    pytest.param({"space": "pid:[1]"}, id="another container's"),
]


@pytest.mark.parametrize("change", STALE)
@pytest.mark.parametrize("verb", ["start", "stop"])
def test_no_stranger_is_killed(servers: Project, verb: str, change: dict[str, object]) -> None:
    """Issue 4.2, 4.3: a process that reuses a recorded pid is not ended."""
    with_llamafile(servers)
    with process() as stranger:
        other = known(stranger.pid, **change)
        path = write_record(servers, 1, engine=other, keeper=other)
        assert all(row["state"] == "stopped" for row in rows(servers))
        assert servers.doit("status").status == 1
        if verb == "start":
            url = started(servers, "--port", "0")
            assert ask(url, "Hello") == "Hello"
        for words in (["stop", "--model", "m"], ["stop", "--all"]):
            assert servers.doit(*words).status == 0
        assert alive(stranger.pid)
        assert stranger.poll() is None
        assert path.exists() is ("space" in change)


def test_a_record_that_is_none(servers: Project) -> None:
    """Issue 4.2: an invalid record is ignored."""
    with_llamafile(servers)
    path = write_record(servers, 1)
    for text in ("", "{", "[]", "null", json.dumps({"name": "m"})):
        path.write_text(text)
        assert servers.doit("status", "--json").out == "[]\n"
    started(servers, "--port", "0")
    assert len(engines(servers)) == 1
