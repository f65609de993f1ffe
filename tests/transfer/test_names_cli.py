"""On a file system with names of at most 143 bytes (eCryptfs), every name that any verb creates fits."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import AS_BEFORE, behave
from tests.support.project import Project
from tests.support.publishers import failed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

LIMIT = 143  # of eCryptfs
ADDED = 13  # `.partial.json`
NAME = "m" * (LIMIT - ADDED - len(".llamafile")) + ".llamafile"
PATHS = {"open": (0,), "os.mkdir": (0,), "os.rename": (0, 1), "os.link": (0, 1), "os.symlink": (1,)}

_active: list[set[str]] = []  # a hook cannot be removed


def _note(event: str, args: tuple[Any, ...]) -> None:
    if _active and event in PATHS:
        for index in PATHS[event]:
            if isinstance(args[index], (str, bytes)):
                _active[-1].add(os.path.basename(os.fsdecode(args[index])))


@functools.cache
def _install() -> None:
    sys.addaudithook(_note)


@pytest.fixture
def opened() -> Iterator[set[str]]:
    """The name of every file that this process opens, makes or renames."""
    _install()
    _active.append(set())
    yield _active[-1]
    _active.pop()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


def test_every_name_fits(project: Project, server: FileServer, opened: set[str]) -> None:
    """F13: a download in pieces, a copy, a server with its logs, locks and key; and what is left."""
    data = llamafile.build(project.path / "m.llamafile", pad=200_000).read_bytes()
    server.files[f"/{NAME}"] = data
    entry = {"serve": AS_BEFORE}
    project.catalogue({"m" * 64: project.entry(server.url(f"/{NAME}"), data, **entry)})
    behave(project)
    listed = project.path / "listed"
    script = f'ls -aR "$LLAMAFILE_CACHE" > {listed}'
    serve = ["with", "--", "sh", "-c", script]
    for words in (["download"], ["verify"], serve, ["audit"], ["prune"], ["status"], ["plan"]):
        result = project.doit(*words, env={"LLAMA_API_KEY": "secret"})
        assert result.status == int(words == ["status"]), result.err
    target = project.target(data, NAME)
    target.rename(project.path / NAME)
    project.catalogue({"m" * 64: project.entry(str(project.path / NAME), data, **entry)})
    assert project.doit("download").status == 0
    names = {*opened, *listed.read_text().splitlines(), *(path.name for path in project.cache.rglob("*"))}
    names = {name for name in names if not name.startswith(str(project.cache))}
    assert f"{NAME}.partial.json" in names
    assert [name for name in names if name.endswith(".log")] != []
    assert max(len(os.fsencode(name)) for name in names) == LIMIT
    added = {name.removeprefix(NAME) for name in names if name.startswith(NAME)}
    assert added == {"", ".partial", ".partial.json", ".partial.live", ".stamp.json"}


@pytest.mark.parametrize("source", ["server", "file"])
def test_a_name_that_does_not_fit(
    project: Project, server: FileServer, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """F13: the error names the limit, before a byte is fetched or copied."""
    monkeypatch.setattr(os, "pathconf", lambda *_: LIMIT)
    data, name = llamafile.gguf(5000), f"m{NAME}"
    server.files[f"/{name}"] = data
    (project.path / name).write_bytes(data)
    url = server.url(f"/{name}") if source == "server" else str(project.path / name)
    project.catalogue({"m": project.entry(url, data)})
    error = failed(project.doit("download"))
    assert f"the file name or the path is too long\n  length: {LIMIT - ADDED + 1} bytes\n" in error
    assert f"  limit: {LIMIT - ADDED} bytes here\n" in error
    assert "set LLAMAFILE_CACHE to another file system" in error
    assert server.requests == []
    assert list(project.cache.glob("models/*/*")) == []
