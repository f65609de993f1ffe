"""action.yml, run as a runner runs it (tests/fakes/github_runner.py): jobs one by one that share a cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_gitlab import with_variants
from tests.fakes import llamafile
from tests.fakes.github_runner import Job, Runner
from tests.fakes.server import FileServer, Status
from tests.server.test_serve_cli import AS_BEFORE, behave, runs
from tests.support import fork_server
from tests.support.ports import free_port
from tests.support.project import REPO, Project
from tests.support.stamps import restamp
from tests.test_readme import clone

TITLE = "::error title=llamafile-recipe::"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def runner(project: Project, server: FileServer, tmp_path: Path) -> Runner:
    """A runner whose action has the models a (the default) to e at a server."""
    shutil.copy2(REPO / "action.yml", project.path)
    forks = fork_server.write_programs(tmp_path / "forks", project.doit_program)
    project.env["PATH"] = f"{forks}{os.pathsep}{project.env['PATH']}"
    models = {}
    for number, name in enumerate("abcde"):
        data = llamafile.build(project.path / "built", version="0.10.5", pad=number).read_bytes()
        server.files[f"/{name}.llamafile"] = data
        models[name] = project.entry(server.url(f"/{name}.llamafile"), data, serve=AS_BEFORE)
    # another program may have 8080
    project.catalogue(models, defaults={"port": free_port()})
    behave(project)
    base = {name: text for name, text in project.env.items() if name != "LLAMAFILE_CACHE"}
    return Runner(tmp_path, project.path, base)


def use(**inputs: str) -> dict[str, Any]:
    """A step that uses the action; the first Python on the PATH has what it needs."""
    return {"id": "llm", "uses": "someone/llamafile-recipe@main", "with": inputs}


def hit(job: Job) -> str:
    assert job.ok, job.log
    return job.outputs["llm"]["cache-hit"]


def fetched(server: FileServer) -> list[str]:
    """The paths that were asked for since the last call."""
    found = sorted({request.path for request in server.requests})
    server.requests.clear()
    return found


def test_warm(runner: Runner, server: FileServer, project: Project) -> None:
    """Issue 5.9, R35: the first job downloads and saves; the second sends no request and does nothing.

    The caller's own doit finds what the action has brought.
    """
    later = {"run": "command -v doit; doit download:a && doit status || true; command -v python3"}
    first = runner.job([use(), later])
    assert (hit(first), fetched(server)) == ("false", ["/a.llamafile"])
    assert re.search(r"^::group::download:a\na: .* sha256 verified\n::endgroup::$", first.log, re.MULTILINE)
    assert first.log.count("::group::download:a") == 1
    steps = re.search(r"^.*/llamafile-recipe-bin/doit\n-- download:a\nnothing runs", first.log, re.MULTILINE)
    assert steps, first.log
    assert first.log.splitlines()[-1] == shutil.which("python3", path=project.env["PATH"])
    assert first.env["DOIT_FILE"] == str(project.path / "dodo.py")
    assert set(first.env) == {"LLAMAFILE_CACHE", "DOIT_FILE"}
    [path] = runner.home.glob(".cache/llamafile-recipe/models/*/a.llamafile")
    assert first.outputs["llm"]["model-path"] == str(path)
    [key] = runner.keys
    assert re.fullmatch(r"llamafile-recipe-a-[0-9a-f]{16}", key)
    second = runner.job([use()])
    assert (hit(second), fetched(server), runner.keys) == ("true", [], [key])
    assert "-- download:a\n-- chmod:a\n-- verify:a\n" in second.log
    assert "::group::" not in second.log
    assert second.outputs["llm"]["url"] == ""


def test_an_entry_for_each_model(runner: Runner, server: FileServer) -> None:
    """Issue 5.9: what is new is fetched and saved, what is there is not; a hit is that of every model."""
    hit(runner.job([use(models="a\nb")]))
    assert fetched(server) == ["/a.llamafile", "/b.llamafile"]
    job = runner.job([use(models="b,c,  d")])
    assert (hit(job), fetched(server)) == ("false", ["/c.llamafile", "/d.llamafile"])
    assert [key.split("-")[2] for key in runner.keys] == ["a", "b", "c", "d"]
    job = runner.job([use(models="d b")])
    assert (hit(job), fetched(server)) == ("true", [])
    paths = job.outputs["llm"]["model-path"].splitlines()
    assert [Path(path).name for path in paths] == ["d.llamafile", "b.llamafile"]


def test_a_variant(runner: Runner, server: FileServer, project: Project) -> None:
    """Issue 15.6: the input names it, of the key, the download, the path and the server."""
    with_variants(project.path / "models.yaml")
    unnamed = runner.job([use()])
    assert (unnamed.ok, "in CI, one has to be named" in unnamed.log) == (False, True), unnamed.log
    job = runner.job([use(variant="q4", mode="serve"), {"run": "doit status"}])
    assert (hit(job), fetched(server)) == ("false", ["/b.llamafile"])
    assert Path(job.outputs["llm"]["model-path"]).name == "b.llamafile"
    assert re.search(r"^v q4 ", job.log, re.MULTILINE), job.log
    assert hit(runner.job([use(variant="Q4")])) == "true"


def test_no_python(runner: Runner) -> None:
    """Issue 14.8: a machine without Python is told so, and what to do."""
    bare = runner.workspace / "bin"
    bare.mkdir()
    (bare / "bash").symlink_to("/bin/bash")
    job = runner.job([use(python="")], PATH=str(bare))
    assert not job.ok
    said = "there is no Python on the PATH; fix: use actions/setup-python before this action"
    assert f"{TITLE}{said}" in job.log


def test_serve(runner: Runner, project: Project) -> None:
    """Issue 5.9: servers for the steps that follow, which the variables name; none outlives the job."""
    code = (
        "import json, os, urllib.request as u; e = os.environ; "
        "q = json.dumps({'messages': [{'role': 'user', 'content': 'Hello'}]}).encode(); "
        "h = {'Content-Type': 'application/json', 'Authorization': 'Bearer ' + e['OPENAI_API_KEY']}; "
        "r = u.Request(e['OPENAI_BASE_URL'] + '/chat/completions', q, h); "
        "print('it says', json.load(u.urlopen(r))['choices'][0]['message']['content'])"
    )
    steps = [use(models="a b", mode="serve"), {"run": f'"{sys.executable}" -c "{code}"'}]
    job = runner.job(steps, LLAMA_API_KEY="secret-key")
    assert job.ok, job.log
    assert "it says Hello\n" in job.log
    urls = job.outputs["llm"]["url"].splitlines()
    assert [re.sub(r"\d+$", "N", url) for url in urls] == ["http://127.0.0.1:N"] * 2
    logs = job.outputs["llm"]["log"].splitlines()
    assert [Path(log).name.split("-")[0] for log in logs] == ["a", "b"]
    ours = ("LLAMAFILE_CACHE", "DOIT_FILE")
    assert {name: text for name, text in job.env.items() if name not in ours} == {
        "OPENAI_BASE_URL": f"{urls[0]}/v1", "OPENAI_API_KEY": "secret-key",
        "LLAMAFILE_URL": urls[0], "LLAMAFILE_MODEL": "a",
    }  # fmt: skip
    groups = re.findall(r"^::(group|endgroup)::", job.log, re.MULTILINE)
    assert groups == ["group", "endgroup"] * (len(groups) // 2)
    assert len([run for run in runs(project) if "--server" in run["argv"]]) == 2


def test_serve_behind_a_proxy(runner: Runner) -> None:
    """F35: later steps reach the server past the proxy; no value becomes a variable."""
    code = "import os, urllib.request as u; u.urlopen(os.environ['LLAMAFILE_URL'] + '/health'); print('well')"
    steps = [use(models="a", mode="serve"), {"run": f'"{sys.executable}" -c "{code}"'}]
    # the models' server is on this machine, too
    hosts = "127.0.0.1,localhost\nLD_PRELOAD=/x.so"
    job = runner.job(steps, http_proxy="http://127.0.0.1:9", NO_PROXY=hosts)
    assert job.ok, job.log
    assert "well\n" in job.log
    assert job.env["OPENAI_API_KEY"] == "none"
    joined = "127.0.0.1,localhost,LD_PRELOAD=/x.so"
    assert {name: job.env[name] for name in ("NO_PROXY", "no_proxy")} == {
        "NO_PROXY": joined, "no_proxy": joined,
    }  # fmt: skip
    assert "LD_PRELOAD" not in job.env


def test_a_poisoned_entry(runner: Runner, server: FileServer, project: Project) -> None:
    """Issue 11.2: another file with a stamp that fits, in the entry of the right key: it is never run."""
    ran = project.path / "evil-ran"
    assert hit(runner.job([use()])) == "false"
    [entry] = runner.entries()
    with tarfile.open(entry) as archive:
        [path] = [Path(one.path) for one in archive if one.path.endswith("/a.llamafile")]
    path.write_bytes(f"#!/bin/sh\ntouch '{ran}'\necho llamafile v0.10.5\n".encode())
    restamp(path)
    subprocess.run(["tar", "-cf", entry, "-P", path.parent], check=True)
    before = len(runs(project))
    job = runner.job([use(mode="serve")])
    assert not job.ok
    assert "differs: wrong SHA-256" in job.log
    assert "::error title=llamafile-recipe::the restored cache does not match models.yaml; fix" in job.log
    assert (ran.exists(), len(runs(project))) == (False, before)


def test_a_catalogue_of_ones_own(runner: Runner, project: Project) -> None:
    """Issue 5.9: seen from the workspace, by the input or by the job's variable."""
    (runner.workspace / "llm").mkdir()
    shutil.move(project.path / "models.yaml", runner.workspace / "llm" / "models.yaml")
    run = {"run": "cd / && doit cache-key"}
    first = runner.job([use(catalogue="llm/models.yaml"), run])
    assert hit(first) == "false"
    assert re.search(r"^llamafile-recipe-a-\w+\n\Z", first.log, re.MULTILINE)  # later steps have it, too
    assert hit(runner.job([use()], LLAMAFILE_CATALOGUE="llm/models.yaml")) == "true"


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        pytest.param({"mode": "fast"}, "::mode: expected warm or serve, got fast\n", id="mode"),
        pytest.param(
            {"mode": "warm\n::set-env name=PATH::x"}, "::mode: expected warm or serve\n", id="lines"
        ),
        pytest.param(
            {"python": "python3\nmodels=x"},
            "::python: expected the path of a Python interpreter\n",
            id="python",
        ),
        pytest.param(
            {"models": "a b c d e"},
            "::models: expected at most 4, got 5; fix: use the action twice\n",
            id="many",
        ),
        pytest.param({"models": "*"}, f"{TITLE}there is no model '*' in ", id="a pattern"),
        pytest.param({"models": "aa"}, f"{TITLE}there is no model 'aa' in ", id="unknown"),
        pytest.param(
            {"models": "a;touch${IFS}x"}, f"{TITLE}there is no model 'a;touch${{IFS}}x' in ", id="a command"
        ),
        pytest.param({"port": "99999", "mode": "serve"}, f"{TITLE}--port: expected ", id="port"),
    ],
)
def test_wrong_inputs(runner: Runner, server: FileServer, inputs: dict[str, str], said: str) -> None:
    """R14, R28: an annotation that says what was expected; the job fails, and nothing is saved."""
    mine = runner.workspace / "a"
    mine.touch()  # a pattern would mean it
    job = runner.job([use(**inputs)])
    assert not job.ok
    assert said in job.log
    assert (runner.keys, fetched(server), list(runner.workspace.iterdir())) == ([], [], [mine])


