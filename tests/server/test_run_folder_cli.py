"""The run folder: full, another user's, or read-only; no server is lost."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.test_serve_cli import behave, url_in, with_llamafile
from tests.support.project import Project, interrupt, wait_until
from tests.support.servers import engines, failed, record, records, rows, started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and owners as Linux has them")

ANOTHER = 4242  # a user that is not the one of the tests


@pytest.fixture
def disk(project: Project, mount: Callable[..., Path]) -> Iterator[Project]:
    """A project whose cache is a file system of its own, with a model that is verified."""
    project.cache = mount("mode=0755")
    project.env["LLAMAFILE_CACHE"] = str(project.cache)
    with_llamafile(project)
    assert project.doit("verify").status == 0
    try:
        yield project
    finally:
        for process in project.processes():
            process.kill()
        wait_until(lambda: not project.processes())


def fill(project: Project) -> Path:
    """Take the last block of the disk; the file that has it."""
    path = project.cache / "fill"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_a_full_disk_at_the_start(disk: Project) -> None:
    """Finding 6: what cannot be put on record is ended, and the reason is given; then it works."""
    path = fill(disk)
    said = failed(disk.background("start", "--port", "0"))
    assert "ERROR: m was not started: cannot write " in said
    assert "No space left on device\n  fix: free some space, or set LLAMAFILE_CACHE" in said
    assert disk.processes() == []
    assert records(disk) == []
    path.unlink()
    started(disk, "--port", "0")
    assert disk.doit("stop").status == 0


def test_a_full_disk_when_it_is_ready(disk: Project) -> None:
    """Finding 6: it can be found and stopped meanwhile, and is on record as ready when there is space."""
    behave(disk, load_seconds=3)
    words = [disk.doit_program, "start", "--port", "0"]
    with subprocess.Popen(words, cwd=disk.path, env=disk.env, stdout=subprocess.PIPE, text=True) as start:
        wait_until(lambda: records(disk))
        path = fill(disk)
        out, _ = start.communicate(timeout=60)
    assert start.returncode == 0
    assert record(disk)["state"] == "starting"
    assert disk.background("start", "--port", "0").out == out
    assert len(engines(disk)) == 1
    path.unlink()
    wait_until(lambda: record(disk)["state"] == "ready")
    assert [row["state"] for row in rows(disk)] == ["ready"]
    assert disk.doit("stop").status == 0


@pytest.fixture
def others(project: Project, tmp_path: Path) -> Project:
    """A project whose run folder is another user's; doit has no right of root's to pass that over."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("giving a folder to another user needs root, and setpriv to give up its rights")
    with_llamafile(project)
    assert project.doit("verify").status == 0
    project.run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(project.run_folder, ANOTHER, ANOTHER)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    project.env["TMPDIR"] = str(temporary)
    script = tmp_path / "doit"
    rights = "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown"
    script.write_text(f'#!/bin/sh\nexec setpriv {rights} {shlex.quote(project.doit_program)} "$@"\n')
    script.chmod(0o755)
    project.doit_program = str(script)
    done = subprocess.run([*script.read_text().split()[2:4], "ls", str(project.run_folder)], check=False)
    if done.returncode == 0:
        pytest.skip("the rights of root cannot be given up here")
    return project


def temporary(project: Project) -> list[Path]:
    return list(Path(project.env["TMPDIR"]).glob("llamafile-recipe-*"))


def test_another_users_folder(others: Project) -> None:
    """Issue 14.6: nothing is written there; a server is recorded in the state directory of its user."""
    url = started(others, "--port", "0")
    assert [row["url"] for row in rows(others)] == [url]
    assert others.doit("stop").status == 0
    assert list(others.run_folder.iterdir()) == []


def test_no_folder_at_all(others: Project, tmp_path: Path) -> None:
    """Findings 6, 28, 30: `start` refuses it; what runs in the foreground takes a folder of its own."""
    (tmp_path / "file").touch()
    others.env["LLAMAFILE_STATE"] = str(tmp_path / "file")
    said = failed(others.background("start", "--port", "0"))
    assert "`doit start` cannot record its server, so no command could find and stop it" in said
    assert f"folder: {tmp_path}/file/run/" in said
    assert "fix: set LLAMAFILE_STATE to " in said
    assert engines(others) == []
    result = others.doit("with", "--", sys.executable, "-c", "print('it ran')")
    assert (result.status, result.out) == (0, "it ran\n"), result.err
    result = others.doit("chat", "Hello")
    assert result.status == 0, result.err
    with others.start("serve", "--port", "0") as running:
        url_in(running.wait_for("m is ready at"))
        assert len(temporary(others)) == 1
        interrupt(running)
        assert running.finish().status == 0
    assert temporary(others) == []
    for words in (["status"], ["logs"], ["logs", "--model", "m"], ["prune", "--dry-run"]):
        assert others.doit(*words).status in (0, 1)
    assert others.doit("stop").status == 0


