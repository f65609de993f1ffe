"""A server is what models.yaml says: not the user's variables and files, nor any web page, decide."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_serve_cli import with_llamafile
from tests.support.llama_server import use
from tests.support.project import REPO, Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs of the tests are shell scripts")

KEY = "sk-sesame-4711"
FOREIGN, LOCAL = "https://evil.example", "http://localhost:3000"
MISTRAL = "mistral-7b-instruct-v0.2.Q5_K_M.gguf"
DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
# what AutoGPT's llamafile provider does (issue 15.4), and a look at the server
CLIENT = r"""
import json, os, re, urllib.request
import psutil
url, key = os.environ["LLAMAFILE_URL"], os.environ["OPENAI_API_KEY"]

def ask(path, body=None, origin=None):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    headers |= {"Origin": origin} if origin else {}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=120) as answer:
        return json.load(answer), answer.headers["Access-Control-Allow-Origin"]

def clean(model_id):
    name = model_id.rsplit(".", 1)[0]
    pattern = r"^[a-zA-Z0-9]+([.\-](?!([qQ]|B?F)\d{1,2})[a-zA-Z0-9]+)*"
    return re.match(pattern, name).group()

models = ask("/v1/models")[0]["data"]
tokens = ask("/tokenize", {"content": "What are you?"})[0]["tokens"]
parts = [{"type": "text", "text": "What are you?"}]
body = {"model": models[0]["id"], "messages": [{"role": "user", "content": parts}], "max_tokens": 4}
chat = ask("/v1/chat/completions", body)[0]
engines = []
for process in psutil.process_iter():
    try:
        env = process.environ()
    except psutil.Error:
        continue
    if env.get("HOME") == os.environ["HOME"] and "LLAMAFILE_RECIPE_RUN" in env:
        engines.append(env)
print(json.dumps({
    "props": ask("/props")[0] if os.environ["WITH_PROPS"] else {},
    "models": models,
    "exported": os.environ["LLAMAFILE_MODEL"],
    "cleaned": [clean(model["id"]) for model in models],
    "text": ask("/detokenize", {"tokens": tokens})[0]["content"],
    "answer": chat["choices"][0]["message"]["content"],
    "foreign": ask("/v1/models", origin="%s")[1],
    "local": ask("/v1/models", origin="%s")[1],
    "engines": engines,
}))
""" % (FOREIGN, LOCAL)  # noqa: UP031
UNSTEADY = ("created", "media_marker")  # of every start


def asked(project: Project, *words: str, props: bool = True, env: dict[str, str] | None = None) -> Any:
    """Return what a client finds of the server of the default model."""
    env = {**(env or {}), "WITH_PROPS": "1" if props else ""}
    result = project.doit("with", *words, "--api-key", KEY, "--", sys.executable, "-c", CLIENT, env=env)
    assert result.status == 0, result.err
    return json.loads(result.out)


def steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: steady(part) for name, part in value.items() if name not in UNSTEADY}
    if isinstance(value, list):
        return [steady(part) for part in value]
    return value


def hostile(project: Project, help_text: str) -> dict[str, str]:
    """Return every variable of llama.cpp's server with nonsense, and write a configuration of the user."""
    names = set(re.findall(r"\b(LLAMA_[A-Z0-9_]+)\)", help_text))
    assert len(names) > 50
    folder = Path(project.env["HOME"]) / ".config" / "llama.cpp"
    folder.mkdir(parents=True)
    (folder / "config.ini").write_text("[*]\nctx-size = 64\nalias = evil\nparallel = 3\n")
    return {**dict.fromkeys(names, "nonsense"), "HF_TOKEN": "hf_private", "MY_VARIABLE": "nonsense"}


@pytest.mark.parametrize("engine", ["llama-server", "embedded"])
def test_a_hostile_machine(project: Project, llama_server: Path, engine: str) -> None:
    """Issue 15.1, 15.2, 15.4: that of a clean machine, closed to foreign pages, with the catalogue's name."""
    use(project, llama_server)
    (project.path / "m.gguf").write_bytes(DEMO)
    serve = {"ctx_size": 512, "env": {"LLAMA_ARG_N_PARALLEL": "2"}}
    aliases = ["mistral", "mistral-other"]
    entry = project.entry("m.gguf", DEMO, engine=engine, id=MISTRAL, aliases=aliases, serve=serve)
    project.catalogue({"m": entry})
    clean = asked(project)
    help_text = subprocess.run([llama_server, "--help"], capture_output=True, text=True, check=True).stdout
    found = asked(project, env=hostile(project, help_text))
    assert steady(found["props"]) == steady(clean["props"])
    assert steady(found["models"]) == steady(clean["models"])
    assert (found["foreign"], found["local"]) == (None, LOCAL)
    assert [model["id"] for model in found["models"]] == [found["exported"]] == [MISTRAL]
    assert found["models"][0]["aliases"] == [MISTRAL, "mistral-other"]
    assert found["cleaned"] == ["mistral-7b-instruct-v0.2"]
    assert found["text"].strip() == "What are you?"
    assert found["answer"]
    assert found["props"]["model_alias"] == MISTRAL
    if engine == "llama-server":  # `env:` of models.yaml passes
        assert found["props"]["total_slots"] == 2
    assert found["engines"]
    for env in found["engines"]:
        assert "nonsense" not in str(env)
        assert not {"HF_TOKEN", "LLAMA_API_KEY"} & env.keys()
        assert KEY not in str(env)
        assert env["XDG_CONFIG_HOME"] == os.devnull


