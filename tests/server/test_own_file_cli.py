"""A file of one's own: what its bytes say wins over its name (F10), and it is tried (F36)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes import llamafile
from tests.server.test_serve_cli import runs, with_gguf
from tests.support.project import REPO, Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
NAMES = ["M.GGUF", "sha256-72e994", "x.bin", "no ending"]


@pytest.mark.parametrize("name", NAMES)
def test_a_gguf_of_any_name(project: Project, tmp_path: Path, name: str) -> None:
    """F10: with --engine llamafile, llamafile serves it as it serves any .gguf."""
    with_gguf(project)
    own = tmp_path / name
    own.write_bytes(DEMO)
    result = project.doit("with", "--engine", "llamafile", "--llamafile", str(own), "--", "true")
    assert result.status == 0, result.err
    served = [run["argv"] for run in runs(project) if "--server" in run["argv"]]
    assert [words[words.index("-m") + 1] for words in served] == [str(own)]
    assert own.stat().st_mode & 0o111 == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_embedded_engine_serves_it(project: Project, tmp_path: Path, name: str) -> None:
    """F10: so does the embedded engine."""
    own = tmp_path / name
    own.write_bytes(DEMO)
    words = ("--engine", "embedded", "--llamafile", str(own))
    result = project.doit("with", *words, "--", "sh", "-c", "curl -s $LLAMAFILE_URL/health")
    assert result.status == 0, result.err
    assert "ok" in result.out


def test_a_url_whose_ending_is_in_capitals(project: Project, tmp_path: Path) -> None:
    """F10: `add` and `--llamafile-url` accept it."""
    own = tmp_path / "NEW.GGUF"
    own.write_bytes(DEMO)
    added = project.doit("add", str(own))
    assert added.status == 0, added.err
    assert "  new:\n    title: NEW\n" in added.out
    engine = ("--engine", "embedded")
    assert project.doit("verify", "--model", "new", *engine).status == 0
    url = own.as_uri()
    assert project.doit("verify", "--llamafile-url", url, *engine).status == 0


@pytest.mark.parametrize("name", ["m.llamafile", "m.bin", "m.gguf"])
def test_a_llamafile_of_any_name_is_tried(project: Project, tmp_path: Path, name: str) -> None:
    """F36, F10: `verify` runs its program with --version, and serves nothing."""
    with_gguf(project)
    own = llamafile.build(tmp_path / "m.llamafile", version="0.9.3").rename(tmp_path / name)
    own.chmod(0o755)
    result = project.doit("verify", "--llamafile", str(own))
    assert (result.status, result.out) == (0, ""), result.err
    assert "m: engine OK, llamafile v0.9.3" in result.err.replace("m.bin:", "m:")
    assert [run["argv"] for run in runs(project)] == [["--version"]]
    again = project.doit("verify", "--llamafile", str(own))
    assert ".  verify" not in again.err


def test_a_file_is_verified_with_a_digest(project: Project, tmp_path: Path) -> None:
    """F36: `--sha256` is checked, too; a missing file is named."""
    own = tmp_path / "own.gguf"
    own.write_bytes(DEMO)
    words = ("verify", "--engine", "embedded", "--llamafile", str(own))
    wrong = project.doit(*words, "--sha256", "0" * 64)
    assert wrong.status == 1
    assert "own is not the file you asked for" in wrong.err
    own.unlink()
    missing = project.doit(*words)
    assert missing.status == 1
    assert f"no such file: {own}" in missing.err


def test_the_bytes_of_a_download_decide(project: Project) -> None:
    """F10: a catalogue cannot know; after the download, the message names both engines."""
    with_gguf(project)
    (project.path / "x.bin").write_bytes(DEMO)
    project.catalogue({"m": project.entry("x.bin", DEMO)})
    first = project.doit("verify")
    assert first.status == 1
    assert "x.bin is a GGUF, which is not a program" in first.err
    assert "fix: --engine llamafile, or --engine embedded" in first.err
    assert project.doit("verify", "--engine", "embedded").status == 0