def test_an_engine_that_fails_in_a_temporary_folder(others: Project, tmp_path: Path) -> None:
    """Finding 30: the folder goes, and no message names a log in it."""
    (tmp_path / "file").touch()
    others.env["LLAMAFILE_STATE"] = str(tmp_path / "file")
    behave(others, crash={"text": "no such thing", "status": 7})
    said = failed(others.doit("serve", "--port", "0"))
    assert "no such thing" in said
    assert "log: " not in said
    assert temporary(others) == []


def test_a_version_is_asked_in_a_temporary_folder(project: Project, tmp_path: Path) -> None:
    """Finding 30: a cache without a run folder: what takes its place goes as well."""
    with_llamafile(project)
    place = tmp_path / "tmp"
    place.mkdir()
    project.env["TMPDIR"] = str(place)
    project.cache.mkdir()
    (project.cache / "run").write_text("a file where a folder should be")
    assert project.doit("verify").status == 0
    assert list(place.iterdir()) == []


def test_a_record_is_private_to_its_user(servers: Project) -> None:
    """Decision on finding 3: a record of another user ends nothing, and its server is left alone."""
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    with_llamafile(servers)
    started(servers, "--port", "0")
    [path] = records(servers)
    os.chown(path, ANOTHER, ANOTHER)
    assert json.loads(servers.doit("status", "--json").out) == []
    result = servers.doit("stop")
    assert (result.status, result.err) == (0, "nothing runs\n")
    assert path.exists()
    os.chown(path, os.geteuid(), -1)
    assert [row["state"] for row in rows(servers)] == ["ready"]


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_run_folder_behind_a_link(project: Project, tmp_path: Path) -> None:
    """Nothing is written there, be it in the cache or in the state directory."""
    pytest.importorskip("xllamacpp")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (project.cache, tmp_path / "state"):
        place.mkdir(exist_ok=True)
        (place / "run").symlink_to(elsewhere)
    project.env["LLAMAFILE_STATE"] = str(tmp_path / "state")
    result = project.doit("start", "--model", "demo", "--port", "0")
    assert (result.status, "cannot record its server" in result.err) == (1, True), result
    assert project.process("with", "--model", "demo", "--", sys.executable, "-c", "1").status == 0
    assert list(elsewhere.iterdir()) == []


def test_the_state_directory(servers: Project, tmp_path: Path) -> None:
    """Issue 14.6: LLAMAFILE_STATE has records, logs and locks, mode 0700; a server of before is found."""
    with_llamafile(servers)
    before = started(servers, "--port", "0")
    servers.env["LLAMAFILE_STATE"] = str(tmp_path / "state")
    assert [row["url"] for row in rows(servers)] == [before]
    said = failed(servers.background("start", "--ctx-size", "99"))
    assert f"m is already running at {before}, with other settings" in said
    assert servers.doit("stop").status == 0
    url = started(servers, "--port", "0")
    [row] = rows(servers)
    assert row["url"] == url
    assert row["log"].startswith(f"{tmp_path}/state/run/")
    folder = Path(row["log"]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "state" / "locks").glob("start-*.lock"))
    assert not records(servers)
    del servers.env["LLAMAFILE_STATE"]
    assert rows(servers) == []
    servers.env["LLAMAFILE_STATE"] = str(tmp_path / "state")
    assert servers.doit("stop").status == 0


def test_folders_of_containers(servers: Project) -> None:
    """Issue 17.9: of names that come once, the last ten folders of logs stay, and each with a record."""
    with_llamafile(servers)
    run = servers.run_folder.parent
    for number in range(14):
        folder = run / f"pod-{number:02}-0"
        folder.mkdir(parents=True)
        for name in ("m-8080.log", "m-8080.log.1"):
            (folder / name).write_text("x")
            os.utime(folder / name, (number, number))
        os.utime(folder, (number, number))
    (run / "pod-00-0" / "m-8080.json").write_text("{}")
    (run / "pod-01-0" / "notes").write_text("of somebody else")
    os.utime(run / "pod-02-0")
    started(servers, "--port", "0")
    gone = {f"pod-{number:02}-0" for number in range(14)} - {path.name for path in run.iterdir()}
    assert gone == {"pod-03-0", "pod-04-0"}
    assert servers.run_folder.is_dir()
