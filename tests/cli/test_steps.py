"""The steps one by one: `doit exe`, `doit chmod`, `doit verify`; each does its own part and no more."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engine.test_failures import NO_AVX
from tests.fakes import llamafile
from tests.server.test_serve_cli import FOLDER, arguments, behave, runs, serving, with_gguf, with_llamafile
from tests.support.project import Project, Result

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def steps(result: Result) -> list[str]:
    """doit's own lines: what ran and what was up to date."""
    return [line for line in result.err.splitlines() if line.startswith((". ", "--"))]


def good(result: Result) -> list[str]:
    """The steps of a run that must succeed, with nothing on stdout."""
    assert (result.status, result.out) == (0, ""), result.err
    return steps(result)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_chmod(project: Project) -> None:
    """R8, R36: chmod needs the download and nothing behind it; a lost mode is set again."""
    target = project.target(with_llamafile(project), "m.llamafile")
    assert good(project.doit("chmod:m")) == [".  download:m", ".  chmod:m"]
    assert mode(target) == 0o755
    assert not runs(project)
    assert good(project.doit("chmod")) == ["-- download:m", "-- chmod:m"]
    target.chmod(0o644)  # which may be any change: the file is read, and not fetched
    assert good(project.doit("chmod", "--model", "m")) == [".  download:m", ".  chmod:m"]
    assert mode(target) == 0o755


def test_chmod_of_data_is_skipped(project: Project) -> None:
    """R31: what is no program stays without the executable bit, and that is said."""
    target, _ = with_gguf(project)
    skipped = "-- chmod:g  (skipped: not an executable)"
    assert good(project.doit("chmod:g")) == [".  download:g", skipped]
    assert mode(target) & 0o111 == 0


def test_a_skipped_task_is_skipped_with_every_flag(project: Project) -> None:
    """F15: `doit -a` runs what is up to date again, and chmod has nothing to run."""
    target, _ = with_gguf(project)
    ran = [".  exe", ".  download:g", ".  verify:g"]
    assert good(project.doit("-a", "verify:g")) == ran
    assert good(project.doit("-a", "chmod:g")) == [".  download:g"]
    assert mode(target) & 0o111 == 0


def test_nothing_becomes_executable_before_it_is_proven(project: Project) -> None:
    """R14, R21: wrong bytes end the run before chmod; no file has the final name."""
    data = with_llamafile(project)
    llamafile.build(project.path / "m.llamafile", version="0.9.3", pad=1)
    result = project.doit("verify")
    assert (result.status, result.out) == (1, "")
    assert steps(result) == [".  download:m"]
    assert "wrong" in result.err
    assert not project.target(data, "m.llamafile").exists()


def test_verify(project: Project) -> None:
    """R8, R36: the program says its version once; a file that only looks changed is read, not asked again."""
    target = project.target(with_llamafile(project, version="0.9.3"), "m.llamafile")
    first = project.doit("verify:m")
    assert good(first) == [".  download:m", ".  chmod:m", ".  verify:m"]
    assert "m: engine OK, llamafile v0.9.3" in first.err
    stamp = json.loads(target.with_name("m.llamafile.stamp.json").read_text())
    assert stamp["engines"] == {"self": "0.9.3"}
    assert good(project.doit("verify")) == ["-- download:m", "-- chmod:m", "-- verify:m"]
    os.utime(target, (1, 1))
    assert good(project.doit("verify")) == [".  download:m", "-- chmod:m", "-- verify:m"]
    assert [run["argv"] for run in runs(project)] == [["--version"]]


def test_verify_survives_the_loss_of_every_memory_but_the_cache(project: Project) -> None:
    """R36: doit remembers nothing; with the cache restored elsewhere, nothing is done."""
    with_llamafile(project)
    good(project.doit("verify"))
    moved = project.cache.rename(project.cache.with_name("restored"))
    env = {"LLAMAFILE_CACHE": str(moved)}
    assert good(project.doit("verify", env=env)) == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert not list(project.path.glob(".doit*"))


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        pytest.param(
            {"version_status": 3, "version_text": f"two lines\n{NO_AVX}"},
            [
                "ended: exit status 3",
                f"output:\n      two lines\n      {NO_AVX}\n",
                "fix: this CPU, or the virtual machine's, lacks AVX",
            ],
            id="exit status",
        ),
        pytest.param(
            {"version_status": -int(signal.SIGKILL)}, ["ended: signal 9 (SIGKILL)", "fix:"], id="killed"
        ),
        pytest.param(
            {"version_status": 1, "version_text": "ape error: x: prog mmap failed w/ errno 1"},
            ["fix: a noexec file system: set LLAMAFILE_CACHE to another disk"],
            id="noexec",
        ),
    ],
)
def test_it_does_not_run_here(project: Project, behaviour: dict[str, Any], said: list[str]) -> None:
    """R14, R28: command, status, last lines and remedy; status 1; the next run asks again."""
    target = project.target(with_llamafile(project), "m.llamafile")
    behave(project, **behaviour)
    result = project.doit("serve", "--port", "0")
    assert (result.status, result.out) == (1, "")
    assert "ERROR: m does not run here\n" in result.err
    assert f"  command: /bin/sh {target} --version\n" in result.err
    for text in said:
        assert text in result.err
    assert steps(result)[-1] == ".  verify:m"


