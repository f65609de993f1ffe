"""llama.cpp's own server as an engine: the one on PATH, as it is."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes.llamafile import gguf
from tests.support.llama_server import use
from tests.support.project import REPO, Project
from tests.support.servers import failed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the program of the tests is a shell script")

ENGINE = ("--engine", "llama-server")
ASKS = """
import json, os, urllib.request
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
body = json.dumps({"messages": [{"role": "user", "content": "What are you?"}], "max_tokens": 8}).encode()
request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(request, timeout=90))["choices"][0]["message"]["content"])
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A model of the user's own."""
    return str(shutil.copy(REPO / "demo" / "demo.gguf", tmp_path / "own.gguf"))


def test_from_a_file_to_an_answer(project: Project, llama_server: Path, own: str) -> None:
    """Issue 15.3: its version is asked once for each program, and is recorded."""
    (project.path / "bin").mkdir()
    program = project.path / "bin" / "llama-server"
    shutil.copy2(llama_server, program)
    use(project, program)
    ask = ("with", own, *ENGINE, "--", sys.executable, "-c", ASKS)
    result = project.doit(*ask)
    assert result.status == 0, result.err
    assert "own: engine OK, version: " in result.err
    assert "starting own (llama-server 1" in result.err
    assert len(result.out) > 1
    [row] = json.loads(project.doit("plan", own, *ENGINE, "--json").out)["engines"]
    assert (row["model"], row["engine"], row["reason"]) == ("own", "llama-server", "--engine")
    assert int(row["version"]) > 1000
    assert f"engine   own: llama-server {row['version']} (--engine)" in project.doit("plan", own, *ENGINE).out
    assert "-- verify:own" in project.doit("verify", own, *ENGINE).err
    os.utime(program)  # as an upgrade: another file
    assert ".  verify:own" in project.doit("verify", own, *ENGINE).err


def test_an_engine_that_fails(project: Project, llama_server: Path, tmp_path: Path) -> None:
    """Issue 15.3: its own words, what to do, and the other engines."""
    use(project, llama_server)
    (tmp_path / "new.gguf").write_bytes(gguf(4096))
    error = failed(project.doit("with", str(tmp_path / "new.gguf"), *ENGINE, "--", "true"))
    assert "new ended before it was ready" in error
    assert "unknown model architecture" in error
    assert "the model is newer than the engine: update llama-server" in error
    assert "or try another engine: --engine embedded, --engine llamafile" in error


def test_a_gpu_that_is_not_there(project: Project, llama_server: Path, own: str) -> None:
    """R24: it has no --gpu; what it prints about its GPU decides."""
    use(project, llama_server)
    error = failed(project.doit("with", own, *ENGINE, "--gpu", "nvidia", "--", "true"))
    assert "own was told to use the GPU, but runs on the CPU" in error
    assert project.doit("with", own, *ENGINE, "--gpu", "disable", "--", "true").status == 0


def test_it_is_not_installed(project: Project, own: str) -> None:
    """Issue 15.3: what to install, or which line of models.yaml to change: an installed engine first."""
    other = "embedded" if importlib.util.find_spec("xllamacpp") else "llamafile"
    project.env["PATH"] = "/usr/bin:/bin"
    fix = "install llama-server: brew install llama.cpp, apt install llama.cpp, or winget install llama.cpp"
    entry = project.entry("https://models.invalid/m.gguf", b"m", engine="llama-server")
    project.catalogue({"m": entry})
    for words in (["serve"], ["start", own, *ENGINE], ["verify", own, *ENGINE]):
        error = failed(project.doit(*words))
        assert "the engine llama-server is not on PATH" in error
        assert fix in error
        assert f"`engine: {other}` of the model in models.yaml" in error
    shown = project.doit("plan")
    assert shown.status == 1
    assert "engine   m: llama-server (`engine:` of the model)" in shown.out
    assert "cannot work: m: the engine llama-server is not on PATH" in shown.out
    checks = json.loads(project.doit("doctor", "--json", env={"LLAMAFILE_OFFLINE": "1"}).out)
    [row] = [row for row in checks if row["check"] == "llama-server"]
    assert (row["state"], row["remedy"].splitlines()[0]) == ("fail", fix)
