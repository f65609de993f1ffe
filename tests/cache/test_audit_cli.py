"""`doit audit`: every byte that is here is read again, whatever the stamps say; what is wrong gets mended."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import with_gguf
from tests.support.partials import leave_partial
from tests.support.project import Project, interrupt
from tests.support.stamps import restamp

DATA = {name: noise(name.encode(), 50_000) for name in "abc"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and sparse files")


@pytest.fixture
def models(project: Project) -> Project:
    """A project of three models beside models.yaml, of which `a` and `b` are here."""
    for name, data in DATA.items():
        (project.path / f"{name}.llamafile").write_bytes(data)
    project.catalogue({name: project.entry(f"{name}.llamafile", data) for name, data in DATA.items()})
    result = project.doit("download", "--model", "a", "--model", "b")
    assert result.status == 0, result.err
    return project


def target(project: Project, name: str = "a") -> Path:
    return project.target(DATA[name], f"{name}.llamafile")


def rot(path: Path) -> None:
    """Flip a bit, and leave size and time of the last write as they were."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def rows(project: Project, *args: str, status: int = 0) -> dict[str, dict[str, Any]]:
    """What `doit audit --json` says of each file, by its name."""
    result = project.doit("audit", "--json", *args)
    assert result.status == status, result.err
    return {os.path.basename(row["file"]): row for row in json.loads(result.out)}


def error(project: Project, *args: str) -> str:
    """What is said on stderr where something differs."""
    result = project.doit("audit", *args)
    assert result.status == 1, result.out
    return result.err


def test_all_is_well(models: Project) -> None:
    """Issue 5.6: a line for each file that is here; what is not here is counted, and is no failure."""
    result = models.doit("audit")
    assert (result.status, result.err) == (0, "")
    first, *files, last = result.out.splitlines()
    assert first.split() == ["model", "size", "verdict", "file"]
    for line, name in zip(files, "ab", strict=True):
        path = target(models, name).relative_to(models.cache).as_posix()
        assert line.split() == [name, "50.0", "kB", "ok", path]
    assert last.startswith("2 files, 100.0 kB, in ")
    assert last.endswith(f"1 file of the catalogue not downloaded. Cache: {models.cache}")


def test_for_programs(models: Project) -> None:
    """Issue 5.6: the same as a list, on stdout and nothing else."""
    found = rows(models)
    digest = hashlib.sha256(DATA["a"]).hexdigest()
    assert found["a.llamafile"] == {
        "file": str(target(models)), "models": ["a"], "in_catalogue": True, "size": 50_000,
        "verdict": "ok", "expected": f"sha256:{digest}", "got": f"sha256:{digest}",
    }  # fmt: skip
    assert {name: row["verdict"] for name, row in found.items()} == {
        "a.llamafile": "ok",
        "b.llamafile": "ok",
    }  # c was never downloaded


def test_a_file_that_was_here(models: Project) -> None:
    """Issue 14.8: a file is missing if its stamp says that it was here, or if its model is named."""
    target(models, "b").unlink()
    assert {name: row["verdict"] for name, row in rows(models).items()} == {
        "a.llamafile": "ok",
        "b.llamafile": "missing",
    }
    assert rows(models, "--model", "c")["c.llamafile"]["verdict"] == "missing"


@pytest.mark.parametrize("words", [["audit", "--model", "c"], ["audit:c"]])
def test_nothing_here(models: Project, words: list[str]) -> None:
    """Issue 5.6: says so, and is no failure."""
    result = models.doit(*words)
    said = f"nothing to audit: 1 file of the catalogue not downloaded. Cache: {models.cache}\n"
    assert (result.status, result.out, result.err) == (0, said, "")
    assert rows(models, "--model", "c")["c.llamafile"]["verdict"] == "missing"


def test_rot_is_found_and_mended(models: Project) -> None:
    """Issue 5.6: a byte changes, size and time do not: the stamp still says that all is well, the audit
    does not, and the command that it names really fetches the file again."""
    rot(target(models))
    restamp(target(models))
    assert models.doit("download:a").err == "-- download:a\n"
    wrong = hashlib.sha256(target(models).read_bytes()).hexdigest()
    right = hashlib.sha256(DATA["a"]).hexdigest()
    result = models.doit("audit")
    assert result.status == 1
    assert "differs: wrong SHA-256" in result.out
    assert result.err.splitlines() == [
        "ERROR: 1 file failed verification",
        f"  {target(models)}:",
        f"      expected sha256:{right}",
        f"      got sha256:{wrong}",
        "  fix: doit download:a",
    ]
    result = models.doit("download:a")
    assert result.status == 0
    assert "has changed on disk; downloading it again" in result.err
    assert target(models).read_bytes() == DATA["a"]
    assert models.doit("audit").status == 0