def test_a_failed_verify_is_asked_again(project: Project) -> None:
    """R14, R36: only a success is remembered."""
    with_llamafile(project)
    behave(project, version_status=1)
    assert project.doit("verify").status == 1
    behave(project)
    assert good(project.doit("verify"))[-1] == ".  verify:m"
    assert [run["argv"] for run in runs(project)] == [["--version"]] * 2


@pytest.mark.parametrize(
    ("number", "status"),
    [pytest.param(signal.SIGINT, 130, id="SIGINT"), pytest.param(signal.SIGTERM, 143, id="SIGTERM")],
)
def test_asking_for_the_version_is_interrupted(project: Project, number: int, status: int) -> None:
    """R14, R27: an engine that hangs on --version ends with doit, whoever asks doit to end."""
    with_llamafile(project)
    behave(project, version_hang=True)
    with project.start("verify") as running:
        running.wait_for(".  verify:m")
        deadline = time.monotonic() + 20
        while not runs(project):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.note_family()
        running.send(number)
        result = running.finish()
    assert result.status == status
    assert not psutil.pid_exists(runs(project)[0]["pid"])


def test_a_program_without_a_version(project: Project) -> None:
    """R11: an answer without a version is no failure; flags then follow models.yaml."""
    with_llamafile(project, engine_version="0.9.3")
    script = project.path / "m.llamafile"
    script.write_text('#!/bin/sh\necho "development build"\n')
    data = script.read_bytes()
    project.catalogue({"m": project.entry("m.llamafile", data, engine_version="0.9.3")})
    result = project.doit("verify")
    assert good(result)[-1] == ".  verify:m"
    assert "m: engine OK, development build" in result.err
    assert good(project.doit("verify"))[-1] == "-- verify:m"
    said = project.doit("serve", "--port", "0")
    assert said.status == 1
    assert "/m.llamafile --server --nobrowser --log-disable --host" in said.err


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PAGE = b"<!DOCTYPE html>\n<html>$(touch ran)<body>Please log in</body></html>\n"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        pytest.param("g.gguf", PAGE, "g.gguf is not a GGUF file", id="a web page for a GGUF"),
        pytest.param("g.gguf", LFS, "got: it is a Git LFS pointer", id="a Git LFS pointer"),
        pytest.param("g.gguf", b"GGUF\x01\0\0\0", "got: it is a GGUF of version 1", id="GGUF version 1"),
        pytest.param("g.gguf", b"", "got: it is empty (0 bytes)", id="an empty file"),
        pytest.param("g.llamafile", PAGE, "got: it is a web page", id="a web page for a llamafile"),
        pytest.param("g.llamafile", b"\x7fELF\2\1\1\0", "g.llamafile is not a llamafile", id="an ELF file"),
    ],
)
def test_it_is_another_kind_of_file(
    project: Project, tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    """R14, R28: what cannot be a model is not handed to an engine, and a web page not to a shell."""
    with_gguf(project)
    own = tmp_path / FOLDER / name
    own.parent.mkdir()
    own.write_bytes(data)
    result = project.doit("serve", "--llamafile", str(own), "--port", "0")
    assert (result.status, result.out) == (1, "")
    assert f"ERROR: {own} is not a " in result.err
    assert said in result.err
    assert "fix: delete" not in result.err  # it is the user's
    assert own.stat().st_mode & 0o111 == 0  # and it did not become a program
    assert not [run for run in runs(project) if run["argv"] != ["--version"]]
    assert not list(project.cache.rglob("ran"))


def test_half_a_llamafile_for_another_engine(project: Project, tmp_path: Path) -> None:
    """R9, R20: with -m a llamafile is a zip; one that was cut short is not."""
    with_gguf(project)
    own = llamafile.build(tmp_path / "own.llamafile")
    own.write_bytes(own.read_bytes()[:-1000])
    result = project.doit("serve", "--llamafile", str(own), "--engine", "llamafile", "--port", "0")
    assert result.status == 1
    assert f"{own} is not a complete llamafile" in result.err


def test_exe(project: Project) -> None:
    """R9, R36: one task brings llamafile's program, proves it, and does it once."""
    _, exe = with_gguf(project)
    first = project.doit("exe")
    assert good(first) == [".  exe"]
    assert "llamafile 0.10.5: engine OK, llamafile v0.10.5" in first.err
    assert mode(exe) == 0o755
    assert [run["argv"] for run in runs(project)] == [["--version"]]
    assert good(project.doit("exe")) == ["-- exe"]


def test_exe_is_redone_alone(project: Project) -> None:
    """R36: the program deleted, its mode lost, its bytes changed: each mended, and the model left alone."""
    _, exe = with_gguf(project)
    good(project.doit("verify"))
    others = ["-- chmod:g  (skipped: not an executable)", "-- download:g", "-- verify:g"]
    for harm in (exe.unlink, lambda: exe.chmod(0o644), lambda: exe.write_bytes(b"#!/bin/sh\n")):
        harm()
        assert sorted(good(project.doit("verify:g"))) == [*others, ".  exe"]
        assert mode(exe) == 0o755
        assert exe.read_bytes() == (project.path / "llamafile-0.10.5").read_bytes()
    assert sorted(good(project.doit("verify:g"))) == [others[0], others[1], "-- exe", others[2]]


def test_exe_of_the_wrong_digest(project: Project) -> None:
    """R21: a program that is not what the catalogue says is neither kept nor run."""
    _, exe = with_gguf(project)
    (project.path / "llamafile-0.10.5").write_bytes(b"#!/bin/sh\ntouch ran\n")
    result = project.doit("exe")
    assert result.status == 1
    assert "llamafile 0.10.5" in result.err
    assert not exe.exists()
    assert not list(project.cache.rglob("ran"))


def test_a_newer_engine(project: Project) -> None:
    """R11, R16: another version in models.yaml is fetched beside the old one, and the flags are its own."""
    with_gguf(project)
    model = (project.path / "g.gguf").read_bytes()
    for version, nobrowser in (("0.9.3", True), ("0.10.5", False), ("0.9.3", True)):
        data = llamafile.build_exe(project.path / f"llamafile-{version}", version=version).read_bytes()
        engine = {"title": "l", "license": "MIT", "version": version, "url": f"llamafile-{version}"}
        pin = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        project.catalogue({"g": project.entry("g.gguf", model)}, {"llamafile": {**engine, **pin}})
        with serving(project, "serve", "--port", "0") as (running, _):
            assert f"starting g (llamafile {version}, log " in running.err
        assert ("--nobrowser" in arguments(project)) is nobrowser
    assert sorted(path.name for path in (project.cache / "engines").glob("*/llamafile-*[0-9]")) == [
        "llamafile-0.10.5",
        "llamafile-0.9.3",
    ]


def test_an_engine_the_catalogue_does_not_know(project: Project) -> None:
    """R14, R28: a .gguf needs engines.llamafile; the message says which keys are missing."""
    model = llamafile.build_gguf(project.path / "g.gguf").read_bytes()
    project.catalogue({"g": project.entry("g.gguf", model)})
    for words in (["serve"], ["exe"], ["verify:g"]):
        result = project.doit(*words)
        assert (result.status, result.out) == (3, "")
        assert "engines.llamafile needs url and version" in result.err
        assert f"fix: edit {project.path / 'models.yaml'}" in result.err


def test_the_embedded_engine_is_not_installed(project: Project, tmp_path: Path) -> None:
    """R28: the optional package is missing: the command that installs it."""
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "xllamacpp.py").write_text("raise ModuleNotFoundError(\"No module named 'xllamacpp'\")\n")
    result = project.doit("verify:demo", env={"PYTHONPATH": str(shadow)})
    assert result.status == 1
    assert "ERROR: demo does not run here" in result.err
    assert "the embedded engine needs the optional package xllamacpp" in result.err
    assert "      pip install --upgrade '.[embedded]'\n" in result.err
    assert re.search(
        r"      or try another engine: (--engine llama-server, )?--engine llamafile\n", result.err
    )


def test_the_embedded_engine_reads_only_gguf(project: Project, tmp_path: Path) -> None:
    """R28: refused on the command line where the name says so, and by its bytes where they do."""
    own = tmp_path / "own.gguf"
    own.write_bytes(PAGE)
    result = project.doit("serve", "--llamafile", str(own), "--engine", "embedded", "--port", "0")
    assert result.status == 1
    assert f"{own} is not a GGUF file" in result.err
