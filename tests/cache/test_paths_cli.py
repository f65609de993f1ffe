"""Names that come from outside never lead out of the cache; long ones work, or the error says how long."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks.catalogue import load

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.support.project import Project
from tests.support.publishers import World, entry, failed, sha256, worlds

EVIL = b"#!/bin/sh\ntouch evil-ran\n"
DATA = llamafile.gguf(5000)
BACK = "x/../../../victim"  # from engines/llamafile-, out of the cache


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    yield from worlds(project)


@pytest.fixture
def victim(project: Project) -> Path:
    """A folder beside the cache in which nothing may appear."""
    path = project.cache.parent / "victim"
    path.mkdir()
    return path


def latest(project: Project, base: str) -> None:
    """A catalogue whose engine is the latest release."""
    url = f"{base}/o/r/releases/download/{{version}}/llamafile-{{version}}"
    engine = {"title": "l", "license": "Apache-2.0", "version": "latest", "url": url}
    project.catalogue({"m": entry(url="demo/demo.gguf")}, {"llamafile": engine})


@pytest.mark.parametrize("command", [["lock", "--check"], ["exe"], ["serve", "--frozen"], ["download"]])
def test_a_version_in_the_lock_file(
    project: Project, server: FileServer, victim: Path, command: list[str]
) -> None:
    """Finding 2: an engine's version in models.lock cannot name a file elsewhere."""
    server.files["/evil"] = EVIL
    latest(project, "https://github.com")
    row = {
        "url": server.url("/evil"), "sha256": sha256(EVIL), "license": "Apache-2.0", "digest_from": "me",
        "since": "2026-11-27", "version": f"{BACK}/.bashrc",
        "source": "https://github.com/o/r/releases/download/{version}/llamafile-{version}",
    }  # fmt: skip
    lock = {"version": 1, "engines": {"llamafile": [row]}, "models": {}}
    (project.path / "models.lock").write_text(json.dumps(lock, indent=1))
    result = project.doit(*command)
    assert result.status == 3
    assert "models.lock:11: engines.llamafile.0.version: expected a version of letters" in result.err
    assert (list(victim.iterdir()), server.requests) == ([], [])


def test_a_tag_of_a_release(world: World, victim: Path) -> None:
    """Finding 2: the tag that a publisher's API answers cannot, either; nothing is written."""
    for tag in (f"{BACK}/by_tag", ".."):
        world.releases.release(tag, {f"llamafile-{tag}": EVIL})
        latest(world.project, world.github.endpoint.replace("/o/r", ""))
        models = (world.project.path / "models.yaml").read_text().replace("/o/r/", "/gh/llamafile/")
        (world.project.path / "models.yaml").write_text(models)
        error = failed(world.project.doit("lock"))
        assert f"the latest release of gh/llamafile is tagged {tag!r}: expected a version" in error
        assert not world.lock.exists()
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("key", ["url", "mmproj"])
@pytest.mark.parametrize("name", ["NUL.gguf", "con", ".bashrc", "m.gguf.", "m.gguf%20", "-rf", "x" * 243])
def test_a_file_name_of_a_url(project: Project, name: str, key: str) -> None:
    """Finding 2: a name that cannot be a file everywhere is refused with its line."""
    url = f"https://e.org/{name}"
    model = {"title": "m", "license": "MIT", "url": "https://e.org/m.gguf", "engine": "embedded"}
    project.catalogue({"m": {**model, **({"url": url} if key == "url" else {"mmproj": {"url": url}})}})
    result = project.doit("plan")
    assert result.status == 3
    assert f"models.m.{'mmproj.' if key == 'mmproj' else ''}url: {url}: " in result.err


@pytest.mark.parametrize("name", ["NUL.gguf", "..%2f.gguf", ".gguf", "%2e%2e%5c.llamafile"])
def test_a_file_name_on_the_command_line(project: Project, server: FileServer, name: str) -> None:
    """Finding 2: `--llamafile-url` is held to the same rule."""
    result = project.doit("download", "--llamafile-url", f"{server.url('/')}{name}", "--sha256", "0" * 64)
    assert (result.status, server.requests) == (3, [])
    assert "cannot be a file in" in result.err


def test_the_compiled_catalogue_is_held_to_it(project: Project, victim: Path, server: FileServer) -> None:
    """Finding 2: a forged file of the cache leads nowhere either."""
    server.files["/m.gguf"] = DATA
    project.catalogue({"m": project.entry(server.url("/m.gguf"), DATA, engine="embedded")})
    project.cache.mkdir()
    assert project.doit("catalogue").status == 0
    [compiled] = project.cache.glob("catalogue/*.json")
    plain: dict[str, Any] = json.loads(compiled.read_text().partition("\n")[2])
    plain["models"]["m"]["sha256"] = "/../../../victim/"
    text = json.dumps(plain)
    compiled.write_text(f"{load._checksum(compiled.stem, text)}\n{text}")
    result = project.doit("download")
    assert list(victim.iterdir()) == [], result.err


@pytest.mark.parametrize("length", [189, 200, 242])
def test_a_long_name(project: Project, server: FileServer, length: int) -> None:
    """Finding 32: what is written beside a file adds 13 bytes to its name, and no more."""
    name = "m" * (length - 5) + ".gguf"
    server.files[f"/{name}"] = DATA
    project.catalogue({"m": project.entry(server.url(f"/{name}"), DATA, engine="embedded")})
    for command in (["download"], ["audit"], ["prune"], ["plan"]):
        result = project.doit(*command)
        assert result.status == 0, result.err
    folder = project.target(DATA, name).parent
    assert project.target(DATA, name).read_bytes() == DATA
    expected = [name, f"{name}.stamp.json"]
    assert sorted(os.listdir(folder)) == expected


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="Windows does not say how long a name may be")
def test_a_name_that_the_file_system_does_not_take(project: Project, server: FileServer) -> None:
    """Finding 32: the error names the limit of the file system that the file would lie on."""
    server.files["/m.gguf"] = DATA
    name, digest = "m" * 245 + ".gguf", hashlib.sha256(DATA).hexdigest()
    options = ["--llamafile", name, "--llamafile-url", server.url("/m.gguf"), "--sha256", digest]
    error = failed(project.doit("download", *options))
    assert "the file name or the path is too long\n  length: 250 bytes\n  limit: 242 bytes" in error
    assert f"in: {project.path}" in error


def test_a_name_that_is_too_long(project: Project, server: FileServer) -> None:
    """Finding 32: the error names the limit; nothing is asked."""
    url = server.url(f"/{'m' * 300}.gguf")
    result = project.doit("download", "--llamafile-url", url, "--sha256", hashlib.sha256(DATA).hexdigest())
    assert (result.status, server.requests) == (3, [])
    assert "the name has 305 bytes, expected 242 at most" in result.err