def test_no_file_of_the_workspace_is_imported(runner: Runner) -> None:
    """Finding 25: not in the place of a package, of a module of Python, or of the recipe; no port is fine."""
    for name in ("yaml", "filelock", "csv", "doit", "tasks", "json", "requests"):
        (runner.workspace / f"{name}.py").write_text('print("HIJACKED", flush=True)\nraise SystemExit(9)\n')
    job = runner.job([use(models="a", mode="serve", port="", python=sys.executable)])
    assert job.ok, job.log
    assert "HIJACKED" not in job.log
    assert job.outputs["llm"]["url"].startswith("http://127.0.0.1:")


def test_a_value_cannot_become_a_variable(runner: Runner) -> None:
    """Finding 25: whatever a value has in it, the steps that follow get that variable alone."""
    key = "key\nLD_PRELOAD=/tmp/evil.so\nend_of_urls\n"
    job = runner.job([use(models="a", mode="serve")], LLAMA_API_KEY=key)
    assert set(job.env) <= {
        *(
            "DOIT_FILE",
            "LLAMAFILE_CACHE",
            "OPENAI_BASE_URL",
            "OPENAI_API_KEY",
            "LLAMAFILE_URL",
            "LLAMAFILE_MODEL",
        )
    }


def test_a_download_that_fails(runner: Runner, server: FileServer) -> None:
    """Issue 5.9, R35: the error is an annotation with its title, and no half of a model is saved."""
    server.always("/b.llamafile", Status(404))
    job = runner.job([use(models="a b")])
    assert not job.ok
    [line] = re.findall("^::error .*$", job.log, re.MULTILINE)
    assert line.startswith("::error title=download%3Ab::b could not be downloaded")
    assert "%0A  " in line
    assert job.log.count("::group::") == job.log.count("::endgroup::")
    assert not runner.keys


