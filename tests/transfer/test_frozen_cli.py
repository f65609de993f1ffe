"""Frozen: with CI=true or --frozen nothing unpinned is ever fetched (issue 5.2)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes import llamafile
from tests.fakes.llamafile import noise
from tests.server.test_serve_cli import ask, behave, serving
from tests.support.project import ENGINES, Project
from tests.support.publishers import World, entry, failed, sha256, worlds

CI = {"CI": "true"}
MODEL = llamafile.gguf(50_000)


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    """A llamafile on the Hub's main, that nothing pins; `g` is a .gguf on a plain server, for `exe`."""
    for world in worlds(project):
        program = llamafile.build(project.path / "built", version="0.10.5").read_bytes()
        exe = llamafile.build_exe(project.path / "exe", version="0.10.5").read_bytes()
        world.repo.push({"m.llamafile": program})
        world.releases.release("0.10.5", {"e": exe})
        world.server.files["/g.gguf"] = MODEL
        url = world.github.url("gh/llamafile", "0.10.5", "e")
        engine = {"title": "l", "license": "MIT", "version": "0.10.5", "url": url}
        pin = {"sha256": sha256(MODEL), "size": len(MODEL)}
        models = {
            "m": entry(hf="o/r", file="m.llamafile"),
            "g": entry(url=world.server.url("/g.gguf"), **pin),
        }
        project.catalogue(models, {"llamafile": engine, **ENGINES_OF_PYTHON})
        behave(project)
        yield world


ENGINES_OF_PYTHON = {"embedded": ENGINES["embedded"]}
NOT_PINNED = "is not pinned; --frozen and CI=true allow pinned files only"

# words, what is not pinned, the remedy
ROWS = [
    pytest.param(["download"], "m", "`doit lock --model m`, and commit models.lock", id="download"),
    pytest.param(["download:m"], "m", "`doit lock --model m`, and commit models.lock", id="download:m"),
    pytest.param(["download", "--no-adopt"], "m", "`doit lock --model m`,", id="download, from nowhere else"),
    pytest.param(["verify"], "m", "`doit lock --model m`, and commit models.lock", id="verify"),
    pytest.param(["serve"], "m", "`doit lock --model m`, and commit models.lock", id="serve"),
    pytest.param(["start"], "m", "`doit lock --model m`, and commit models.lock", id="start"),
    pytest.param(["with", "--", "true"], "m", "`doit lock --model m`, and commit models.lock", id="with"),
    pytest.param(["chat", "Hello"], "m", "`doit lock --model m`, and commit models.lock", id="chat"),
    pytest.param(["exe"], "llamafile 0.10.5", "`doit lock --model llamafile`, and commit", id="exe"),
    pytest.param(["serve:g"], "llamafile 0.10.5", "`doit lock --model llamafile`, and commit", id="serve g"),
    pytest.param(["verify:g"], "llamafile 0.10.5", "doit lock --model llamafile", id="verify g"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "label", "remedy"), ROWS)
def test_refused_before_anything_is_sent(world: World, words: list[str], label: str, remedy: str) -> None:
    """Issue 5.2: by the variable as by the option; the error names the command that pins it."""
    takes = words[0].partition(":")[0] != "verify"
    ways: list[tuple[list[str], dict[str, str]]] = [(words, CI)]
    ways += [([words[0], "--frozen", *words[1:]], {})] if takes else []
    for line, env in ways:
        said = failed(world.project.doit(*line, env=env))
        assert f"{label} {NOT_PINNED}" in said
        assert remedy in said
    assert world.hub.origin.requests + world.github.origin.requests == []
    assert not list(world.project.cache.rglob("*.llamafile*"))


def test_a_url_of_ones_own(world: World) -> None:
    """Issue 5.2: what is in no catalogue is pinned by --sha256."""
    world.server.files["/own.gguf"] = MODEL
    line = ["download", "--llamafile-url", world.server.url("/own.gguf")]
    for words in (line, [*line, "--llamafile", "mine.gguf"]):
        said = failed(world.project.doit(*words, env=CI))
        assert NOT_PINNED in said
        assert "fix: --sha256 HEX" in said
    assert world.server.requests == []
    result = world.project.doit(*line, "--sha256", sha256(MODEL), env=CI)
    assert result.status == 0, result.err


