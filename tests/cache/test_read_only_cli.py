"""A cache that nobody can write: everything that needs no new byte works, and leaves nothing elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.test_serve_cli import serving, with_gguf, with_llamafile
from tests.support.project import Project
from tests.support.servers import failed, started
from tests.support.users import AsUser

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and users as Linux has them")


def by_download(project: Project) -> None:
    assert project.doit("download").status == 0


def by_verify(project: Project) -> None:
    assert project.doit("verify").status == 0


def by_copy(project: Project) -> None:
    """Another disk, whose files have other times and other inode numbers."""
    by_verify(project)
    first = project.cache.rename(project.cache.with_name("first"))
    shutil.copytree(first, project.cache, copy_function=shutil.copyfile)
    shutil.rmtree(first)


def by_copy_of_the_files(project: Project) -> None:
    """Only what was downloaded: no tag, no stamp, no folder of locks."""
    by_copy(project)
    for path in project.cache.iterdir():
        if path.name not in ("models", "engines"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in project.cache.rglob("*.stamp.json"):
        path.unlink()


WARMED = (by_download, by_verify, by_copy, by_copy_of_the_files)


@pytest.fixture
def temporary(project: Project, tmp_path: Path) -> Path:
    """The folder for temporary files, in which nothing may stay."""
    place = tmp_path / "tmp"
    place.mkdir()
    project.env["TMPDIR"] = str(place)
    return place


def verbs_work(project: Project) -> None:
    """Every verb that needs no new byte and leaves no server, in the order of a first hour."""
    for words, status in (
        (["catalogue"], 0),
        (["plan"], 0),
        (["download"], 0),
        (["verify"], 0),
        (["with", "--", "true"], 0),
        (["status"], 1),
        (["logs"], 1),
        (["stop"], 0),
        (["audit"], 0),
        (["bom"], 0),
        (["prune", "--dry-run"], int(not (project.cache / "CACHEDIR.TAG").exists())),
    ):
        result = project.doit(*words)
        assert (result.status, "Permission denied" in result.err) == (status, False), (words, result)


def everything_works(project: Project) -> None:
    """Those, and a server of each kind."""
    verbs_work(project)
    chat = project.doit("chat", "Hello")
    assert (chat.status, chat.out) == (0, "Hello\n"), chat.err
    parallel = project.process("-n", "2", "verify")
    assert parallel.status == 0, parallel.err
    with serving(project, "serve", "--port", "0"):
        pass
    a_server_in_the_background(project, "m")


def a_server_in_the_background(project: Project, model: str) -> None:
    """Issue 14.6: it is recorded in the state directory, where every verb on servers finds it."""
    url = started(project, "--port", "0")
    port = url.rpartition(":")[2]
    status = project.doit("status", "--json")
    [row] = json.loads(status.out)
    assert (status.status, row["url"]) == (0, url), status
    assert row["log"].startswith(project.env["HOME"])
    chat = project.doit("chat", "Hello")
    assert (chat.status, chat.out) == (0, "Hello\n"), chat.err
    assert project.doit("logs").out
    stopped = project.doit("stop")
    assert (stopped.status, f"stopping {model} at {url}" in stopped.err) == (0, True), stopped
    assert project.doit("status").status == 1
    log = project.doit("logs", "--model", model, "--port", port)
    assert (log.status, bool(log.out)) == (0, True), log


@pytest.mark.parametrize(
    ("warm", "kind"), [*((warm, with_llamafile) for warm in WARMED), (by_copy_of_the_files, with_gguf)]
)
def test_a_read_only_mount(
    project: Project,
    temporary: Path,
    mount: Callable[..., Path],
    warm: Callable[[Project], None],
    kind: Callable[[Project], object],
) -> None:
    """F2, F22: what cannot be kept costs time, not the run; and no folder stays in TMPDIR."""
    kind(project)
    project.cache = mount("mode=0755") / "cache"
    project.env["LLAMAFILE_CACHE"] = str(project.cache)
    warm(project)
    for name in ("m.llamafile", "g.gguf", "llamafile-0.10.5"):  # nothing but the cache has the bytes
        (project.path / name).unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", str(project.cache.parent)], check=True, timeout=30)
    if kind is with_gguf:
        verbs_work(project)
        a_server_in_the_background(project, "g")
    elif warm is by_copy_of_the_files:
        everything_works(project)
    else:
        verbs_work(project)
    assert list(temporary.iterdir()) == []


def test_another_users_cache(shared: Project, user: AsUser) -> None:
    """F2: mode 0555, and its files are another user's: as on a read-only mount."""
    with_llamafile(shared)
    by_download(shared)
    (shared.path / "history").touch()
    (shared.path / "history").chmod(0o666)
    for path in (shared.cache, *shared.cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    other = user(0)
    for words in (["download"], ["verify"], ["with", "--", "true"], ["audit"]):
        result = other.doit(*words)
        assert (result.status, "Permission denied" in result.err) == (0, False), (words, result)
    assert other.background("start", "--port", "0").status == 0
    assert other.doit("chat", "Hello").out == "Hello\n"
    assert other.doit("stop").status == 0


def test_wrong_bytes(project: Project, temporary: Path, mount: Callable[..., Path]) -> None:
    """F2: what does not have its digest is never used, and the error says why it stays wrong."""
    with_llamafile(project)
    project.cache = mount("mode=0755") / "cache"
    project.env["LLAMAFILE_CACHE"] = str(project.cache)
    by_verify(project)
    [target] = project.cache.glob("models/*/m.llamafile")
    target.write_bytes(b"#!/bin/sh\n" + target.read_bytes()[10:])
    subprocess.run(["mount", "-o", "remount,ro", str(project.cache.parent)], check=True, timeout=30)
    for words in (["download"], ["verify"], ["with", "--", "true"]):
        said = failed(project.doit(*words))
        assert "cannot write to the cache " in said
        assert "Read-only file system\n  fix: set LLAMAFILE_CACHE to a directory you can write to" in said
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("folder", ["locks", "models", "run", "catalogue", "stamps", "roots"])
def test_a_folder_of_another_user(project: Project, temporary: Path, folder: str) -> None:
    """F2: one part of the cache that cannot be written, and the rest can."""
    if os.geteuid() != 0:
        pytest.skip("an immutable folder needs root")
    with_llamafile(project)
    by_download(project)
    place = project.cache / folder
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "--bind", str(place), str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True, timeout=30)
        for words in (["download"], ["verify"], ["with", "--", "true"], ["plan"]):
            result = project.doit(*words)
            assert result.status == 0, (words, result)
        assert project.doit("status").status == 1
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=30)
    assert list(temporary.iterdir()) == []
