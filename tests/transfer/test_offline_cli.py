"""Offline: no socket is opened but loopback serving's, and what is missing is listed (issue 5.4)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import ask, serving
from tests.support.project import ENGINES, Project, Result, interrupt, wait_until
from tests.support.publishers import entry, failed, sha256

OFFLINE = [{"LLAMAFILE_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "1"}]
EMBEDDED = {"embedded": ENGINES["embedded"]}
MODEL = llamafile.gguf(5_000)
both = pytest.mark.parametrize("offline", OFFLINE, ids=lambda env: next(iter(env)))


@pytest.fixture
def tried(project: Project, tmp_path: Path) -> Path:
    """Every Python process of the project is watched; the file that is written when one tries."""
    folder, report = tmp_path / "watched", tmp_path / "tried.txt"
    folder.mkdir()
    shutil.copy(Path(llamafile.HERE) / "no_sockets.py", folder / "sitecustomize.py")
    project.env |= {"PYTHONPATH": str(folder), "NO_SOCKETS": str(report)}
    return report


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files["/m.gguf"] = MODEL
        yield server


def pinned(project: Project, server: FileServer, name: str = "m.gguf") -> None:
    """A catalogue with a pinned model of that server."""
    project.catalogue({"m": project.entry(server.url(f"/{name}"), MODEL, engine="embedded")}, EMBEDDED)


def test_the_watch_works(project: Project, server: FileServer, tried: Path) -> None:
    """Issue 5.4: without the variable a download tries, and is noticed."""
    pinned(project, server)
    with project.start("download") as running:
        asked = "socket.getaddrinfo '127.0.0.1' by "
        wait_until(lambda: tried.exists() and asked in tried.read_text("utf-8"))
        interrupt(running)
        assert running.finish().status == 130
    assert server.requests == []


@both
def test_what_is_here(project: Project, server: FileServer, tried: Path, offline: Mapping[str, str]) -> None:
    """Issue 5.4: nothing is missing, nobody is asked; also where its stamp is lost and it is read again."""
    pinned(project, server)
    target = project.target(MODEL, "m.gguf")
    target.parent.mkdir(parents=True)
    target.write_bytes(MODEL)
    for _ in range(2):
        result = project.doit("download", "--frozen", env=offline)
        assert result.status == 0, result.err
    for words in ([], ["catalogue", "--json"], ["plan"], ["status"], ["list"], ["help", "lock"]):
        project.doit(*words, env=offline)
    assert not tried.exists()


@both
def test_what_is_on_this_machine(
    project: Project, server: FileServer, tried: Path, tmp_path: Path, offline: Mapping[str, str]
) -> None:
    """Issue 5.4: a local file, a mirror that is one, the Hub's cache, and what came before it was pinned."""
    files = [llamafile.gguf(6_000 + number) for number in range(4)]
    (project.path / "near.gguf").write_bytes(files[0])
    (tmp_path / "mirror.gguf").write_bytes(files[1])
    blobs = tmp_path / "home" / ".cache" / "huggingface" / "hub" / "models--o--r" / "blobs"
    before = project.cache / "models" / "url-0123456789abcdef"
    for folder, name, data in ((blobs, sha256(files[2]), files[2]), (before, "d.gguf", files[3])):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(data)
    url = server.url("/gone.gguf")
    models = {
        "a": project.entry("near.gguf", files[0]),
        "b": project.entry(url, files[1], mirrors=[str(tmp_path / "mirror.gguf")]),
        "c": project.entry(url, files[2]),
        "d": project.entry(server.url("/d.gguf"), files[3]),
    }
    project.catalogue({name: {**one, "engine": "embedded"} for name, one in models.items()}, EMBEDDED)
    result = project.doit("download", *(w for name in models for w in ("--model", name)), env=offline)
    assert result.status == 0, result.err
    for data, name in zip(files, ("near.gguf", "gone.gguf", "gone.gguf", "d.gguf"), strict=True):
        assert project.target(data, name).read_bytes() == data
    assert not tried.exists()


