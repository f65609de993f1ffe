"""A running endpoint, from models.yaml to a real router: states, kept models, changes, kills (issue 16)."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tasks.server.client import send_request
from tasks.server.router import Router
from tasks.system.process_id import MARK_VARIABLE

from tests.fakes.llamafile import gguf
from tests.support.llama_server import use
from tests.support.project import REPO, Project, marked, wait_until
from tests.support.servers import alive, failed, port_of, record, rows, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the program of the tests is a shell script")

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()


def write(
    project: Project,
    *,
    contexts: dict[str, int],
    aliases: Mapping[str, list[str]] | None = None,
    **office: Any,
) -> None:
    """Write a catalogue with copies of the demo, and the endpoint `office` of them all."""
    models: dict[str, Any] = {}
    for name, size in contexts.items():
        serve = {"ctx_size": size, "threads": 1}
        models[name] = project.entry(
            "demo/demo.gguf", DEMO, engine="llama-server", serve=serve, aliases=(aliases or {}).get(name, [])
        )
    if "embedder" in models:
        models["embedder"]["kind"] = "embedding"
    if "broken" in models:
        data = gguf(4096)
        (project.path / "new.gguf").write_bytes(data)
        models["broken"] = project.entry("new.gguf", data, engine="llama-server", ram=1)
    project.catalogue(models, endpoints={"office": {"models": [*models], **office}})


@pytest.fixture
def office(project: Project, llama_server: Path) -> Iterator[Project]:
    """A project with llama-server; what it has started is ended."""
    use(project, llama_server)
    yield project
    project.doit("stop", "--all")


def ask(url: str, model: str, tokens: int = 1, key: str = "", **more: Any) -> int | None:
    """Ask a model of an endpoint; return the status."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens, **more}
    port = int(port_of(url))
    response = send_request("127.0.0.1", port, "/v1/chat/completions", body=body, key=key, timeout_s=90)
    return response and response[0]


def models(project: Project) -> dict[str, str]:
    """The states of the endpoint's models, by name."""
    [row] = rows(project, "--model", "office")
    return {model["model"]: model["state"] for model in row["models"]}


def test_a_model_that_fails_is_named(office: Project) -> None:
    """16.3: with the last lines of its output; the others go on."""
    write(office, contexts={"a": 512, "broken": 512}, memory=4)
    url = started(office, "--model", "office", "--port", "0")
    assert ask(url, "broken") == 500
    assert ask(url, "a") == 200
    [row] = rows(office)
    assert row["state"] == "ready"
    [fine, broken] = row["models"]
    assert fine == {"model": "a", "state": "loaded", "kept": False, "requests": 0}
    assert (broken["state"], broken["ended"]) == ("failed", 1)
    assert "unknown model architecture" in broken["output"]
    shown = office.doit("status")
    assert shown.status == 0
    assert "office  a loaded, broken failed (exit status 1)\n" in shown.out
    assert "  broken failed; its last output:\n      " in shown.out
    assert "unknown model architecture" in shown.out


def test_a_kept_model_that_fails_is_not_ready(office: Project) -> None:
    """16.3: the router says that it is healthy; the endpoint is not."""
    write(office, contexts={"a": 512, "broken": 512}, memory=4, keep=["broken"])
    error = failed(office.background("start", "--model", "office", "--port", "0"))
    assert "broken of office failed to load" in error
    assert "unknown model architecture" in error
    assert "the model is newer than the engine" in error
    assert not rows(office)


def test_a_kept_model_comes_back(office: Project) -> None:
    """16: the router unloads the model that was used least recently, also a kept one."""
    office.set_constant("tasks/server/router.py", "KEEP_S", 0.2)
    write(office, contexts={"a": 512, "b": 512, "embedder": 512}, memory=0.15, keep=["embedder"])
    url = started(office, "--model", "office", "--port", "0")
    assert record(office, "office")["spec"]["--models-max"] == "2"
    for name in ("a", "b", "a", "b"):
        assert ask(url, name) == 200
        wait_until(lambda: models(office)["embedder"] == "loaded")
    assert sorted(models(office).values()) == ["loaded", "loaded", "unloaded"]


