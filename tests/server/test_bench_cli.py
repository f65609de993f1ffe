"""`doit bench`: tokens per second of a served model, with the real embedded engine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest

from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import ENGINES, Project
from tests.support.servers import failed, records, started

SMALL = ("--requests", "1", "--n-predict", "8")
HAS_EMBEDDED = importlib.util.find_spec("xllamacpp") is not None
embedded = pytest.mark.skipif(not HAS_EMBEDDED, reason="needs the embedded engine")
posix = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


@embedded
def test_a_server_of_its_own(project: Project, tmp_path: Path) -> None:
    """Issue 15.9: three levels, as JSON and as a table that is compared with it; the server has stopped."""
    result = project.doit("bench", "demo", "--json", *SMALL)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert (report["model"], report["context"]) == ("demo", 4096)
    assert (report["n_predict"], report["complete"]) == (8, True)
    assert report["sha256"] == "72e99408044645e59a502168f9fbca7d1681efb4373041efc57dc6c9d2a36026"
    assert report["engine"].startswith("embedded 20")
    assert (report["cpu"], report["cpus"]) == (report["cpu"] or "?", os.cpu_count())
    assert report["settings"]["--"] == "--parallel 4"  # each request has a slot
    levels = [(row["parallel"], row["requests"], row["predicted_tokens"]) for row in report["rows"]]
    assert levels == [(1, 1, 8), (2, 2, 16), (4, 4, 32)]
    for row in report["rows"]:
        assert row["prompt_tokens"] > 100 * row["requests"]
        assert min(row["prompt_per_second"], row["predicted_per_second"]) > 0
        assert row["total_per_second"] == pytest.approx(row["predicted_tokens"] / row["seconds"], rel=0.01)
    report["engine"] = "embedded 1"
    (tmp_path / "old.json").write_text(json.dumps(report))
    words = ["--parallel", "2", "--compare", "../old.json", *SMALL]
    result = project.doit("bench", "demo", *words)
    assert result.status == 0, result.err
    facts, table = result.out.split("\n\n")
    assert facts.startswith("model    demo, sha256 72e994080446\nengine   embedded 20")
    assert "\ndiffers  engine: embedded 1 → embedded 20" in facts
    head, row = table.splitlines()
    assert head.split() == ["at", "once", "requests", "prompt", "generation", "all", "time"]
    assert row.split()[:2] == ["2", "2"]
    assert row.count("/s (") == row.count("x)") == 3
    assert max(map(len, table.splitlines())) <= 80
    assert "demo has stopped" in result.err
    assert not project.processes()


@embedded
def test_the_server_that_runs(servers: Project) -> None:
    """Issue 15.9: it is measured as it is, with its key, and runs on."""
    started(servers, "demo", "--port", "0", "--api-key", "a-key", "--ctx-size", "1024")
    result = servers.doit("bench", "--json", "--parallel", "1", *SMALL)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert (report["model"], report["context"], "--" in report["settings"]) == ("demo", 1024, False)
    assert "starting" not in result.err
    [record] = records(servers)
    said = failed(servers.doit("bench", "--compare", "gone.json"))
    assert "--compare: gone.json: No such file or directory" in said
    assert records(servers) == [record]


@embedded
def test_a_file_that_is_not_pinned(servers: Project) -> None:
    """Issue 15.9: its path is not shown as a digest; without settings there is no list of them."""
    model = {"title": "M", "license": "MIT", "url": "demo/demo.gguf", "engine": "embedded"}
    servers.catalogue({"r": model}, {"embedded": ENGINES["embedded"]})
    started(servers, "r", "--port", "0")
    words = ("--parallel", "1", *SMALL)
    result = servers.doit("bench", "--json", *words)
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert (report["sha256"], Path(report["file"]).name) == (None, "demo.gguf")
    text = servers.doit("bench", *words).out
    assert f"model    r, not pinned: {report['file']}\nengine   {report['engine']}\n" in text


@embedded
def test_the_time_is_limited(project: Project) -> None:
    """Issue 15.9: what is complete is shown; without anything, it is an error."""
    project.set_constant("tasks/server/load.py", "_REPEATS", 200)
    words = ["--limit", "1", "--parallel", "1", "--requests", "1000"]
    said = failed(project.doit("bench", "demo", *words))
    assert "demo did not complete the first measurement within 1.0 s" in said
    assert not project.processes()


@embedded
@posix
def test_ctrl_c(project: Project) -> None:
    """Issue 15.9: it ends the requests and the server."""
    with project.start("bench", "demo", "--requests", "1000", "--n-predict", "2000") as running:
        running.wait_for("demo is ready")
        running.send(signal.SIGINT)
        result = running.finish()
    assert (result.status, result.out) == (130, "")
    assert result.err.rstrip().endswith("demo has stopped")


@posix
@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ({"chat_status": 503}, "m answered a request with an error\n  status: 503"),
        ({}, "the answers of m have no timings\n"),
    ],
)
def test_a_server_that_cannot_be_measured(project: Project, mood: dict[str, int], said: str) -> None:
    """Issue 15.9: an error, or an answer without timings."""
    with_llamafile(project, version="0.10.5")
    behave(project, **mood)
    assert said in failed(project.doit("bench", *SMALL))


WRONG = (
    (["--parallel", "1,x"], 3, "--parallel: expected a whole number from 1 to 256, got 'x'"),
    (["--parallel", ""], 3, "--parallel: expected a whole number from 1 to 256, got ''"),
    (["--parallel", ",".join(map(str, range(1, 10)))], 3, "--parallel: expected at most 8 numbers, got 9"),
    (["--requests", "-1"], 3, "--requests: expected a whole number from 1 to 1000, got '-1'"),
    (["--n-predict", "99999"], 3, "--n-predict: expected a whole number from 1 to 8192, got '99999'"),
    (["--compare", "gone.json"], 1, "--compare: gone.json: No such file or directory"),
    (["--compare", "models.yaml"], 1, "models.yaml is not a report of `doit bench --json`"),
)


@posix
def test_wrong_values(project: Project) -> None:
    """Issue 15.9: known before anything is downloaded."""
    with_llamafile(project)
    for words, status, said in WRONG:
        assert f"ERROR: {said}\n  fix: " in failed(project.doit("bench", *words), status)
    assert not (project.cache / "models").exists()
