"""A real Prometheus scrapes real servers; the alerts and the queries of the dashboard, as it sees them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_engines import program
from tests.support.llama_server import use
from tests.support.ports import free_port
from tests.support.project import ENGINES, REPO, Project, wait_until
from tests.support.servers import record, started

pytestmark = [pytest.mark.fleet, pytest.mark.chain]

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
SERVE = {"ctx_size": 512, "threads": 1, "metrics": True}
KEY = "secret"
OFFICE = {"models": ["b", "c"], "memory": 4, "keep": ["b"], "serve": {"metrics": True}}


def write(project: Project, ports: list[int]) -> Path:
    """Deploy a model of each engine and an endpoint, on these ports; return Prometheus' directory."""
    demo = project.entry("demo/demo.gguf", DEMO, serve=SERVE)
    models = {name: {**demo, "engine": "llama-server"} for name in "bc"}
    models["a"] = {**demo, "engine": "embedded"}
    deployed = {name: {"port": port} for name, port in zip(("a", "b", "office"), ports, strict=True)}
    deployed["office"]["slow"] = 20
    project.catalogue(
        models, {"embedded": ENGINES["embedded"]}, endpoints={"office": OFFICE}, deploy={"models": deployed}
    )
    assert project.doit("lock", "--upgrade").status == 0
    result = project.doit("deploy:prometheus")
    assert result.status == 0, result.err
    return project.path / "deploy" / "prometheus"


def test_each_alert(project: Project) -> None:
    """It fires, and where it should not, it does not."""
    promtool = program("promtool", "prometheus")
    folder = write(project, [8080, 8081, 8082])
    shutil.copy2(REPO / "tests" / "deploy" / "rules.test.yaml", folder)
    done = subprocess.run(
        [promtool, "test", "rules", "rules.test.yaml"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=30):
                return True
        except OSError:
            return False

    def ask(self, query: str) -> dict[tuple[str, ...], float]:
        """Return the values that are numbers, by job, model, endpoint and engine."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{words}", timeout=30) as answer:
            rows = json.load(answer)["data"]["result"]
        found = {}
        for row in rows:
            names = ("job", "model", "endpoint", "engine")
            value = float(row["value"][1])
            if not math.isnan(value):
                found[tuple(row["metric"].get(name, "") for name in names)] = value
        return found

    def wait(self, query: str, wanted: Set[tuple[str, ...]]) -> None:
        """Wait until a query has values for all of these."""
        wait_until(lambda: wanted <= set(self.ask(query)))


@contextmanager
def running(folder: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """Run Prometheus with a configuration beside the deployed files."""
    (folder / "test.yaml").write_text(json.dumps(config))
    port = free_port()
    command = [
        program("prometheus", "prometheus"), "--config.file=test.yaml", "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        prometheus = Prometheus(port)
        wait_until(lambda: prometheus.answers() or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield prometheus
    finally:
        process.kill()
        process.wait()


def ask(url: str, model: str) -> None:
    """Let a model answer with a few tokens."""
    talk = [{"role": "user", "content": "What is a llamafile?"}]
    body = {"model": model, "messages": talk, "max_tokens": 8}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert answer.status == 200


def of_the_page(servers: Path, folder: Path) -> dict[str, Any]:
    """The job that docs/metrics.md shows, with the directories of the test."""
    page = (REPO / "docs" / "metrics.md").read_text("utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (folder / "key").write_text(f"{KEY}\n")
    text = block.replace("/home/you/.cache/llamafile-recipe/run/laptop-1000", str(servers))
    text = text.replace("/home/you/.config/llama.key", str(folder / "key"))
    assert "/home/you" not in text
    [job] = yaml.safe_load(text)["scrape_configs"]
    return dict(job)


def panels(folder: Path) -> dict[str, list[str]]:
    """The queries of the dashboard, of all models, by the titles of the panels."""
    dashboard = json.loads((folder / "dashboard.json").read_text())
    values = {"$model": ".*", "$instance": ".*", "$__rate_interval": "30s"}
    found = {}
    for panel in dashboard["panels"]:
        found[panel["title"]] = [target["expr"] for target in panel["targets"]]
        for name, value in values.items():
            found[panel["title"]] = [query.replace(name, value) for query in found[panel["title"]]]
    return found


@pytest.mark.skipif(os.name == "nt", reason="the program of the tests is a shell script")
def test_dashboard(project: Project, llama_server: Path) -> None:
    """Each query has a value for each server: those of `doit deploy`, and those that run here."""
    pytest.importorskip("xllamacpp")
    program("prometheus", "prometheus")
    use(project, llama_server)
    env = {"LLAMA_API_KEY": KEY}
    ports = [free_port() for _ in range(3)]
    folder = write(project, ports)
    urls = {
        name: started(project, name, "--port", str(port), env=env)
        for name, port in zip(("a", "b", "office"), ports, strict=True)
    }
    try:
        config = yaml.safe_load((folder / "prometheus.yaml").read_text())
        [deployed] = config["scrape_configs"]
        shown = of_the_page(project.run_folder, folder)
        deployed["authorization"] = shown["authorization"]
        config["scrape_configs"].append({**shown, "job_name": "here"})
        config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "1s"}
        with running(folder, config) as prometheus:
            queries = panels(folder)
            jobs = ("llamafile-recipe", "here")
            servers = [("a", "", "embedded"), ("b", "", "llama-server"), ("b", "office", "llama-server")]
            expected = {(job, *server) for job in jobs for server in servers}
            unloaded = {(job, "c", "office", "llama-server"): 0.0 for job in jobs}
            # a counter that does not grow between two scrapes has no rate
            prometheus.wait("llamacpp:requests_processing", expected)
            for name, url in urls.items():
                ask(url, "a" if name == "a" else "b")
            assert prometheus.ask("up") == {**dict.fromkeys(expected, 1.0), **unloaded}
            for query in [one for each in queries.values() for one in each]:
                wanted = {one for one in expected if "up{" not in query or one[0] == "llamafile-recipe"}
                prometheus.wait(query, wanted)
            here = ("here", "a", "", "embedded")
            os.kill(record(project, "a")["engine"]["pid"], signal.SIGKILL)
            wait_until(lambda: prometheus.ask("up")[here] == 0)
            assert project.doit("stop", "a").status == 0
            wait_until(lambda: here not in prometheus.ask("up"))
    finally:
        project.doit("stop", "--all")
