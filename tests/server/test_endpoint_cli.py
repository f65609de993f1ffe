"""An endpoint of models.yaml, as a user types it: several models behind one real llama-server (issue 16)."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.llama_server import use
from tests.support.project import REPO, Project
from tests.support.servers import failed, record, rows, started

OWN = "of which llama-server itself takes 50 MB"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the program of the tests is a shell script")

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
# what clients see: the answers to some requests, as JSON
ASKS = """
import json, os, urllib.error, urllib.request

def ask(path, key=os.environ["OPENAI_API_KEY"], origin="http://evil.example", **body):
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "Origin": origin}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.load(answer), answer.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Access-Control-Allow-Origin"]

talk = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
listed, cors = ask("/models")
answer, _ = ask("/chat/completions", model="little", **talk)
vector, _ = ask("/embeddings", model="embedder", input="Hi")
ranked, _ = ask("/rerank", model="ranker", query="Hi", documents=["Hello", "A file"])
print(json.dumps({
    "names": {one["id"]: one["aliases"] for one in listed["data"]},
    "cors": cors,
    "own page": ask("/models", origin="http://localhost:3000")[1],
    "text": answer["choices"][0]["message"]["content"],
    "ranked": len(ranked["results"]),
    "length": len(vector["data"][0]["embedding"]),
    "unknown": ask("/chat/completions", model="nope", **talk)[0],
    "no key": ask("/chat/completions", key="wrong", model="demo", **talk)[0],
    "default": os.environ["LLAMAFILE_MODEL"],
}))
"""


def entry(project: Project, **more: Any) -> dict[str, Any]:
    serve = {"threads": 1, "n_predict": 8, **more.pop("serve", {})}
    return project.entry("demo/demo.gguf", DEMO, engine="embedded", serve=serve, **more)


def write(project: Project, **office: Any) -> None:
    """Write a catalogue with three copies of the demo, and the endpoint `office` of them all."""
    models = {
        "demo": entry(project, serve={"ctx_size": 512}),
        "small": entry(project, serve={"ctx_size": 256}, aliases=["little"], id="small-v1"),
        "embedder": entry(project, kind="embedding", serve={"ctx_size": 512, "pooling": "mean"}),
    }
    if "ranker" in office.get("models", ()):
        models["ranker"] = entry(project, kind="rerank", serve={"ctx_size": 512})
    endpoint = {"models": ["demo", "little", "embedder"], "keep": ["embedder"], **office}
    project.catalogue(models, endpoints={"office": endpoint})


@pytest.fixture
def office(project: Project, llama_server: Path) -> Iterator[Project]:
    """A project with llama-server and an endpoint; what it has started is ended."""
    use(project, llama_server)
    write(project)
    yield project
    project.doit("stop", "--all")


@pytest.fixture
def still(project: Project) -> Project:
    """A project whose llama-server is never started: a program that does nothing."""
    program = project.path / "bin" / "llama-server"
    program.parent.mkdir()
    program.touch(0o755)
    use(project, program)
    return project


def preset(project: Project) -> Path:
    [path] = project.run_folder.glob("office-*.ini")
    return path


def test_several_models_behind_one_port(office: Project) -> None:
    """Every kind of model, by name and alias; the key, and no web page of another origin."""
    write(office, models=["demo", "little", "embedder", "ranker"])
    result = office.doit("with", "office", "--api-key", "abcd", "--", sys.executable, "-c", ASKS)
    assert result.status == 0, result.err
    told = json.loads(result.out)
    assert told.pop("text")
    assert told == {
        "names": {"demo": [], "small": ["little", "small-v1"], "embedder": [], "ranker": []},
        "cors": None,
        "own page": "http://localhost:3000",
        "ranked": 2,
        "length": 192,
        "unknown": 400,
        "no key": 401,
        "default": "demo",
    }


def test_in_the_background(office: Project) -> None:
    """Start, again, ask, status, logs, stop: as of a model, with the settings of their entries."""
    url = started(office, "office", "--port", "0", "--probe")
    assert url == started(office, "office")
    known = record(office, "office")
    command = known["command"]
    assert [word for word in command if word.startswith("--")] == [
        "--models-preset", "--models-max", "--host", "--port", "--metrics", "--offline", "--cors-origins",
    ]  # fmt: skip
    assert known["spec"]["models.small"].endswith("--ctx-size 256 --n-predict 8 --threads 1")
    assert office.doit("chat", "office", "What are you?").out.strip()
    assert office.doit("chat:office", "--as", "SMALL-v1", "What are you?").out.strip()
    for word, error in {"embedder": "embedder does not chat", "x": "office has no model 'x'"}.items():
        said = failed(office.doit("chat", "office", "--as", word, "Hello"))
        assert error in said
        assert "models that chat: demo, small" in said
    assert "llama_server" in office.doit("logs", "office").out
    [row] = rows(office, "office")
    assert (row["model"], row["state"], row["url"]) == ("office", "ready", url)
    assert [one["model"] for one in row["models"]] == ["demo", "small", "embedder"]  # as in models.yaml
    assert (
        office.doit("bench", "office", "--requests", "1", "--parallel", "1", "--n-predict", "2").status == 0
    )
    write(office, idle=60)
    said = failed(office.doit("start", "office"))
    assert f"office is already running at {url}, with other settings" in said
    assert "models.small: running" in said
    assert "idle 60" in said
    said = office.background("restart", "office").err
    assert f"office is ready at {url} " in said
    assert "stopping office" in office.doit("stop", "office").err


def test_the_preset_file_is_a_target(office: Project) -> None:
    """Written if the catalogue changes what it says; else not touched."""
    first = office.doit("preset", "office")
    assert first.status == 0, first.err
    path = preset(office)
    assert f"office: preset file {path}" in first.err
    assert ".  preset:office" in first.err
    assert "[small]\n" in path.read_text()
    before = path.stat()
    again = office.doit("preset:office").err
    assert "-- verify:office" in again
    assert "-- preset:office" in again
    write(office, serve={"port": 9000})  # of the server, not of a model
    assert "-- preset:office" in office.doit("preset", "office").err
    assert path.stat() == before
    write(office, idle=60)
    assert ".  preset:office" in office.doit("preset", "office").err
    assert "sleep-idle-seconds = 60\n" in path.read_text()
    path.write_text("[demo]\nmodel = /other\n")
    assert ".  preset:office" in office.doit("preset", "office").err
    assert path.stat().st_mode & 0o777 == 0o600
    # what it cannot say is an error, and not a traceback of doit's
    office.env["LLAMAFILE_CACHE"] = f"{office.cache};2"
    error = failed(office.doit("preset", "office"))
    assert "office: demo cannot be one of its models: the value of -m contains ';'" in error
    assert "fix: set LLAMAFILE_CACHE to a directory without ';' and '#'" in error


@pytest.mark.parametrize(
    ("change", "error", "fix"),
    [
        ({"memory": 1.5}, f"a needs 2.0 GB, but memory is 1.5 GB, {OWN}", "raise memory, or remove a"),
        (
            {"memory": 2.5, "keep": ["a"]},
            f"b and keep need 3.0 GB (b 1.0 GB + a 2.0 GB), but memory is 2.5 GB, {OWN}",
            "raise memory, remove b, or keep fewer models",
        ),
        (
            {"memory": 2.5, "keep": ["a", "b"]},
            f"keep needs 3.0 GB (a 2.0 GB + b 1.0 GB), but memory is 2.5 GB, {OWN}",
            "keep fewer models, or raise memory",
        ),
        (
            {"memory": 9999},
            "its models may take 9999.0 GB (`memory:`), and",
            "set `memory:` of endpoints.e to",
        ),
        ({"models": ["a", "c"]}, "the memory of c is not known", "or set `ram:` of the model in models.yaml"),
    ],
)
def test_what_does_not_fit(still: Project, change: dict[str, Any], error: str, fix: str) -> None:
    """Issue 16.2: refused with the sum before anything is fetched, unless --force says otherwise."""
    a, b, c = (
        still.entry(f"https://models.invalid/{name}.gguf", name.encode(), engine="llama-server")
        for name in "abc"
    )
    still.catalogue(
        {"a": {**a, "ram": 2}, "b": {**b, "ram": 1}, "c": c},
        endpoints={"e": {"models": ["a", "b"], **change}},
    )
    planned = still.doit("plan", "e")
    assert planned.status == 1
    assert f"cannot work: e: {error}" in planned.out
    for words in (["serve", "e"], ["start:e"], ["with", "e", "--", "true"], ["download", "e"]):
        said = failed(still.doit(*words))
        assert f"cannot work: e: {error}" in said
        assert fix in said
        assert "--force tries it nevertheless" in said
    assert "models.invalid" in failed(still.doit("download", "e", "--force"))


def test_a_plan(still: Project) -> None:
    """What each model takes, how many are loaded at once, and in how much memory."""
    write(still, memory=0.14)
    result = still.doit("plan", "office")
    assert result.status == 0, result.out
    [line] = [line for line in result.out.splitlines() if line.startswith("endpoint ")]
    assert " (kept); at most 2 loaded in 140.0 MB (`memory:` in models.yaml)" in line
    found = json.loads(still.doit("plan", "office", "--json").out)
    assert found["works"]
    [group] = found["endpoints"]
    assert (group["models"], group["keep"]) == (["demo", "small", "embedder"], ["embedder"])
    assert (group["models_max"], group["budget"]) == (2, 140_000_000)
    assert {one["engine"] for one in found["engines"]} == {"llama-server"}
    write(still)
    assert " at most 3 loaded in " in still.doit("plan", "office").out


def test_without_llama_server(project: Project) -> None:
    """Issue 16.7: how to get it, before anything is fetched; the files can be fetched without it."""
    write(project)
    project.env["PATH"] = "/usr/bin:/bin"
    for words in (["serve", "office"], ["start:office"], ["verify", "office"]):
        said = failed(project.doit(*words))
        assert "the engine llama-server is not on PATH" in said
        assert "brew install llama.cpp, apt install llama.cpp, or winget" in said
        assert "--engine" not in said
    assert "which alone serves several models" in project.doit("plan", "office").out
    assert project.doit("download", "office").status == 0


def test_wherever_names_are_shown(project: Project) -> None:
    """The catalogue, help, completion, cache keys; and a model's name where an endpoint's is not meant."""
    write(project)
    assert "Endpoint office: demo, small, embedder\n" in project.doit().out
    [row] = json.loads(project.doit("catalogue", "--json").out)["endpoints"]
    assert (row["name"], row["keep"]) == ("office", ["embedder"])
    assert "office: an endpoint of 3 models\n" in project.doit("help", "office").out
    flags = re.findall(r"^  (--[a-z-]+)", project.doit("help", "reload").out, re.M)
    assert flags == ["--model", "--host", "--port", "--api-key", "--probe", "--timeout"]
    assert "serve:office" in project.doit("list", "--all", "--quiet", "serve").out
    assert " - preset:office\n" in project.doit("info", "serve:office").out
    assert project.doit("cache-key", "office").out.startswith("llamafile-recipe-office-")
    assert "fix: doit serve office" in failed(project.doit("office"), 3)
    for words in (["audit"], ["lock", "--check"], ["doctor"]):
        said = project.doit(*words, "--model", "office").err
        assert "office is an endpoint, and one model is expected" in said, words
        assert "fix: name one of its models: demo, small, embedder" in said