def test_rot_is_found_twice(models: Project) -> None:
    """Issue 5.6: an audit that has found it takes nothing from the next one; --model looks at one alone."""
    rot(target(models))
    rot(target(models, "b"))
    for _ in range(2):
        found = rows(models, status=1)
        assert [found[f"{name}.llamafile"]["verdict"] for name in "ab"] == ["differs", "differs"]
    said = error(models)
    assert "ERROR: 2 files failed verification" in said
    assert "  fix:\n      doit download:a\n      doit download:b\n" in said
    assert "a.llamafile" not in error(models, "--model", "b")
    assert models.doit("audit:c").status == 0


def test_rot_of_what_nothing_pins(project: Project) -> None:
    """Issue 5.6: where only the stamp knows the digest it is held to that, and mended from there."""
    (project.path / "a.llamafile").write_bytes(DATA["a"])
    project.catalogue({"a": project.entry("a.llamafile")})
    assert project.doit("download").status == 0
    result = project.doit("audit")
    assert result.status == 0
    assert " as its stamp says; not pinned " in result.out
    [path] = project.cache.glob("models/*/a.llamafile")
    rot(path)
    assert "fix: doit download:a" in error(project)
    assert project.doit("download").status == 0
    assert path.read_bytes() == DATA["a"]
    assert rows(project)["a.llamafile"]["verdict"] == "not pinned"


def test_what_the_lock_pins(project: Project) -> None:
    """Issue 5.6: the lock's digest is as good as the catalogue's: held to it, and kept by `doit prune`."""
    (project.path / "a.llamafile").write_bytes(DATA["a"])
    project.catalogue({"a": project.entry("a.llamafile")})
    pin = {"url": "a.llamafile", "sha256": hashlib.sha256(DATA["a"]).hexdigest(), "size": 50_000}
    row = {**pin, "license": "MIT", "digest_from": "a test", "since": "2026-11-25"}
    lock = {"version": 1, "models": {"a": [row]}}
    (project.path / "models.lock").write_text(json.dumps(lock), "utf-8")
    assert project.doit("download").status == 0
    assert rows(project)["a.llamafile"]["verdict"] == "ok"
    assert project.doit("prune").status == 0
    assert target(project).exists()
    rot(target(project))
    assert "fix: doit download:a\n" in error(project)
    assert project.doit("download").status == 0
    assert target(project).read_bytes() == DATA["a"]


def test_rot_of_the_program(project: Project) -> None:
    """Issue 5.6: llamafile's own program is a file like any other."""
    _, exe = with_gguf(project)
    assert project.doit("verify").status == 0
    assert rows(project)["llamafile-0.10.5"]["verdict"] == "ok"
    right = exe.read_bytes()
    rot(exe)
    assert "fix: doit exe\n" in error(project)
    assert project.doit("exe").status == 0
    assert exe.read_bytes() == right
    assert project.doit("audit").status == 0


def test_what_the_catalogue_does_not_name(models: Project) -> None:
    """Issue 5.6: a file from elsewhere is held to its stamp, and said to be none of the catalogue's."""
    models.catalogue({"b": models.entry("b.llamafile", DATA["b"])})
    row = rows(models)["a.llamafile"]
    assert (row["verdict"], row["in_catalogue"], row["models"]) == ("not pinned", False, [])
    assert "as its stamp says; not in the catalogue" in models.doit("audit").out
    rot(target(models))
    said = error(models)
    assert f"expected sha256:{hashlib.sha256(DATA['a']).hexdigest()}" in said
    assert f"fix: `doit prune`, or delete {target(models).parent}" in said


@linux
def test_a_wrong_size_is_seen_without_reading(models: Project) -> None:
    """Issue 5.6: a file of a terabyte (of zeros, on no disk) that should have 50 kB is judged at once."""
    os.truncate(target(models), 10**12)
    row = rows(models, status=1)["a.llamafile"]
    assert (row["verdict"], row["expected"], row["got"]) == ("differs", "50000 bytes", "1000000000000 bytes")