@pytest.mark.parametrize(
    ("version", "listed"), [("0.8.3", "model.gguf"), ("0.9.3", MISTRAL), ("0.10.5", MISTRAL)]
)
def test_the_name_of_a_llamafile(project: Project, version: str, listed: str) -> None:
    """Issue 15.4: from 0.8.6 on, the listed name is that of the catalogue; AutoGPT's client works."""
    with_llamafile(project, version=version, id=MISTRAL)
    found = asked(project, props=False)
    assert [model["id"] for model in found["models"]] == [listed]
    assert found["exported"] == MISTRAL
    assert (found["text"], found["answer"]) == ("What are you?", "What are you?")


def test_the_default_of_the_shipped_catalogue(project: Project) -> None:
    """Issue 15.4: its id is the one that the old server lists itself, so the client works with either."""
    from tasks.catalogue.load import load

    model = load(str(REPO / "models.yaml"), str(project.cache)).model("mistral")
    assert (model.id, model.serve.ctx_size) == (MISTRAL, 0)


def test_what_cannot_be_closed_is_said(project: Project) -> None:
    """Issue 15.2: at the start and by `doctor`, unless there is a key or the catalogue accepts it."""
    with_llamafile(project, version="0.9.3", engine_version="0.9.3")
    said = "m: llamafile 0.9.3 answers every web page that is open in a browser (CORS)"
    fix = "fix: set LLAMA_API_KEY, or serve a .gguf with --engine embedded or llama-server"
    [row] = [row for row in doctor(project) if row["check"] == "origins"]
    assert (row["state"], said in row["found"], "set LLAMA_API_KEY" in row["remedy"]) == ("warn", True, True)
    shown = project.doit("with", "--", "true").err
    assert f"warning: {said}" in shown
    assert fix in shown
    assert said not in project.doit("with", "--api-key", KEY, "--", "true").err
    assert not [row for row in doctor(project, LLAMA_API_KEY=KEY) if row["check"] == "origins"]
    with_llamafile(project, version="0.9.3", serve={"cors": "*"})
    assert said not in project.doit("with", "--", "true").err
    with_llamafile(project, version="0.9.3", serve={"cors": "https://app.example"})
    result = project.doit("with", "--", "true")
    assert result.status == 1
    assert "llamafile 0.9.3 cannot restrict which web pages use the server (CORS)" in result.err


def doctor(project: Project, **env: str) -> list[dict[str, Any]]:
    shown = project.doit("doctor", "--json", env={"LLAMAFILE_OFFLINE": "1", **env}).out
    return list(json.loads(shown))


def test_a_configuration_of_the_machine_is_reported(servers: Project) -> None:
    """Issue 15.1: nothing keeps llama.cpp from reading it."""
    project = servers
    config = project.path / "config.ini"
    config.write_text("[*]\n")
    project.set_constant("tasks/engine/environment.py", "SYSTEM_CONFIG", repr(str(config)))  # type: ignore[arg-type]
    with_llamafile(project)
    [row] = [row for row in doctor(project) if row["check"] == "config"]
    said = f"{config} changes the settings of llama.cpp's servers on this machine"
    assert (row["state"], row["found"]) == ("warn", said)
    assert project.background("start", "--port", "0").status == 0
    assert f"warning: {said}" in project.doit("status").err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "LLAMA_API_KEY",
            "LLAMA_API_KEY is not allowed in env; use LLAMA_API_KEY or --api-key: no key belongs here",
        ),
        ("LLAMA_ARG_PORT", "LLAMA_ARG_PORT is not allowed in env; use `port:`"),
        (
            "LLAMA_ARG_API_KEY_FILE",
            "LLAMA_ARG_API_KEY_FILE is not allowed in env; use LLAMA_API_KEY or --api-key",
        ),
        ("HF_TOKEN", "HF_TOKEN is not allowed in env; use HF_TOKEN: no token belongs here"),
        ("LLAMAFILE_RECIPE_RUN", "is not allowed in env; use another name: the recipe sets it"),
        ("A-B", "expected a name of letters, digits and '_'"),
    ],
)
def test_env_of_the_catalogue(project: Project, name: str, said: str) -> None:
    """Issue 15.1: what the recipe sets, and credentials, do not belong into `env:`."""
    with_llamafile(project, serve={"env": {name: "x"}})
    result = project.doit("plan")
    assert result.status == 3
    assert said in result.err