def test_it_installs_itself(tmp_path: Path) -> None:
    """Issue 5.9: in an environment of its own, with the embedded engine; the caller's Python stays.

    pip builds and installs the recipe; what that needs, it finds in the environment of these tests. That
    everything can be fetched and installed anew is what the README's test proves.
    """
    action = tmp_path / "action"
    clone(action)
    python = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", python], check=True)
    wrapper = tmp_path / "bin" / "python3"
    wrapper.parent.mkdir()
    here = sysconfig.get_path("purelib")
    wrapper.write_text(
        f"""#!/bin/sh -e
        [ "$1 $2 $3" = "-I -m venv" ] || exec "{python}/bin/python3" "$@"
        "{python}/bin/python3" "$@" --without-pip
        echo "{here}" > "$(echo "$4"/lib/python*/site-packages)/here.pth"
        """
    )
    wrapper.chmod(0o755)
    base = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    base["PATH"] = f"{wrapper.parent}:/usr/bin:/bin"
    before = sorted(python.rglob("*"))
    job = Runner(tmp_path, action, base).job(
        [{"id": "llm", "uses": "x/llamafile-recipe@main", "with": {"models": "demo", "mode": "serve"}}]
    )
    assert job.ok, job.log
    assert "demo: engine OK, embedded" in job.log
    assert job.outputs["llm"]["url"].startswith("http://127.0.0.1:")
    [installed] = tmp_path.glob(
        "temp/llamafile-recipe/lib/python*/site-packages/llamafile_recipe-*.dist-info"
    )
    assert (installed / "REQUESTED").exists()
    assert sorted(python.rglob("*")) == before
