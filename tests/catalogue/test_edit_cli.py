"""Nothing is lost that is written to models.yaml or models.lock while `doit` works (finding 7)."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.fakes.faults import Paused
from tests.fakes.llamafile import gguf
from tests.fakes.server import FileServer
from tests.support.project import ENGINES, Project

DATA = gguf(5000)
EMBEDDED = {"embedded": ENGINES["embedded"]}
CATALOGUE = """\
version: 1
default: old
engines:
  embedded: {title: llama.cpp, license: MIT}
models:
  old:
    title: Old
    url: demo/demo.gguf
    license: MIT
    engine: embedded
"""
BY_HAND = "  hand:\n    title: Hand\n    url: demo/demo.gguf\n    license: MIT\n    engine: embedded\n"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files["/slow.gguf"] = DATA
        yield server


@pytest.fixture
def ours(project: Project) -> Project:
    (project.path / "models.yaml").write_text(CATALOGUE, "utf-8")
    return project


def models(project: Project, name: str = "models.yaml") -> list[str]:
    return list(yaml.safe_load((project.path / name).read_text("utf-8"))["models"])


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_four_at_once(ours: Project) -> None:
    """Finding 7: each entry is kept, and so is every one of their lock."""
    names = [f"m{number}" for number in range(4)]
    for words in ("add demo/demo.gguf --license MIT --name {}", "lock --model {}"):
        with ExitStack() as stack:
            running = [stack.enter_context(ours.start(*words.format(name).split())) for name in names]
            results = [one.finish(120) for one in running]
        assert [result.status for result in results] == [0] * 4, results
    assert sorted(models(ours)) == [*names, "old"]
    assert models(ours, "models.lock") == [name for name in models(ours) if name != "old"]
    assert not list(ours.path.glob(".*.lock"))


@pytest.mark.parametrize("taken", [False, True])
def test_an_entry_that_is_written_meanwhile(ours: Project, server: FileServer, taken: bool) -> None:
    """Finding 7: while a file is downloaded, its catalogue is edited by hand: both are kept."""
    go = threading.Event()
    server.script("/slow.gguf", Paused(100, go))
    name = "hand" if taken else "slow"
    catalogue = ours.path / "models.yaml"
    with ours.start("add", server.url("/slow.gguf"), "--download", "--name", name) as running:
        server.wait_sent("/slow.gguf", 100, 60)
        append(catalogue, BY_HAND)
        go.set()
        result = running.finish()
    assert result.status == (1 if taken else 0), result.err
    assert models(ours) == (["old", "hand"] if taken else ["old", "hand", "slow"])
    if taken:
        assert "a model 'hand' was added to " in result.err
        assert "nothing was written\n  fix: --name ANOTHER" in result.err
        assert catalogue.read_text("utf-8") == CATALOGUE + BY_HAND


def test_a_catalogue_that_is_broken_meanwhile(ours: Project, server: FileServer) -> None:
    """Finding 7: in the middle of an edit nothing is written; the error says where it is wrong."""
    go = threading.Event()
    server.script("/slow.gguf", Paused(100, go))
    with ours.start("add", server.url("/slow.gguf"), "--download") as running:
        server.wait_sent("/slow.gguf", 100, 60)
        append(ours.path / "models.yaml", "  hand:\n    titel: x\n")
        go.set()
        result = running.finish()
    assert result.status == 1
    assert "models.hand.titel: unknown key; did you mean title?" in result.err
    assert (ours.path / "models.yaml").read_text("utf-8").endswith("    titel: x\n")


@pytest.mark.parametrize("same", [False, True])
def test_a_lock_that_is_written_meanwhile(ours: Project, server: FileServer, same: bool) -> None:
    """Finding 7: rows of other entries are joined; another row of the same entry is not overwritten."""
    slow = {**ours.entry(server.url("/slow.gguf")), "engine": "embedded"}
    ours.catalogue({"old": ours.entry("demo/demo.gguf", engine="embedded"), "slow": slow}, EMBEDDED)
    lock = ours.path / "models.lock"
    go = threading.Event()
    server.script("/slow.gguf", Paused(100, go))
    with ours.start("lock", "--download", "--model", "slow") as running:
        server.wait_sent("/slow.gguf", 100, 60)
        if same:
            lock.write_text(
                "version: 1\nengines: {}\nmodels:\n  slow:\n"
                f"  - url: {server.url('/slow.gguf')}\n    sha256: {'ab' * 32}\n    license: MIT\n"
                '    digest_from: me\n    since: "2026-01-01"\n'
            )
        else:
            assert ours.doit("lock", "--model", "old").status == 0
        before = lock.read_bytes()
        go.set()
        result = running.finish()
    if same:
        assert result.status == 1
        assert ", with conflicts in slow; nothing was written\n  fix: run" in result.err
        assert lock.read_bytes() == before
    else:
        assert result.status == 0, result.err
        assert models(ours, "models.lock") == ["old", "slow"]


def test_a_lock_stays_what_it_is(ours: Project, tmp_path: Path) -> None:
    """Finding 7: its link and its mode."""
    real = tmp_path / "real.lock"
    real.write_text("version: 1\nengines: {}\nmodels: {}\n")
    real.chmod(0o640)
    (ours.path / "models.lock").symlink_to(real)
    assert ours.doit("lock").status == 0
    assert (ours.path / "models.lock").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert models(ours, "models.lock") == ["old"]


def test_without_a_cache_to_write_to(ours: Project, tmp_path: Path) -> None:
    """Finding 7: the lock is beside the file then, and the edit works."""
    (tmp_path / "file").touch()
    env = {"LLAMAFILE_CACHE": str(tmp_path / "file" / "cache")}
    result = ours.doit("add", "demo/demo.gguf", "--license", "MIT", env=env)
    assert result.status == 0, result.err
    assert models(ours) == ["old", "demo"]
    assert (ours.path / ".models.yaml.lock").exists() or os.name == "nt"


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
@pytest.mark.parametrize("words", [["lock"], ["add", "demo/demo.gguf", "--name", "new"]], ids=["lock", "add"])
def test_a_folder_of_locks_that_is_a_link(project: Project, tmp_path: Path, words: list[str]) -> None:
    """Nothing is written behind it, no lock of an edit either."""
    (project.path / "models.yaml").write_text(CATALOGUE, "utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    project.cache.mkdir(exist_ok=True)
    (project.cache / "locks").symlink_to(elsewhere)
    result = project.doit(*words)
    assert (result.status, "is a symbolic link" in result.err) == (1, True), result
    assert list(elsewhere.iterdir()) == []
    assert (project.path / "models.yaml").read_text("utf-8") == CATALOGUE