def test_the_processes_of_models_ask_for_the_key(office: Project) -> None:
    """16.4: each listens on a port of its own, which other users of the machine can reach."""
    write(office, contexts={"a": 512}, memory=4, keep=["a"])
    url = started(office, "--model", "office", "--port", "0", env={"LLAMA_API_KEY": "a-key"})
    listed = send_request("127.0.0.1", int(port_of(url)), "/models", key="a-key")
    assert listed is not None
    [model] = json.loads(listed[1])["data"]
    args = model["status"]["args"]
    own = f"http://127.0.0.1:{args[args.index('--port') + 1]}"
    assert "a-key" not in args
    assert [ask(one, "a", key=key) for one in (url, own) for key in ("", "a-key")] == [401, 200, 401, 200]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_stays_within_the_budget(office: Project) -> None:
    """16.2: while requests go round all models; bench/endpoint.py sends 200."""
    contexts = {"a": 32768, "b": 16384, "c": 8192, "d": 512}
    write(office, contexts=contexts, memory=0.35)
    url = started(office, "--model", "office", "--port", "0")
    router = psutil.Process(record(office, "office")["engine"]["pid"])
    done = threading.Event()
    peak = Counter[str]()

    def measure() -> None:
        while not done.wait(0.05):
            children = router.children()
            total = sum(pss(process.pid) for process in (router, *children))
            peak.update({"bytes": max(0, total - peak["bytes"])})
            peak.update({"models": max(0, len(children) - peak["models"])})

    measuring = threading.Thread(target=measure)
    measuring.start()
    chance = random.Random(16)
    try:
        for _ in range(20):
            assert ask(url, chance.choice([*contexts])) == 200
    finally:
        done.set()
        measuring.join()
    assert peak["models"] == 2
    assert 150e6 < peak["bytes"] < 350e6


def pss(pid: int) -> int:
    """The proportional set size of a process in bytes; 0 if it has ended."""
    with suppress(OSError):
        found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def test_a_changed_endpoint(office: Project) -> None:
    """16.5: `start` says what changed; `reload` takes it over once no changed model is answering."""
    contexts = {"a": 4096, "b": 512, "c": 512}
    write(office, contexts=contexts, memory=4)
    url = started(office, "--model", "office", "--port", "0")
    before = record(office, "office")
    assert ask(url, "b") == ask(url, "c") == 200
    write(office, contexts={**contexts, "a": 2048}, aliases={"b": ["bee"]}, memory=4, keep=["a"])
    error = failed(office.background("start", "--model", "office"))
    assert f"office is already running at {url}, with other settings" in error
    assert "keep: running -, requested a" in error
    assert re.search("models.a: running .*--ctx-size 4096.*, requested .*--ctx-size 2048", error)
    assert "fix: doit reload --model office" in error
    statuses: list[int | None] = []
    answer = threading.Thread(target=lambda: statuses.append(ask(url, "a", tokens=700, ignore_eos=True)))
    answer.start()
    wait_until(lambda: Router("127.0.0.1", int(port_of(url))).busy("a"))
    reloaded = office.background("reload", "--model", "office")
    assert (reloaded.status, reloaded.out) == (0, f"{url}\n"), reloaded.err
    assert "office changes models.a: running " in reloaded.err
    answer.join(90)
    assert statuses == [200]
    after = record(office, "office")
    assert after["engine"] == before["engine"]
    assert after["spec"]["keep"] == "a"
    # the router reads other names of a model only while it is not loaded
    assert models(office) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
    assert ask(url, "bee") == 200
    log = Path(before["log"]).read_text()
    assert log.count("(reload) unloading model name=a ") == 1
    assert log.count("stopping model instance name=c") == 0
    assert "office is already running" in office.background("start", "--model", "office").err
    # the supervisor, which writes the record at the end, knows the new settings
    os.kill(after["engine"]["pid"], signal.SIGKILL)
    wait_until(lambda: record(office, "office")["state"] == "stopped")
    assert record(office, "office")["spec"] == after["spec"]
    assert not list(office.run_folder.glob("*.settings"))


