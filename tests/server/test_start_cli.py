"""`doit start`: a server in the background, ready, verified and not doubled."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import urllib.error
from pathlib import Path

import psutil
import pytest

from tests.server.test_serve_cli import ask, behave, fetch, with_llamafile
from tests.support.ports import free_port
from tests.support.project import Project, wait_until
from tests.support.servers import alive, engines, failed, port_of, record, records, rows, started, two_models

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def test_from_nothing_to_a_server(servers: Project) -> None:
    """Issue 4.1, R23: every step, then it is ready; stdout is its URL alone, stderr says how to go on."""
    with_llamafile(servers, title="The Model 7B")
    result = servers.background("start", "--port", "0")
    assert result.status == 0
    [url] = result.out.splitlines()
    assert result.out == f"{url}\n"
    assert ask(url, "Hello") == "Hello"
    steps = [line for line in result.err.splitlines() if line.startswith((". ", "--"))]
    assert steps == [".  download:m", ".  chmod:m", ".  verify:m", ".  start:m"]
    assert f"m is ready at {url} after" in result.err
    assert "  model    The Model 7B, licence MIT\n" in result.err
    assert "  stop     doit stop --model m\n" in result.err
    [run] = engines(servers)
    [row] = rows(servers)
    assert (row["pid"], row["url"], row["state"]) == (run["pid"], url, "ready")


@pytest.mark.parametrize(("hosts", "said"), [("a.example", True), ("127.0.0.1", False)])
def test_what_clients_need_behind_a_proxy(servers: Project, hosts: str, said: bool) -> None:
    """F35: NO_PROXY is among what to call the server with, if it lacks this machine."""
    with_llamafile(servers)
    env = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": hosts}
    result = servers.background("start", "--port", "0", env=env)
    assert result.status == 0, result.err
    line = "  proxy    NO_PROXY=a.example,127.0.0.1,localhost  (else clients"
    assert (line in result.err) == said, result.err
    assert ("NO_PROXY" in result.err) == said


def test_events(servers: Project) -> None:
    """Issue 4.11, R25: every line of stderr is an object; a server's steps have their facts."""
    with_llamafile(servers)
    env = {"LLAMAFILE_LOG": "json"}
    lines = "".join(servers.background(*words, env=env).err for words in (["start", "--port", "0"], ["stop"]))
    events = [json.loads(line) for line in lines.splitlines()]
    assert all({"time", "level", "event", "message"} <= set(event) for event in events)
    found = {event["event"]: event for event in events}
    order = [name for name in found if name.startswith("server_")]
    assert order == ["server_starting", "server_ready", "server_stopping", "server_stopped"]
    assert all(found[name]["model"] == "m" for name in order)
    assert found["server_ready"]["seconds"] > 0
    assert found["server_ready"]["url"] == found["server_stopping"]["url"]
    assert {"download:m", "verify:m", "start:m"} <= {e["task"] for e in events if e["event"] == "task_done"}
    assert not [e for e in events if e["message"] != e["message"].strip() or "curl" in e["message"]]
    started_tasks = [e["task"] for e in events if e["event"] == "task_started"]
    assert not [name for name in started_tasks if name.startswith("_")]


def test_the_same_again(servers: Project) -> None:
    """Issue 4.1, R28: the same settings mean the same server, wherever it listens: said so, status 0."""
    with_llamafile(servers)
    url = started(servers, "--port", "0", "--ctx-size", "512")
    pid = record(servers)["engine"]["pid"]
    for words in (["start"], ["start:m"], ["start", "--model", "M", "--port", "0"]):
        again = servers.background(*words, "--ctx-size", "512")
        assert (again.status, again.out) == (0, f"{url}\n"), again.err
        assert f"m is already running at {url}\n" in again.err
    again = servers.background("start", "--port", port_of(url), "--ctx-size", "512")
    assert (again.status, again.out) == (0, f"{url}\n"), again.err
    assert record(servers)["engine"]["pid"] == pid
    assert len(engines(servers)) == 1


