"""Forged or damaged server records: no other program's process is ended.

Each runs in a PID namespace of its own: without the checks everything in it would be killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import REPO, Project
from tests.support.servers import failed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PID namespaces are Linux's")

ALONE = ["unshare", "--pid", "--fork", "--mount-proc"]

# Runs in the namespace as its first process: starts a bystander, writes a record that names it, runs doit
SCRIPT = """
import json, subprocess, sys, time
from pathlib import Path
from tasks.system import process_identity as owner
order = json.loads(sys.argv[1])
bystander = subprocess.Popen(["sleep", "600"])
values = order["values"]
process = {**owner.process(bystander.pid).as_record(), **order["process"]}
for name in order["drop"]:
    process.pop(name)
process["started"] += order["later"]
process["start_ticks"] = process.get("start_ticks", 0) + order["ticks"]
if not process["start_ticks"]:
    del process["start_ticks"]
values |= {"engine": process, "keeper": process if order["keeper"] else None}
path = Path(order["folder"], "m-1.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(values))
done = subprocess.run(order["command"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
print(json.dumps({
    "alive": bystander.poll() is None, "kept": path.exists(),
    "status": done.returncode, "out": done.stdout, "err": done.stderr,
}))
bystander.kill()
"""


@pytest.fixture
def alone() -> None:
    """Skip where a PID namespace may not be made."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    done = subprocess.run([*ALONE, "true"], capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"a PID namespace may not be made here: {done.stderr.strip()}")


def run(
    project: Project, verb: str, *, keeper: bool = True, later: float = 0.0, ticks: int = 0,
    drop: tuple[str, ...] = (), process: Any = None, **values: Any,
) -> dict[str, Any]:  # fmt: skip
    """Run `doit VERB` with a bystander recorded as an engine and its supervisor."""
    log = str(project.run_folder / "m-1.log")
    base = {
        "name": "m", "mode": "start", "host": "127.0.0.1", "port": 1, "spec": {}, "command": [], "log": log,
        "mark": "0123456789abcdef", "key": "", "state": "ready", "ready_s": 0.1, "owner": 1,
    }  # fmt: skip
    order = {
        "values": {**base, **values}, "process": process or {}, "keeper": keeper, "later": later,
        "ticks": ticks, "drop": drop, "folder": str(project.run_folder),
        "command": [project.doit_program, *verb.split()],
    }  # fmt: skip
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", SCRIPT, json.dumps(order)],
        cwd=project.path, env={**project.env, "PYTHONPATH": str(REPO)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = dict(json.loads(done.stdout))
    assert "Traceback" not in result["err"]
    return result


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("mark", ["", "0123456789ABCDEF"])
def test_a_mark_that_is_none(project: Project, mark: object) -> None:
    """Finding 3: it would be equal to what every process has that has no mark, and all were killed."""
    with_llamafile(project)
    for verb in ("stop", "status --json", "prune"):
        result = run(project, verb, mark=mark, process={"boot": "another"})
        assert result["alive"], verb
    assert not Path(project.path, "history").exists()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"process": {"boot": "another"}}, id="another boot"),
        pytest.param({"process": {"space": "pid:[1]"}}, id="another container"),
        pytest.param({"ticks": 1}, id="another start, one tick later"),
        pytest.param({"ticks": -1, "later": -0.01}, id="another start, one tick before"),
        pytest.param({"process": {"pid": 1}}, id="the first process"),
        pytest.param({"keeper": False}, id="on record as an engine without a keeper"),
        pytest.param({"keeper": False, "later": 1.0, "drop": ("start_ticks",)}, id="of an earlier version"),
    ],
)
def test_a_pid_that_a_stranger_has(project: Project, change: dict[str, Any]) -> None:
    """Finding 34: another start time is another process; a pid alone is no proof."""
    with_llamafile(project)
    result = run(project, "stop --all", **change)
    assert result["alive"]
    assert result["status"] == 0, result["err"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="crafted: its pid and its exact start"),
        pytest.param({"later": 1.0, "drop": ("start_ticks",)}, id="started at about the same time"),
    ],
)
def test_a_keeper_that_is_not_proven(project: Project, change: dict[str, Any]) -> None:
    """Finding 34: no process is ended, and the error has a fix."""
    with_llamafile(project)
    result = run(project, "stop", **change)
    assert result["alive"]
    assert result["kept"]
    assert result["status"] == 1
    assert "is recorded as m, but this cannot be verified; it was not ended" in result["err"]
    assert f"delete {project.run_folder / 'm-1.json'}" in result["err"]


@pytest.mark.parametrize(
    "change",
    [
        {"ended": []},
        {"ended": "x"},
        {"host": "\u0000"},
        {"log": "/etc/shadow"},
        {"port": 10**400},
        {"key": 5},
    ],
)
def test_a_record_with_another_kind_of_value(project: Project, change: dict[str, Any]) -> None:
    """Finding 28: every command that reads records ignores it."""
    with_llamafile(project)
    project.run_folder.mkdir(parents=True)
    values = {
        "name": "m", "mode": "start", "host": "127.0.0.1", "port": 1, "spec": {}, "command": [],
        "log": str(project.run_folder / "m-1.log"), "mark": "0123456789abcdef", "state": "stopped",
        "ended": 1, "ended_at": 1.0, "engine": {"pid": 1, "started": 1.0, "boot": "b", "space": "s"},
    }  # fmt: skip
    path = project.run_folder / "m-1.json"
    path.write_text(json.dumps(values))
    assert len(json.loads(project.doit("status", "--json").out)) == 1
    path.write_text(json.dumps({**values, **change}))
    assert json.loads(project.doit("status", "--json").out) == []
    assert "nothing runs here" in failed(project.doit("logs"))
    assert project.doit("stop").status == 0


def test_a_record_that_is_not_a_small_file(project: Project, tmp_path: Path) -> None:
    """Finding 28: a FIFO is not waited for, a link not followed, a large file not read."""
    with_llamafile(project)
    folder = project.run_folder
    folder.mkdir(parents=True)
    os.mkfifo(folder / "m-1.json")
    (folder / "m-2.json").symlink_to("/dev/zero")
    with open(folder / "m-3.json", "wb") as file:
        file.truncate(10**12)
    (folder / "m-4.json").write_text("[" * 100_000)
    assert project.doit("status", "--json").out == "[]\n"
    assert project.doit("stop").status == 0
