"""An engine gets no credential of the user; no API key outlives its server."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes.llamafile import MAGIC
from tests.server.test_serve_cli import with_llamafile
from tests.support.project import Project, wait_until
from tests.support.servers import alive, record, records, started, write_record

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

KEY = "sk-sesame-4711"
PRIVATE = {
    "HF_TOKEN": "hf_private", "GITHUB_TOKEN": "ghp_private", "MY_PASSWORD": "private",
    "AWS_SECRET_ACCESS_KEY": "private", "ALL_PROXY": "http://user:private@127.0.0.1:9",
    "DATABASE_URL": "postgres://user:private@db/x", "OPENAI_API_KEY": "private",
    "NVIDIA_API_KEY": "private", "LLAMAFILE_MIRROR_TOKEN": "private",
}  # fmt: skip


def hidden_in(environment: dict[str, str]) -> None:
    """Nothing of PRIVATE is there; what engines need is."""
    assert not PRIVATE.keys() & environment.keys()
    assert "private" not in str(environment)
    assert environment["PATH"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS hides the environment of system programs")
def test_the_environment_of_a_server(servers: Project) -> None:
    """Finding 22: neither the engine nor its supervisor gets a credential."""
    with_llamafile(servers)
    started(servers, "--port", "0", env={**PRIVATE, "CUDA_VISIBLE_DEVICES": "0", "LLAMA_API_KEY": KEY})
    for one in ("engine", "keeper"):
        environment = psutil.Process(record(servers)[one]["pid"]).environ()
        hidden_in(environment)
        assert KEY not in str(environment)


def test_the_environment_of_version(project: Project) -> None:
    """Finding 22: a program is asked for its version before anything else; it gets no key either."""
    seen = project.path / "seen.json"
    code = f"import json, os; json.dump(dict(os.environ), open({str(seen)!r}, 'w'))"
    script = f'{sys.executable} -c "{code}"\necho llamafile v0.10.5\n'
    data = MAGIC + b"\n'\n" + script.encode()
    (project.path / "m.llamafile").write_bytes(data)
    project.catalogue({"m": project.entry("m.llamafile", data)})
    result = project.doit("verify", env={**PRIVATE, "CUDA_VISIBLE_DEVICES": "0", "LLAMA_API_KEY": KEY})
    assert result.status == 0, result.err
    environment = json.loads(seen.read_text())
    hidden_in(environment)
    assert KEY not in str(environment)


def test_the_environment_of_a_command(project: Project) -> None:
    """`doit with`: the command is the user's own, and has all of the user's environment."""
    with_llamafile(project)
    code = "import os; print(os.environ['HF_TOKEN'], os.environ['ALL_PROXY'])"
    result = project.doit("with", "--", sys.executable, "-c", code, env=PRIVATE)
    assert (result.status, result.out) == (0, f"hf_private {PRIVATE['ALL_PROXY']}\n"), result.err


def with_key(project: Project) -> Path:
    """The run folder while it has a key in it, and whatever is in there."""
    assert any(KEY in path.read_text() for path in project.run_folder.iterdir())
    return project.run_folder


def assert_no_key(project: Project) -> None:
    for path in project.run_folder.iterdir():
        assert KEY not in path.read_text("utf-8", "replace"), path


def test_the_engine_has_ended(servers: Project) -> None:
    """Finding 23: it ended by itself; its record stays, without the key."""
    with_llamafile(servers)
    started(servers, "--port", "0", "--api-key", KEY)
    folder = with_key(servers)
    os.kill(record(servers)["engine"]["pid"], signal.SIGKILL)
    wait_until(lambda: record(servers)["state"] == "stopped")
    assert_no_key(servers)
    assert stat.S_IMODE(records(servers)[0].stat().st_mode) == 0o600
    assert list(folder.glob("*.key")) == []


@pytest.mark.parametrize("words", [["status"], ["prune"], ["stop"], ["start", "--port", "0"]])
def test_the_keeper_was_killed(servers: Project, words: list[str]) -> None:
    """Finding 23: nobody was there to take the key away; the next command does."""
    with_llamafile(servers)
    started(servers, "--port", "0", "--api-key", KEY)
    run = record(servers)
    os.kill(run["keeper"]["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(run["keeper"]["pid"]) and not alive(run["engine"]["pid"]))
    with_key(servers)
    servers.background(*words)
    assert_no_key(servers)


def test_a_record_of_an_earlier_version(project: Project) -> None:
    """Finding 23: records that have the key still, and key files that no engine has read."""
    with_llamafile(project)
    assert project.doit("verify").status == 0
    gone = {"pid": 2**22 + 1, "started": 1.0, "boot": "before", "space": ""}
    ended: dict[str, Any] = {"state": "stopped", "ended": 1, "ended_at": 1.0, "engine": gone, "keeper": gone}
    path = write_record(project, 1, key=KEY, **ended)
    beside, lone, young = (path.with_name(f"m-{n}.key") for n in (1, 2, 3))
    for one in (beside, lone, young):
        one.write_text(f"{KEY}\n" if one != young else "young")
    os.utime(lone, (1, 1))
    assert project.doit("status").status == 1
    assert_no_key(project)
    assert json.loads(path.read_text()) == {**json.loads(path.read_text()), **ended, "key": ""}
    assert (beside.exists(), lone.exists(), young.exists()) == (False, False, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--host", "0.0.0.0"], "--host is not allowed in args; use `host:`"),
        (["--api-key=x"], "--api-key is not allowed in args; use LLAMA_API_KEY"),
    ],
)
def test_args_of_the_catalogue(project: Project, args: list[str], said: str) -> None:
    """Finding 9: what opens a server is an error of models.yaml, with its line; nothing is started."""
    with_llamafile(project, serve={"args": args})
    result = project.doit("serve", "--port", "0")
    assert (result.status, result.out) == (3, "")
    assert f": models.m.serve.args.0: {said}" in result.err
    result = project.doit("serve", "--port", "0", "--", *args)
    assert result.status == 3
    assert not (project.path / "history").exists()