def test_a_file_that_is_replaced(office: Project) -> None:
    """16: no later load reads bytes that are not verified: the endpoint stops, and its log says why."""
    office.set_constant("tasks/server/watched_files.py", "POLL_S", 0.2)
    write(office, contexts={"a": 512}, memory=4)
    started(office, "--model", "office", "--port", "0")
    write(office, contexts={"a": 512, "broken": 512}, memory=4)
    assert office.background("reload", "office").status == 0
    path = office.target(gguf(4096), "new.gguf")
    os.replace(shutil.copy(office.path / "demo" / "demo.gguf", office.path / "other"), path)
    wait_until(lambda: record(office, "office")["state"] == "stopped")
    assert "stopped" in office.doit("status").out
    log = office.doit("logs", "office", "-n", "1")
    assert log.out == f"{path} is not the file that was verified: stopped\n"
    url = started(office, "--model", "office", "--port", "0")
    assert ask(url, "a") == 200
    assert path.read_bytes() == gguf(4096)


def test_a_stop_finishes_the_answers(office: Project) -> None:
    """16.5: those of all models, and what a model that is being loaded was asked."""
    write(office, contexts={"a": 4096, "b": 512}, memory=4)
    url = started(office, "--model", "office", "--port", "0")
    statuses: list[int | None] = []
    answer = threading.Thread(target=lambda: statuses.append(ask(url, "a", tokens=3500, ignore_eos=True)))
    answer.start()
    router = Router("127.0.0.1", int(port_of(url)))
    wait_until(lambda: router.busy("a"))
    stopped = office.background("stop", "office", "--drain", "60")
    answer.join(90)
    assert (statuses, stopped.status) == ([200], 0), stopped.err
    assert "office finishes a request before it ends, for at most 60 s" in stopped.err


def test_a_change_that_needs_a_restart(office: Project) -> None:
    """16.5: what the router reads at its start alone; and what `reload` is not for."""
    write(office, contexts={"a": 512}, memory=4)
    fix = "fix: doit start --model office"
    assert fix in failed(office.doit("reload", "--model", "office"))
    url = started(office, "--model", "office", "--port", "0")
    pid = record(office, "office")["engine"]["pid"]
    write(office, contexts={"a": 512, "b": 512}, memory=4)
    reloaded = office.background("reload")
    assert (reloaded.status, reloaded.out) == (0, f"{url}\n"), reloaded.err
    assert "office is restarted: llama-server reads --models-max only at its start" in reloaded.err
    assert record(office, "office")["engine"]["pid"] != pid
    assert "`doit reload` is for an endpoint, and a is a model" in failed(office.doit("reload", "a"), 3)


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        ("engine", signal.SIGKILL),
        ("keeper", signal.SIGKILL),
        ("doit", signal.SIGKILL),
        ("doit", signal.SIGTERM),
    ],
)
def test_a_kill_leaves_no_process(office: Project, victim: str, number: signal.Signals) -> None:
    """16.5: router, supervisor or doit: the processes of the models end too."""
    write(office, contexts={"a": 512, "b": 512}, memory=4, keep=["a", "b"])
    with office.start("serve", "--model", "office", "--port", "0") as running:
        running.wait_for("office is ready")
        run = record(office, "office")
        assert len(marked(MARK_VARIABLE, run["mark"])) == 3  # the router and two models
        pids = {"engine": run["engine"]["pid"], "keeper": run["keeper"]["pid"], "doit": running.pid}
        os.kill(pids[victim], number)
        wait_until(lambda: not marked(MARK_VARIABLE, run["mark"]))
        wait_until(lambda: not any(map(alive, pids.values())))
        running.finish()