def test_another_url_for_a_catalogued_model(world: World) -> None:
    """R4, issue 5.2: a lock would not pin that one."""
    world.server.files["/m.llamafile"] = b"x"
    line = ["download:m", "--llamafile-url", world.server.url("/m.llamafile"), "--yes"]
    assert "fix: --sha256 HEX" in failed(world.project.doit(*line, env=CI))
    assert world.server.requests == []


@pytest.mark.parametrize("value", ["false", "", "0", "no"])
def test_not_in_ci(world: World, value: str) -> None:
    """Issue 5.2: CI=false means what it says."""
    result = world.project.doit("download", env={"CI": value})
    assert result.status == 0, result.err
    assert "m is not pinned; its publisher states --sha256 " in result.err


def test_what_is_here_is_served(world: World) -> None:
    """Issue 5.2: only fetching is refused."""
    assert world.project.doit("download").status == 0
    asked = world.requests
    with serving(world.project, "serve", "--port", "0", env=CI) as (_, url):
        assert ask(url, "Hello") == "Hello"
    assert world.project.doit("download", "--frozen").status == 0
    assert world.requests == asked


def test_a_lock_makes_it_work(world: World) -> None:
    """Issue 5.2: the command that the error names, and then everything: the engine's program, too."""
    world.project.doit("lock", env=CI)
    result = world.project.doit("download", "--frozen", env=CI)
    assert result.status == 0, result.err
    assert "not pinned" not in result.err
    with serving(world.project, "serve", "--frozen", "--model", "g", "--port", "0", env=CI) as (_, url):
        assert ask(url, "Hello") == "Hello"


def test_a_lock_of_the_model_alone(world: World) -> None:
    """Issue 5.2: as the errors say, one after the other."""
    for name in ("m", "llamafile"):
        result = world.project.doit("lock", "--model", name, env=CI)
        assert result.status == 0, result.err
    assert world.project.doit("download", "exe", env=CI).status == 0


def test_locking_by_a_download_is_no_fetch_of_the_unpinned(world: World) -> None:
    """Issue 5.2: `doit lock --download` is how it gets pinned, in CI as well."""
    world.project.catalogue(
        {"m": entry(url=world.server.url("/g.gguf"), engine="embedded")}, ENGINES_OF_PYTHON
    )
    result = world.project.doit("lock", "--download", env=CI)
    assert result.status == 0, result.err
    assert world.project.doit("download", env=CI).status == 0


def test_a_file_that_rotted(world: World) -> None:
    """Issue 5.2: what has to be fetched again is fetched, too: wrong bytes in its place are no pin."""
    assert world.project.doit("download").status == 0
    [target] = world.project.cache.glob("models/*/m.llamafile")
    target.write_bytes(noise(b"rotten", 1000))
    asked = world.requests
    said = failed(world.project.doit("download", env=CI))
    assert "has changed on disk" in world.project.doit("download", env=CI).err
    assert f"m {NOT_PINNED}" in said
    assert world.requests == asked


def test_one_unpinned_part(world: World) -> None:
    """Issue 5.2: every file of a model counts."""
    names = [f"/s-0000{n}-of-00002.gguf" for n in (1, 2)]
    world.server.files |= dict.fromkeys(names, MODEL)
    model: dict[str, Any] = entry(url=world.server.url(names[0]), engine="embedded")
    model["parts"] = [{"sha256": sha256(MODEL)}, {"size": len(MODEL)}]
    world.project.catalogue({"s": model}, ENGINES_OF_PYTHON)
    said = failed(world.project.doit("serve", env=CI), status=3)
    assert "models.s.parts.1.sha256: this key is required, because other parts have it" in said
    assert world.server.requests == []


def test_a_local_file_without_a_digest(world: World) -> None:
    """Issue 5.2: it is unpinned like any other: what a team commits is exactly these bytes."""
    shutil.copy(world.project.path / "demo" / "demo.gguf", world.project.path / "near.gguf")
    world.project.catalogue({"n": entry(url="near.gguf", engine="embedded")}, ENGINES_OF_PYTHON)
    assert f"n {NOT_PINNED}" in failed(world.project.doit("download", env=CI))
    assert world.project.doit("lock", env=CI).status == 0
    assert world.project.doit("download", env=CI).status == 0
