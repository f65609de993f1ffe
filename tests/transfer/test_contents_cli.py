"""Nothing unpinned gets its final name unless it begins as a model does (F16, point 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.support.project import REPO, Project

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

# what a server may send instead of the model, and how the message names it
SENT = [
    pytest.param(b"", "it is empty (0 bytes)", id="0 bytes"),
    pytest.param(b"Entry not found", "it is text: Entry not found", id="the Hub's text"),
    pytest.param(b'{"error":"gone"}', 'it is JSON: {"error":"gone"}', id="JSON"),
    pytest.param(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
        "it is a Git LFS pointer, not the file that it names",
        id="a Git LFS pointer",
    ),
    pytest.param(DEMO[: len(DEMO) // 2], "it is a part of a GGUF: 1123456 bytes", id="half a GGUF"),
    pytest.param(DEMO[:9000], "it is a damaged GGUF: the GGUF ends within its", id="its beginning"),
    pytest.param(b"GGUF\1\0\0\0", "it is a GGUF of version 1", id="version 1"),
    pytest.param(b"\0" * 5000, "it begins with the bytes 00 00", id="zeros"),
]


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


def models(project: Project) -> dict[str, bytes]:
    """The files with a final name."""
    endings = ("*.gguf", "*.GGUF", "*.llamafile")
    paths = [path for ending in endings for path in project.cache.rglob(ending)]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize(("data", "said"), SENT)
@pytest.mark.parametrize("name", ["x.gguf", "x.llamafile"])
def test_what_is_no_model(project: Project, server: FileServer, name: str, data: bytes, said: str) -> None:
    """F16: it is named and refused; when the server is well again, the model comes."""
    server.files[f"/{name}"] = data
    words = ("download", "--llamafile-url", server.url(f"/{name}"))
    result = project.doit(*words)
    assert (result.status, result.out) == (1, "")
    assert f"got: {said}" in result.err
    assert models(project) == {}
    server.files[f"/{name}"] = DEMO
    assert project.doit(*words).status == 0
    assert models(project) == {name: DEMO}


@pytest.mark.parametrize("name", ["x.gguf", "X.GGUF", "x.llamafile"])
@pytest.mark.parametrize("kind", ["gguf", "llamafile"])
def test_what_is_a_model(project: Project, server: FileServer, tmp_path: Path, name: str, kind: str) -> None:
    """F10: the bytes decide, so a model of either kind may have any name."""
    data = DEMO
    if kind == "llamafile":
        data = llamafile.build(tmp_path / "m.llamafile").read_bytes()
    server.files[f"/{name}"] = data
    assert project.doit("download", "--llamafile-url", server.url(f"/{name}")).status == 0
    assert models(project) == {name: data}


@pytest.mark.parametrize(("data", "said"), SENT)
def test_a_local_file_that_is_no_model(project: Project, data: bytes, said: str) -> None:
    """F16: a path of the catalogue is copied only if it is a model; a mirror is tried."""
    (project.path / "own.gguf").write_bytes(data)
    project.catalogue({"m": project.entry("own.gguf", engine="embedded")})
    result = project.doit("download")
    assert (result.status, result.out) == (1, "")
    assert said in result.err
    assert models(project) == {}
    (project.path / "good.gguf").write_bytes(DEMO)
    entry = project.entry("own.gguf", engine="embedded", mirrors=["good.gguf"])
    project.catalogue({"m": entry})
    assert project.doit("download").status == 0
    assert models(project) == {"own.gguf": DEMO}


def test_the_next_source_is_tried(project: Project, server: FileServer) -> None:
    """F16: a source that sends an error message is passed over."""
    server.files |= {"/x.gguf": b"Entry not found", "/y.gguf": DEMO}
    urls = [server.url("/x.gguf"), server.url("/y.gguf")]
    project.catalogue({"m": project.entry(urls[0], engine="embedded", mirrors=urls[1:])})
    result = project.doit("download")
    assert result.status == 0
    assert "it is text: Entry not found" in result.err
    assert models(project) == {"x.gguf": DEMO}


def test_a_pin_of_nothing(project: Project, server: FileServer) -> None:
    """F16: 0 bytes are refused even where the digest is that of nothing."""
    server.files["/x.gguf"] = b""
    result = project.doit("download", "--llamafile-url", server.url("/x.gguf"), "--sha256", EMPTY_SHA256)
    assert result.status == 1
    assert "got: it is empty (0 bytes)" in result.err
    assert models(project) == {}


def test_a_pin_decides(project: Project, server: FileServer) -> None:
    """F16: of a pinned file, the digest decides, whatever its first bytes are."""
    data = b"Entry not found"
    server.files["/x.gguf"] = data
    project.catalogue({"m": project.entry(server.url("/x.gguf"), data, engine="embedded")})
    assert project.doit("download").status == 0
    assert models(project) == {"x.gguf": data}


@pytest.mark.parametrize("data", [b"Entry not found", b""], ids=["a text", "0 bytes"])
def test_what_lies_there_from_earlier(project: Project, server: FileServer, data: bytes) -> None:
    """F16: an older version kept it under the final name, with a stamp; it is fetched again."""
    server.files["/x.gguf"] = DEMO
    words = ("download", "--llamafile-url", server.url("/x.gguf"))
    assert project.doit(*words).status == 0
    [target] = project.cache.rglob("x.gguf")
    target.write_bytes(data)
    stamp = target.with_name("x.gguf.stamp.json")
    stamp.unlink()
    again = project.doit(*words)
    assert again.status == 0, again.err
    assert "x: the file in the cache is replaced: it is " in again.err
    assert models(project) == {"x.gguf": DEMO}
    assert project.doit(*words).err == "-- download:x\n"
    assert len(server.asked("/x.gguf")) == 2


def test_half_a_model_from_earlier(project: Project, server: FileServer) -> None:
    """F16: half a GGUF begins as a model does; `verify` names it, with the fix."""
    server.files["/x.gguf"] = DEMO
    words = ("--llamafile-url", server.url("/x.gguf"))
    assert project.doit("download", *words).status == 0
    [target] = project.cache.rglob("x.gguf")
    target.write_bytes(DEMO[:100_000])
    target.with_name("x.gguf.stamp.json").unlink()
    assert project.doit("download", *words).status == 0
    result = project.doit("verify", "--engine", "embedded", *words)
    assert result.status == 1
    assert "got: it is a part of a GGUF: 100000 bytes" in result.err
    assert "fix: delete it and download it again" in result.err
