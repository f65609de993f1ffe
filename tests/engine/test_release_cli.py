"""A release of llama.cpp as the engine: locked, downloaded, unpacked, asked, served (issue 15.3)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tasks.cache import unpacked
from tasks.catalogue.artifact import Artifact
from tasks.system import files

from tests.engine.test_llama_server_cli import ASKS
from tests.fakes.github import GitHub
from tests.support.project import REPO, Project
from tests.support.publishers import failed
from tests.support.releases import HERE, PROGRAM, engine, folder, publish, release

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the programs of the tests are shell scripts")

OTHER = "windows-x64-nvidia"
NAMES = {HERE: "here.tar.gz", OTHER: "win-cuda.zip"}
DEMO = {"title": "Demo", "license": "Apache-2.0", "url": "demo/demo.gguf"}


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as github:
        yield github


@pytest.fixture
def pinned(project: Project, github: GitHub) -> Project:
    """A project whose models.lock has a release with two archives; the model names no engine."""
    publish(github, "b11669", {"here.tar.gz": release(), "win-cuda.zip": b"for Windows"})
    project.catalogue({"demo": DEMO}, engine(github, NAMES))
    result = project.doit("lock")
    assert result.status == 0, result.err
    assert "llama-server: llama-b11669-bin-here.tar.gz" in result.out
    return project


def rows(project: Project) -> list[dict[str, Any]]:
    """The rows of models.lock for the engine."""
    lock = yaml.safe_load((project.path / "models.lock").read_text())
    return list(lock["engines"]["llama-server"])


def done(project: Project, *words: str, **keys: Any) -> str:
    """Run `doit WORDS`, which must succeed; return what it logged."""
    result = project.doit(*words, **keys)
    assert result.status == 0, result.err
    return result.err


def archive(project: Project) -> Artifact:
    """The archive of this machine."""
    [path] = project.cache.glob("engines/*/*here.tar.gz")
    digest = files.sha256_file(path).sha256
    return Artifact("x", (), str(path), digest, unpacked=f"{path}.unpacked")


def test_from_a_release_to_an_answer(project: Project, github: GitHub, llama_server: Path) -> None:
    """One row of models.lock for each archive; then the real server answers."""
    shutil.rmtree(project.path / "bin", ignore_errors=True)
    data = release("b11669", llama_server.read_bytes())
    publish(github, "b11669", {"here.tar.gz": data, "win-cuda.zip": b"for Windows"})
    project.catalogue({"demo": DEMO}, engine(github, NAMES, "latest"))
    done(project, "lock")
    digests = [row["digest_from"] for row in rows(project)]
    assert digests == ["GitHub (digest of the asset)"] * 2
    assert [row["version"] for row in rows(project)] == ["b11669"] * 2
    assert "covers the catalogue" in project.doit("lock", "--check").out
    plan = project.doit("plan")
    assert (plan.status, f"llama-server b11669 ({HERE})" in plan.out) == (0, True), plan
    reason = f"the model names no engine: models.yaml pins llama-server; archive {HERE}: no GPU with"
    assert f"engine   demo: llama-server 11669 ({reason}" in plan.out
    ask = ("with", "--", sys.executable, "-c", ASKS)
    result = project.doit(*ask, env={"CI": "true"})
    assert result.status == 0, result.err
    assert "sha256 verified" in result.err
    assert f"llama-server b11669 ({HERE}): 3 files unpacked, " in result.err
    assert len(result.out) > 1
    again = project.doit(*ask)
    assert (again.status, "-- exe" in again.err) == (0, True), again.err
    [row] = json.loads(project.doit("plan", "--json").out)["engines"]
    assert row["engine"] == "llama-server"


def test_an_endpoint(project: Project, github: GitHub, llama_server: Path) -> None:
    """16.7, 15.3: the release serves an endpoint, also where a task of one of its models precedes it."""
    data = release("b11669", llama_server.read_bytes())
    publish(github, "b11669", {"here.tar.gz": data, "win-cuda.zip": b"for Windows"})
    models = {name: {**DEMO, "serve": {"ctx_size": 256}} for name in ("a", "b")}
    office = {"models": ["a", "b"], "memory": 1}
    project.catalogue(models, engine(github, NAMES), endpoints={"office": office})
    done(project, "lock")
    program = "bin/llama-server"
    plan = project.doit("plan", "office")
    assert (plan.status, f"llama-server b11669 ({HERE})" in plan.out) == (0, True), plan
    assert not list(project.cache.glob(f"engines/*/*/{program}"))
    result = project.background("download:a", "start:office", "--port", "0")
    try:
        assert result.status == 0, result.err
        assert list(project.cache.glob(f"engines/*/*/{program}"))
        assert project.doit("chat", "office", "--as", "b", "Hi").status == 0
        again = project.background("reload", "office")
        assert (again.status, again.out) == (0, result.out), again.err
    finally:
        done(project, "stop", "--all")
    shutil.rmtree(project.cache)
    assert "preset file" in done(project, "preset", "office")
    assert list(project.cache.glob(f"engines/*/*/{program}"))


def test_what_every_report_says(pinned: Project) -> None:
    """The archive is a file of the cache as any other; its files are compared with it."""
    assert "llama-server b11669" in pinned.doit("doctor", env={"LLAMAFILE_OFFLINE": "1"}).out
    log = done(pinned, "exe")
    assert "engine OK, version: 11669" in log
    assert done(pinned, "exe") == "-- exe\n"
    stamp = json.loads(Path(f"{archive(pinned).target}.stamp.json").read_text())
    assert stamp["engines"] == {"llama-server": "11669"}
    doctor = json.loads(pinned.doit("doctor", "--json", env={"LLAMAFILE_OFFLINE": "1"}).out)
    assert [row["found"] for row in doctor if row["check"] == "llama-server"] == [
        f"{folder(pinned)}/llama-server"
    ]
    [part] = [
        one for one in json.loads(pinned.doit("bom", "--json").out)["components"] if "b11669" in one["name"]
    ]
    assert (part["type"], part["version"], part["hashes"][0]["content"]) == (
        "application", "11669", archive(pinned).sha256,
    )  # fmt: skip
    [entry] = json.loads(pinned.doit("cache-key", "--json").out)
    assert any("/engines/" in path for path in entry["path"])
    assert "2 files of the catalogue not downloaded" in pinned.doit("audit").out
    assert pinned.doit("prune", "--json").out.count('"removed": []') == 1


def test_an_unpacked_file_that_rots(pinned: Project) -> None:
    """Size and times are as they were: `audit` reads it, and the next run unpacks it again."""
    done(pinned, "exe")
    library = folder(pinned) / "libllama.so.1"
    library.write_bytes(library.read_bytes().replace(b"library", b"libbary"))
    known = unpacked.read_manifest(archive(pinned))
    status = files.stat(library)
    assert known
    assert status
    same = {**known.files, "libllama.so.1": known.files["libllama.so.1"]._replace(stat=status)}
    unpacked.keep_manifest(archive(pinned), known._replace(files=same))
    assert done(pinned, "exe") == "-- exe\n"
    audit = pinned.doit("audit")
    assert audit.status == 1
    assert "differs: an unpacked file" in audit.out
    assert "libllama.so.1 is missing, or has other bytes" in audit.err
    assert "fix: doit exe" in audit.err
    log = done(pinned, "exe")
    assert (
        "differs from its archive (libllama.so.1 is missing, or has other bytes); unpacking it again" in log
    )
    assert pinned.doit("audit").status == 0


def test_a_changed_program_is_not_started(pinned: Project) -> None:
    """A run compares it with the archive first; not a byte is downloaded."""
    done(pinned, "verify")
    program = folder(pinned) / "llama-server"
    program.write_bytes(b"#!/bin/sh\ntouch evil\n")
    log = done(pinned, "verify", env={"LLAMAFILE_OFFLINE": "1"})
    assert "unpacking it again" in log
    assert program.read_bytes() == PROGRAM
    assert not list(pinned.cache.rglob("evil"))


def test_an_upgrade(pinned: Project, github: GitHub) -> None:
    """`latest` moves with --upgrade, all archives at once; prune removes the old one, and what a kill left.

    A new archive moves all of them as well: they are of one release.
    """
    pinned.catalogue({"demo": DEMO}, engine(github, NAMES, "latest"))
    done(pinned, "lock")
    done(pinned, "exe")
    old = archive(pinned)
    left = Path(old.unpacked).parent / ".00000000-1-00000000.unpacking" / "bin" / "llama-server"
    left.parent.mkdir(parents=True)
    left.write_bytes(PROGRAM)
    os.utime(left, (time.time() - 7200,) * 2)
    publish(github, "b11700", {"here.tar.gz": release("b11700"), "win-cuda.zip": b"new", "arm.tar.gz": b"a"})
    done(pinned, "lock")
    assert {row["version"] for row in rows(pinned)} == {"b11669"}
    pinned.catalogue({"demo": DEMO}, engine(github, {**NAMES, "linux-arm64": "arm.tar.gz"}, "latest"))
    result = pinned.doit("lock")
    assert {row["version"] for row in rows(pinned)} == {"b11700"}, result
    assert "~ llama-server: llama-b11700-bin-here.tar.gz" in result.out
    assert len(rows(pinned)) == 3
    assert pinned.doit("lock", "--check").status == 0
    done(pinned, "exe")
    report = json.loads(pinned.doit("prune", "--json").out)
    assert {row["why"] for row in report["removed"]} >= {
        "no catalogue names this version", "left by a writer that was killed",
    }  # fmt: skip
    assert [path.name for path in pinned.cache.glob("engines/*/*.tar.gz")] == ["llama-b11700-bin-here.tar.gz"]
    assert not Path(old.unpacked).parent.exists()
    assert done(pinned, "exe") == "-- exe\n"
    publish(github, "b11800", {"here.tar.gz": b"1", "win-cuda.zip": b"2", "arm.tar.gz": b"3"})
    done(pinned, "lock", "--upgrade", "--model", "llama-server")
    assert {row["version"] for row in rows(pinned)} == {"b11800"}


def test_what_is_not_pinned_is_refused(project: Project, github: GitHub) -> None:
    """Always, as its programs are started; without digests, `doit lock` refuses as well."""
    publish(github, "b1", {"here.tar.gz": release()}, digests=False)
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b1"))
    fix = "`doit lock --model llama-server`, and commit models.lock"
    for words in (["exe"], ["verify", "--frozen"], ["serve"]):
        error = failed(project.doit(*words), 3)
        assert f"archive {HERE} is not pinned" in error
        assert fix in error
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "hear.tar.gz"}, "b1"))
    error = failed(project.doit("lock"))
    assert "has no file llama-b1-bin-hear.tar.gz, or does not" in error
    assert "fix: did you mean llama-b1-bin-here.tar.gz?" in error
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b1"))
    lock = project.path / "models.lock"
    lock.write_text("version: 1\nengines: {}\nmodels: {}\n")
    assert "engines.llama-server: is not in models.lock" in failed(project.doit("lock", "--check"))
    error = failed(project.doit("lock"))
    assert "states no SHA-256 of llama-b1-bin-here.tar.gz" in error
    assert "fix: run doit lock --download to hash it\n" in f"{error}\n"
    assert not project.cache.exists() or not list(project.cache.glob("engines/*"))
    done(project, "lock", "--download")
    assert rows(project)[0]["digest_from"] == "doit lock --download"
    log = done(project, "exe", env={"LLAMAFILE_OFFLINE": "1"})
    assert "engine OK" in log
    publish(github, "b2", {"here.tar.gz": b"<html>try again later</html>"}, digests=False)
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b2"))
    assert "llama-server could not be downloaded" in failed(project.doit("lock", "--download"))


def test_a_program_that_does_not_run(project: Project, github: GitHub) -> None:
    """Its own words, and the engines that read the file, too; a hostile archive says why."""
    broken = b"#!/bin/sh\necho 'libcuda.so.1: cannot open shared object file' >&2\nexit 127\n"
    publish(github, "b1", {"here.tar.gz": release("b1", broken)})
    publish(github, "b2", {"here.tar.gz": release("b2", PROGRAM, **{"x/../../../evil": b"x"})})
    for build, text in (("b1", "does not run here"), ("b2", "is not unpacked: 'llama-b2/x/../../../evil'")):
        project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, build))
        done(project, "lock")
        error = failed(project.doit("verify"))
        assert f"llama-server {build} ({HERE}) {text}" in error
        assert "or try another engine: --engine " in error
        assert "--engine llamafile" in error
    assert not list(project.path.parent.rglob("evil"))


def test_a_program_of_another_cpu(project: Project, github: GitHub) -> None:
    """The archive is under the wrong key: the fix is there, not in a llamafile."""
    arm = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0" + (183).to_bytes(2, "little") + bytes(100)
    publish(github, "b1", {"here.tar.gz": release("b1", arm)})
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b1"))
    done(project, "lock")
    for _ in range(2):
        error = failed(project.doit("exe"))
        assert "program: an ELF program for aarch64" in error
        assert "fix: llama-server is a program for another system or CPU, or none: correct archives:" in error
        assert "llamafile as it was published" not in error
    assert "downloaded by another process" not in error


def test_the_archive_of_an_endpoint(pinned: Project, github: GitHub) -> None:
    """`doit plan` says which archive, and why, as it does for a model."""
    pinned.catalogue({"demo": DEMO}, engine(github, NAMES), endpoints={"office": {"models": ["demo"]}})
    plan = pinned.doit("plan", "office")
    assert f"engine   demo: llama-server 11669 (endpoints.office; archive {HERE}: no GPU" in plan.out, plan


def test_archives_of_different_versions(pinned: Project, github: GitHub) -> None:
    """A merge of two branches may leave them in models.lock; the fix that the errors name repairs it."""
    pinned.catalogue({"demo": DEMO}, engine(github, NAMES, "latest"))
    done(pinned, "lock")
    lock = pinned.path / "models.lock"
    lock.write_text(lock.read_text().replace('"b11669"', '"b11668"', 1))
    assert "archives of different versions" in failed(pinned.doit("lock", "--check"))
    assert "fix: `doit lock --model llama-server`" in failed(pinned.doit("exe"), 3)
    done(pinned, "lock", "--model", "llama-server")
    assert {row["version"] for row in rows(pinned)} == {"b11669"}
    assert "engine OK" in done(pinned, "exe")


def test_a_library_of_the_users_own(project: Project, github: GitHub) -> None:
    """LD_LIBRARY_PATH, for the runtimes of GPUs, does not replace a verified library."""
    said = b"#!/bin/sh\necho $LD_LIBRARY_PATH >&2\necho 'version: 11669 (5e1b7c9)'\n"
    publish(github, "b1", {"here.tar.gz": release("b1", said)})
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b1"))
    done(project, "lock")
    log = done(project, "exe", env={"LD_LIBRARY_PATH": "/opt/own"})
    assert f"{folder(project)}:/opt/own" in log


def test_path_names_a_program_of_ones_own(project: Project, github: GitHub) -> None:
    """It comes before the one on PATH, and nothing is downloaded."""
    program = project.path / "own" / "llama-server"
    program.parent.mkdir()
    program.write_bytes(PROGRAM)
    program.chmod(0o755)
    entry = {"title": "s", "license": "MIT", "path": "own/llama-server"}
    project.catalogue({"demo": DEMO}, {"llama-server": entry})
    assert "demo: engine OK, version: 11669" in done(project, "verify")
    reason = "models.yaml pins llama-server; `path:` of engines.llama-server"
    assert f"llama-server 11669 (the model names no engine: {reason})" in project.doit("plan").out
    program.unlink()
    error = failed(project.doit("verify"), 3)
    assert f"engines.llama-server.path: no such program: {program}" in error


def test_two_at_once(pinned: Project) -> None:
    """One unpacks, the other waits for it."""
    with pinned.start("exe") as one, pinned.start("exe") as two:
        results = [one.finish(), two.finish()]
    assert [result.status for result in results] == [0, 0], results
    assert sum("files unpacked" in result.err for result in results) == 1
    assert unpacked.is_intact(archive(pinned))


def test_a_full_disk_and_a_read_only_one(
    project: Project, github: GitHub, mount: Callable[..., Path]
) -> None:
    """Too little space: nothing is unpacked. A copy on a read-only disk is compared with its archive."""
    project.cache = mount("mode=0755") / "cache"
    project.env["LLAMAFILE_CACHE"] = str(project.cache)
    publish(github, "b1", {"here.tar.gz": release("b1", PROGRAM, big=bytes(150 * 1024**2))})
    publish(github, "b2", {"here.tar.gz": release("b2")})
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b1"))
    done(project, "lock")
    error = failed(project.doit("exe"))
    assert re.search(r"its files do not fit on the disk\n  needs: 157.3 MB\n  missing: ", error), error
    assert not list(project.cache.glob("engines/*/*unpack*"))
    project.catalogue({"demo": DEMO}, engine(github, {HERE: "here.tar.gz"}, "b2"))
    done(project, "lock")
    done(project, "verify")
    first = project.cache.rename(project.cache.with_name("first"))
    shutil.copytree(first, project.cache, symlinks=True)
    shutil.rmtree(first)
    subprocess.run(["mount", "-o", "remount,ro", str(project.cache.parent)], check=True, timeout=30)
    assert "engine OK" in done(project, "verify", env={"LLAMAFILE_OFFLINE": "1"})
    subprocess.run(["mount", "-o", "remount,rw", str(project.cache.parent)], check=True, timeout=30)
    [top] = project.cache.glob("engines/*/*b2*.unpacked/bin")
    (top / "libllama.so.1").write_bytes(b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(project.cache.parent)], check=True, timeout=30)
    error = failed(project.doit("verify"))
    assert "cannot write to the cache" in error


def test_a_file_of_ones_own(pinned: Project, tmp_path: Path) -> None:
    """Without an engine on the machine, the pinned release comes before llamafile, which is larger."""
    own = str(shutil.copy(REPO / "demo" / "demo.gguf", tmp_path / "own.gguf"))
    [row] = json.loads(pinned.doit("plan", own, "--json").out)["engines"]
    assert row["engine"] in ("llama-server", "embedded")
    if row["engine"] == "llama-server":
        assert row["reason"].startswith("no engine is installed, and models.yaml pins llama-server; ")