@both
def test_everything_that_is_missing(
    project: Project, server: FileServer, tried: Path, offline: Mapping[str, str]
) -> None:
    """Issue 5.4: all of it at once, with sizes and where it would come from; not what is here."""
    (project.path / "near.gguf").write_bytes(MODEL)
    parts = [server.url(f"/s-0000{n}-of-00002.gguf") for n in (1, 2)]
    pin = [{"sha256": "a" * 64, "size": 1_000_000}, {"sha256": "b" * 64, "size": 2_000_000}]
    models = {
        "a": project.entry(server.url("/a.gguf"), MODEL, mmproj={"url": server.url("/eyes.gguf")}),
        "s": entry(url=parts[0], parts=pin),
        "near": project.entry("near.gguf", MODEL),
    }
    engine = {"title": "l", "license": "MIT", "version": "0.10.5", "url": server.url("/exe")}
    project.catalogue(models, {"llamafile": {**engine, "sha256": "c" * 64, "size": 350_000_000}})
    [variable] = offline
    result = project.doit("verify", *(w for name in models for w in ("--model", name)), env=offline)
    said = failed(result)
    assert said.splitlines() == [
        f"ERROR: {variable} forbids the network, and these files are missing",
        f"  a: 5.00 kB from {server.url('/a.gguf')}",
        f"  a mmproj: ? from {server.url('/eyes.gguf')}",
        f"  s: 1.00 MB from {parts[0]}",
        f"  s part 2 of 2: 2.00 MB from {parts[1]}",
        f"  llamafile 0.10.5: 350.0 MB from {server.url('/exe')}",
        f"  fix: unset {variable}, or copy the cache of another machine to {project.cache}; "
        "--engine embedded serves a .gguf without it (pip install '.[embedded]')",
    ]
    assert not tried.exists()
    assert server.requests == []


VERBS: list[tuple[str, Callable[[Project, Mapping[str, str]], Result]]] = [
    ("serve", lambda p, env: p.doit("serve", env=env)),
    ("start", lambda p, env: p.doit("start", env=env)),
    ("with", lambda p, env: p.doit("with", "--", "true", env=env)),
    ("chat", lambda p, env: p.doit("chat", "Hello", env=env)),
    ("download", lambda p, env: p.doit("download", env=env)),
    ("exe", lambda p, env: p.doit("exe", env=env)),
]


DOWNLOAD = dict(VERBS)["download"]


@pytest.mark.parametrize("run", [run for _, run in VERBS], ids=[name for name, _ in VERBS])
def test_every_verb(
    project: Project, server: FileServer, tried: Path, run: Callable[[Project, Mapping[str, str]], Result]
) -> None:
    """Issue 5.4: each says what is missing, before anything is begun."""
    engine = {"title": "l", "license": "MIT", "version": "0.10.5", "url": server.url("/exe")}
    project.catalogue({"m": project.entry(server.url("/m.gguf"), MODEL)}, {"llamafile": engine})
    said = failed(run(project, {"LLAMAFILE_OFFLINE": "1"}))
    assert "LLAMAFILE_OFFLINE forbids the network, and these files are missing\n" in said
    assert f"  llamafile 0.10.5: ? from {server.url('/exe')}\n" in said or run is DOWNLOAD
    assert not list(project.cache.rglob("*.partial*"))
    assert not tried.exists()


def test_a_file_that_rotted(project: Project, server: FileServer, tried: Path) -> None:
    """Issue 5.4: wrong bytes in its place: it is missing like any other."""
    pinned(project, server)
    target = project.target(MODEL, "m.gguf")
    target.parent.mkdir(parents=True)
    target.write_bytes(MODEL[:-1])
    said = failed(project.doit("download", env={"LLAMAFILE_OFFLINE": "1"}))
    assert f"m: 5.00 kB from {server.url('/m.gguf')}" in said
    assert not tried.exists()


@both
def test_lock(project: Project, server: FileServer, tried: Path, offline: Mapping[str, str]) -> None:
    """Issue 5.1, 5.4: what needs nobody is locked and checked; for the rest, the variable is named."""
    project.catalogue({"demo": entry(url="demo/demo.gguf", engine="embedded")}, EMBEDDED)
    assert project.doit("lock", env=offline).status == 0
    assert project.doit("lock", "--check", env=offline).status == 0
    models = {"a": entry(url=server.url("/m.gguf")), "b": entry(hf="o/r", file="m.gguf")}
    project.catalogue({name: {**one, "engine": "embedded"} for name, one in models.items()}, EMBEDDED)
    before = (project.path / "models.lock").read_bytes()
    [variable] = offline
    said = failed(project.doit("lock", env=offline))
    assert f"  a: 127.0.0.1: {variable} forbids the network\n" in said
    assert f"  b: huggingface.co: {variable} forbids the network\n" in said
    assert (project.path / "models.lock").read_bytes() == before
    assert "models.b: is not in models.lock" in failed(project.doit("lock", "--check", env=offline))
    assert not tried.exists()


@both
def test_serving_needs_but_this_machine(project: Project, tried: Path, offline: Mapping[str, str]) -> None:
    """Issue 5.4: the demo is fetched from its folder, served, asked; only loopback is reached."""
    pytest.importorskip("xllamacpp")
    env = {**offline, "ALLOW_LOOPBACK": "1"}
    answer = project.doit("chat", "--model", "demo", "What are you?", env=env)
    assert answer.status == 0, answer.err
    assert len(answer.out) > 10
    with serving(project, "serve", "--model", "demo", "--port", "0", "--probe", env=env) as (_, url):
        assert len(ask(url, "What are you?")) > 10
    assert not tried.exists()