def test_other_settings(servers: Project) -> None:
    """Issue 4.1: each setting that differs is named, with both values and what to type; nothing changes."""
    with_llamafile(servers)
    url = started(servers, "--port", "0", "--threads", "2", "--", "--fancy-test-flag", "one")
    words = [
        "--ctx-size",
        "512",
        "--ngl=3",
        "--host",
        "localhost",
        "--n-predict",
        "1024",
        "--api-key",
        "sesame",
    ]
    said = failed(servers.background("start", *words, "--", "--fancy-test-flag", "two"))
    assert said.splitlines()[:-1] == [
        f"ERROR: m is already running at {url}, with other settings",
        "  --host: running 127.0.0.1, requested localhost",
        "  --ctx-size: running 0, requested 512",
        "  --threads: running 2, requested -",
        "  --: running --fancy-test-flag one, requested --fancy-test-flag two",
        "  --ngl: running -, requested 3",
        "  --api-key: running -, requested given",
    ]
    assert said.splitlines()[-1] == f"  fix: doit stop --model m --port {port_of(url)}"
    assert len(engines(servers)) == 1
    assert ask(url, "still there") == "still there"


def test_the_same_again_must_answer(servers: Project) -> None:
    """Issue 4.1, 4.5: a server that hangs is not ready, although it runs: said, with what to type."""
    with_llamafile(servers)
    url = started(servers, "--port", "0")
    pid = record(servers)["engine"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        said = failed(servers.background("start"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert said.startswith(f"ERROR: m runs at {url} and does not answer\n")
    assert said.endswith(f"  fix: doit stop --model m --port {port_of(url)}\n")
    wait_until(lambda: rows(servers)[0]["state"] == "ready")
    assert servers.background("start", "--probe").status == 0
    assert len(engines(servers)) == 1


def test_another_file(servers: Project) -> None:
    """Issue 4.1: another digest in models.yaml is another model, also under the same name."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    with_llamafile(servers, version="0.8.7")
    said = failed(servers.background("start"))
    assert "\n  model: running " in said
    assert "\n  --engine: running self 0.8.6, requested self 0.8.7\n" in said


def test_the_usual_port_is_taken(servers: Project) -> None:
    """Issue 4.1, R23: several models at once: the usual port, then a free one; never a second guess at one
    that was asked for."""
    usual = free_port()
    two_models(servers, defaults={"port": usual})
    assert port_of(started(servers, "--model", "a")) == str(usual)
    offline = {"LLAMAFILE_OFFLINE": "1"}
    found = json.loads(servers.doit("doctor", "--model", "b", "--json", env=offline).out)
    [port] = [row for row in found if row["check"] == "port"]
    assert (port["state"], port["found"]) == ("ok", f"127.0.0.1:{usual}: a is served there")
    said = failed(servers.background("start", "--model", "b", "--port", str(usual)))
    pid = record(servers, "a")["engine"]["pid"]
    assert f"port {usual} is in use by a, started by `doit start` (pid {pid})\n" in said
    assert f"fix: `doit stop --port {usual}`, or --port 0 for a free one" in said
    other = started(servers, "--model", "b")
    assert port_of(other) != str(usual)
    assert ask(other, "b") == "b"
    assert {row["model"]: row["state"] for row in rows(servers)} == {"a": "ready", "b": "ready"}


def test_a_stranger_has_the_usual_port(servers: Project) -> None:
    """R23: another program uses the port: an error, no server on another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with_llamafile(servers, top={"defaults": {"port": port}})
        said = failed(servers.background("start"))
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert engines(servers) == []


def test_any_free_port(servers: Project) -> None:
    """Port 0 is any free port: no message says that another server has it."""
    two_models(servers, defaults={"port": 0})
    result = servers.background("start", "a")
    assert (result.status, "belongs to" in result.err) == (0, False), result.err


@pytest.mark.parametrize("words", [("--model", "a", "--model", "b"), ("a", "b")], ids=" ".join)
def test_two_models_in_one_command(servers: Project, words: tuple[str, ...]) -> None:
    """Issue 4.1: each has its port, and its URL is a line of stdout; why it is not the usual one is said."""
    usual = free_port()
    two_models(servers, defaults={"port": usual})
    result = servers.background("start", *words)
    assert result.status == 0, result.err
    first, second = result.out.splitlines()
    assert first == f"http://127.0.0.1:{usual}" != second
    port = second.rpartition(":")[2]
    assert f"port {usual} belongs to the server of a, so b gets port {port}\n" in result.err
    assert [ask(url, url) for url in (first, second)] == [first, second]
    assert {row["url"] for row in rows(servers)} == {first, second}


def test_one_port_for_two_models(servers: Project) -> None:
    """Issue 4.1, R14: refused while the command line is read, with status 3; nothing is downloaded."""
    two_models(servers)
    result = servers.background("start", "--model", "a", "--model", "b", "--port", "8081")
    assert (result.status, result.out) == (3, "")
    assert "--port 8081 is for one model, got 2: a, b" in result.err
    assert "fix: --port 0" in result.err
    assert not (servers.cache / "models").exists()


def test_two_at_the_same_moment(servers: Project) -> None:
    """Issue 4.1: two `doit start` at once give one server, and both succeed with its URL."""
    with_llamafile(servers, top={"defaults": {"port": free_port()}})
    behave(servers, load_seconds=1)
    both = [
        subprocess.Popen(
            [servers.doit_program, "start"], cwd=servers.path, env=servers.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    ended = [(*one.communicate(timeout=90), one.returncode) for one in both]
    assert [status for *_, status in ended] == [0, 0], ended
    (url, *_), (other, *_) = ended
    assert url == other
    assert sum("is already running at" in err for _, err, _ in ended) == 1
    assert len(engines(servers)) == 1
    assert ask(url.strip(), "one") == "one"


def test_crash_while_loading(servers: Project) -> None:
    """Issue 4.1, 4.5, R26: the log's tail and how it ended; no record of it, and nothing runs."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, load_seconds=60, crash={"text": "first words\nlast words", "status": 3, "after": 0.3})
    said = failed(servers.background("start", "--port", "0"))
    assert "ERROR: m ended before it was ready\n" in said
    assert "\n  ended: exit status 3\n" in said
    assert "      first words\n      last words\n" in said
    [log] = servers.cache.glob("run/*/m-*.log")
    assert f"\n  log: {log}\n" in f"{said}\n"
    assert "last words" in log.read_text()
    assert records(servers) == []
    assert servers.processes() == []


def test_silent_for_ever(servers: Project) -> None:
    """Issue 4.1, 4.5, R27: ended after --timeout."""
    with_llamafile(servers)
    behave(servers, silent=True)
    said = failed(servers.background("start", "--port", "0", "--timeout", "2"))
    assert "m was not ready after 2.0 s" in said
    assert "fix: allow more time with --timeout SECONDS" in said
    assert records(servers) == []
    assert servers.processes() == []


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(signal.SIGHUP, 129, id="SIGHUP"),
    ],
)
def test_stopped_while_it_loads(servers: Project, number: int, status: int) -> None:
    """Issue 4.10, R14: a signal before it is ready leaves no server and no record."""
    with_llamafile(servers)
    behave(servers, load_seconds=60)
    with servers.start("start", "--port", "0") as running:
        running.wait_for("starting m")
        running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (status, "")
    assert records(servers) == []
    assert servers.processes() == []


def test_killed_while_it_loads(servers: Project) -> None:
    """Issue 4.4, 4.10: SIGKILL of `doit start` before the server is ready takes the server along."""
    with_llamafile(servers)
    behave(servers, load_seconds=60)
    with servers.start("start", "--port", "0") as running:
        running.wait_for("starting m")
        wait_until(lambda: records(servers) and record(servers)["engine"])
        pid = record(servers)["engine"]["pid"]
        running.send(signal.SIGKILL)
        wait_until(lambda: not alive(pid))
        wait_until(lambda: not servers.processes())
    assert records(servers) == []
    behave(servers)
    started(servers, "--port", "0")


def test_it_outlives_its_terminal(servers: Project) -> None:
    """Issue 4.1, R35: Ctrl-C and a closed terminal reach the group that started it, and not the server."""
    with_llamafile(servers)
    url = started(servers, "--port", "0")
    keeper, engine = (record(servers)[name]["pid"] for name in ("keeper", "engine"))
    sessions = {os.getsid(pid) for pid in (keeper, engine)}
    assert os.getsid(0) not in sessions
    assert sessions == {keeper, engine}
    assert ask(url, "here") == "here"


def test_a_group_is_started(servers: Project) -> None:
    """Issue 4.5: an engine that leaves its grandchild serving is ready, and is ended as a whole."""
    with_llamafile(servers)
    behave(servers, fork=True)
    url = started(servers, "--port", "0")
    assert ask(url, "Hello") == "Hello"
    parent = psutil.Process(record(servers)["engine"]["pid"])
    [child] = parent.children()
    assert servers.doit("stop").status == 0
    assert not alive(parent.pid)
    assert not alive(child.pid)


@pytest.mark.parametrize("how", ["leave", "leave_session"])
def test_it_leaves_its_starter(servers: Project, how: str) -> None:
    """Issue 4.5: a grandchild that goes on alone is no server of ours: an error, and it is gone as well."""
    with_llamafile(servers)
    behave(servers, **{how: True})
    said = failed(servers.background("start", "--port", "0"))
    assert re.match(r"ERROR: m ended (before it was ready|by itself)\n", said), said
    assert "\n  ended: exit status 0\n" in said
    assert records(servers) == []
    assert servers.processes() == []


def test_files_are_for_their_owner_alone(servers: Project) -> None:
    """Issue 4.9, R26, R30: prompts are in the log and the key is in the record, whatever the umask."""
    with_llamafile(servers)
    before = os.umask(0)
    try:
        started(servers, "--port", "0", "--api-key", "sesame")
    finally:
        os.umask(before)
    [path] = records(servers)
    modes = {p.suffix: stat.S_IMODE(p.stat().st_mode) for p in path.parent.glob("m-*")}
    assert modes == {".json": 0o600, ".log": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def command_lines() -> str:
    """Return what `ps` shows of every process."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(lines)


KEY = f"open-{os.urandom(8).hex()}"  # of this process: other tests run beside it


@pytest.mark.parametrize("way", ["option", "variable"])
def test_the_key_is_seen_by_nobody(servers: Project, way: str) -> None:
    """Issue 4.9, R30: the engine gets it in a file that is gone when it is ready."""
    with_llamafile(servers, version="0.9.3" if way == "option" else "0.10.5")
    words, env = (["--api-key", KEY], {}) if way == "option" else ([], {"LLAMA_API_KEY": KEY})
    result = servers.background("start", "--port", "0", *words, env=env)
    assert result.status == 0, result.err
    assert KEY not in result.out + result.err
    assert "-H 'Authorization: Bearer '$LLAMA_API_KEY" in result.err
    assert KEY not in command_lines()
    known = record(servers)
    [run] = engines(servers)
    file = Path(run["argv"][run["argv"].index("--api-key-file") + 1])
    assert file.parent == Path(known["log"]).parent
    assert not file.exists()
    assert "LLAMA_API_KEY" not in run["env"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(result.out.strip(), "no key")
    assert KEY not in Path(known["log"]).read_text()
    assert KEY not in str(known["command"])
    for report in (["status"], ["status", "--json"], ["logs"]):
        shown = servers.doit(*report)
        assert shown.status == 0
        assert KEY not in shown.out + shown.err
    assert servers.background("start", *words, env=env).status == 0
    said = failed(servers.background("start", "--api-key", "another"))
    assert "--api-key: running one key, requested another" in said
    assert KEY not in said


def test_the_demo_asks_for_its_key(servers: Project) -> None:
    """Issue 4.9, R2: a real engine requires the key; `ps`, log and status do not show it."""
    openai = pytest.importorskip("openai")
    pytest.importorskip("xllamacpp")
    url = started(servers, "--model", "demo", "--port", "0", "--probe", env={"LLAMA_API_KEY": KEY})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(url, "Who are you?")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        question = [{"role": "user", "content": "Who are you?"}]
        answer = client.chat.completions.create(model="demo", messages=question)
    assert answer.choices[0].message.content
    assert KEY not in command_lines()
    assert KEY not in Path(record(servers, "demo")["log"]).read_text()
    [row] = rows(servers)
    assert row["state"] == "ready"
    assert row["engine"].startswith("embedded 20")
    assert row["requests"] in (0, None)
    assert KEY not in str(row)


def test_the_demo_and_another(servers: Project) -> None:
    """Issue 4.1, R2: a real engine in the background, beside another one; each is stopped by its name."""
    pytest.importorskip("xllamacpp")
    shutil.copy(servers.path / "demo" / "demo.gguf", servers.path / "own.gguf")
    own = ["--llamafile", "own.gguf", "--engine", "embedded"]
    first = started(servers, "--model", "demo", "--port", "0")
    second = started(servers, *own, "--port", "0", "--ctx-size", "512", "--threads", "1")
    answers = [fetch(f"{url}/v1/models")["data"] for url in (first, second)]
    assert all(answers)
    assert ask(first, "Who are you?") == ask(second, "Who are you?")
    pids = {row["model"]: row["pid"] for row in rows(servers)}
    assert servers.doit("stop", "--model", "own").status == 0
    assert [alive(pids["demo"]), alive(pids["own"])] == [True, False]


def test_a_key_that_is_none(servers: Project) -> None:
    """Issue 4.9: an invalid key is rejected, and not printed."""
    with_llamafile(servers)
    result = servers.background("start", "--api-key", "one,two")
    assert (result.status, result.out) == (3, "")
    assert "--api-key: expected at least four visible ASCII characters" in result.err
    said = failed(servers.background("start", "--port", "0", env={"LLAMA_API_KEY": "one two"}), 3)
    assert "LLAMA_API_KEY: expected at least four visible ASCII" in said
    assert "one two" not in said
    assert engines(servers) == []


@pytest.mark.parametrize("key", ["", "sesame"])
def test_a_server_for_everybody(servers: Project, key: str) -> None:
    """Issue 4.9, R30: a public address without a key causes a warning with a fix."""
    with_llamafile(servers)
    words = ["--api-key", key] if key else []
    result = servers.background("start", "--host", "0.0.0.0", "--port", "0", *words)
    assert result.status == 0, result.err
    assert result.out.startswith("http://127.0.0.1:")
    warned = "warning: m listens on 0.0.0.0 without an API key" in result.err
    assert warned is not bool(key)
    assert ("set LLAMA_API_KEY" in result.err) is warned


def test_two_models_at_the_same_moment(servers: Project) -> None:
    """Issue 4.1: two `doit start` of different models do not meet on the usual port."""
    usual = free_port()
    two_models(servers, defaults={"port": usual})
    assert servers.doit("verify", "--model", "a", "--model", "b").status == 0
    both = [
        subprocess.Popen(
            [servers.doit_program, "start", "--model", name], cwd=servers.path, env=servers.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in "ab"
    ]  # fmt: skip
    ended = [(*one.communicate(timeout=90), one.returncode) for one in both]
    assert [status for *_, status in ended] == [0, 0], ended
    urls = [out.strip() for out, *_ in ended]
    assert urls[0] != urls[1]
    assert str(usual) in map(port_of, urls)
    assert [ask(url, url) for url in urls] == urls