def test_a_wrong_size_in_the_catalogue(models: Project) -> None:
    """Issue 5.6: where the digest is right the catalogue is what has to be mended."""
    models.catalogue({"a": models.entry("a.llamafile", DATA["a"], size=49_999)})
    said = error(models)
    assert "expected 49999 bytes\n      got 50000 bytes" in said
    assert f"fix: the digest is right: correct the size in {models.path / 'models.yaml'}" in said
    assert models.doit("download:a").err == "-- download:a\n"  # its proof was left alone


def test_a_wrong_size_of_what_nothing_pins(models: Project) -> None:
    """Issue 5.6: no download would see that, so the remedy is another one."""
    models.catalogue({"a": models.entry("a.llamafile", size=50_000)})
    assert models.doit("download:a").status == 0
    [path] = models.cache.glob("models/url-*/a.llamafile")
    path.with_name("a.llamafile.stamp.json").unlink()
    os.truncate(path, 49_999)
    said = error(models)
    assert "expected 50000 bytes\n      got 49999 bytes" in said
    assert f"fix: delete {path}, then doit download:a\n" in said
    path.unlink()
    assert models.doit("download:a").status == 0
    assert models.doit("audit").status == 0


@linux
def test_what_cannot_be_read(models: Project) -> None:
    """Issue 5.6, R28: a file whose reading fails is named; the others are judged all the same."""
    models.catalogue({"a": models.entry("a.llamafile"), "b": models.entry("b.llamafile", DATA["b"])})
    first = models.doit("download:a")
    assert first.status == 0, first.err
    [path] = models.cache.glob("models/url-*/a.llamafile")
    path.unlink()
    path.with_name("a.llamafile.stamp.json").unlink()
    path.symlink_to("/proc/self/mem")  # a regular file that nobody, root included, reads from its beginning
    result = models.doit("audit")
    assert result.status == 1
    assert " unreadable " in result.out
    assert f"{path}: cannot be read: " in result.err
    assert f"fix: make {path} readable for you" in result.err
    assert rows(models, "--model", "b")["b.llamafile"]["verdict"] == "ok"


def test_a_download_that_is_not_finished(models: Project) -> None:
    """Issue 5.6: bytes that have no final name yet are no difference."""
    leave_partial(target(models, "c"), DATA["c"], 10_000)
    assert "c.llamafile" not in rows(models)


def test_a_cache_that_cannot_be_written(models: Project) -> None:
    """Issue 5.6: then a download would believe the stamp, and the remedy says what to do first."""
    rot(target(models))
    for lock in (models.cache / "locks").iterdir():
        lock.unlink()
    (models.cache / "locks").rmdir()
    (models.cache / "locks").write_text("")
    restamp(target(models))
    said = error(models)
    assert f"fix: delete {target(models)}, then doit download:a\n" in said


@linux
def test_ctrl_c(models: Project) -> None:
    """Issue 5.6, R35: how far it is, of how much, and Ctrl-C ends it at once."""
    models.catalogue({"a": models.entry("a.llamafile"), "b": models.entry("b.llamafile")})
    for name in "ab":
        assert models.doit(f"download:{name}").status == 0
        [path] = models.cache.glob(f"models/url-*/{name}.llamafile")
        path.with_name(f"{name}.llamafile.stamp.json").unlink()
        os.truncate(path, 10**12)
    with models.start("audit", env={"LLAMAFILE_LOG": "json"}) as running:
        running.wait_for('"progress"')
        interrupt(running)
        result = running.finish()  # reading it all would take an hour
    events = [json.loads(line) for line in result.err.splitlines()]
    event = next(event for event in events if event["event"] == "progress")
    assert (event["artifact"], event["total"]) == ("audit", 2 * 10**12 + 100_000)
    assert (result.status, result.out) == (128 + signal.SIGINT, "")


def test_a_misspelt_model(models: Project) -> None:
    """R14: status 3, and nothing was read."""
    models.catalogue({"tiny": models.entry("a.llamafile", DATA["a"])})
    result = models.doit("audit", "--model", "tinny")
    assert (result.status, result.out) == (3, "")
    assert "did you mean tiny?" in result.err


def test_no_request_is_made(project: Project) -> None:
    """Issue 5.6: an audit is of this machine alone."""
    with FileServer() as server:
        server.files["/a.llamafile"] = DATA["a"]
        project.catalogue({"a": project.entry(server.url("/a.llamafile"), DATA["a"])})
        assert project.doit("download").status == 0
        asked = len(server.requests)
        rot(project.target(DATA["a"], "a.llamafile"))
        assert "fix: doit download:a" in error(project)
        assert len(server.requests) == asked
