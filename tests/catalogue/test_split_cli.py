"""Models of several files: a split GGUF, a vision projector (issue 5.3)."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import arguments, ask, behave, serving
from tests.support.project import ENGINES, Project
from tests.support.publishers import HUB, World, entry, failed, sha256, worlds
from tests.support.servers import started
from tests.support.split import DEMO, split_demo

EMBEDDED = {"embedded": ENGINES["embedded"]}
QUESTION = "What is a llamafile?"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    yield from worlds(project)


def names(count: int, name: str = "s") -> list[str]:
    return [f"{name}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def pins(*parts: bytes) -> list[dict[str, Any]]:
    return [{"sha256": sha256(data), "size": len(data)} for data in parts]


def three(project: Project, server: FileServer, size: int = 300_000, **keys: Any) -> list[bytes]:
    """A catalogue with a model of three parts, pinned; their bytes."""
    parts = [llamafile.gguf(size + number) for number in range(3)]
    for name, data in zip(names(3), parts, strict=True):
        server.files[f"/{name}"] = data
    url = server.url(f"/{names(3)[0]}")
    project.catalogue({"s": entry(url=url, engine="embedded", parts=pins(*parts), **keys)}, EMBEDDED)
    return parts


def targets(project: Project, parts: list[bytes]) -> list[Path]:
    """Where the parts end up: beside the first."""
    return [project.target(parts[0], name) for name in names(len(parts))]


def fetched(server: FileServer) -> list[int]:
    """How often each of the three parts was asked for."""
    return [len(server.asked(f"/{name}")) for name in names(3)]


def good(project: Project, *words: str, **more: Any) -> str:
    result = project.doit(*words, **more)
    assert result.status == 0, result.err
    return result.err


def test_a_split_model_answers_as_the_whole_one(project: Project, server: FileServer, tmp_path: Path) -> None:
    """Issue 5.3: fetched whole, served by its first part; the engine is llama.cpp."""
    pytest.importorskip("xllamacpp")
    parts = split_demo(tmp_path, 13)
    assert len(parts) == 3
    for path in parts:
        server.files[f"/{path.name}"] = path.read_bytes()
    model = entry(
        url=server.url(f"/{parts[0].name}"), engine="embedded", parts=pins(*(p.read_bytes() for p in parts))
    )
    whole = project.entry("demo/demo.gguf", DEMO.read_bytes(), engine="embedded")
    project.catalogue({"split": model, "whole": whole}, EMBEDDED, defaults={"threads": 1, "ctx_size": 512})
    answers = []
    for name in ("split", "whole"):
        with serving(project, "serve", "--model", name, "--port", "0") as (running, url):
            answers.append(ask(url, QUESTION))
            assert ("split part 3 of 3: " in running.err) is (name == "split")
    assert answers[0] == answers[1]
    assert len(answers[0]) > 10
    assert "-- download:split" in good(project, "download:split")


def test_every_part_comes_once(project: Project, server: FileServer) -> None:
    """Issue 5.3: each verified; a second run has nothing to do; `doit` shows the size of all."""
    parts = three(project, server)
    said = good(project, "download")
    assert [path.read_bytes() for path in targets(project, parts)] == parts
    for label in ("s:", "s part 2 of 3:", "s part 3 of 3:"):
        assert f"{label} 300.0 kB" in said
    assert said.count("sha256 verified") == 3
    assert "-- download:s" in good(project, "download")
    assert fetched(server) == [1, 1, 1]
    row = next(line for line in project.doit().out.splitlines() if line.startswith("s *"))
    assert "900.0 kB" in row
    assert "yes" in row


def test_interrupted_in_the_second_part(project: Project, server: FileServer) -> None:
    """R18, issue 5.3: the first is not fetched again, the second goes on where it stopped."""
    parts = three(project, server, 12_000_000)
    second = f"/{names(3)[1]}"
    server.set_rate(second, 4_000_000)
    with project.start("download") as running:
        server.wait_sent(second, 6_000_000)
        running.send(signal.SIGINT)
        assert running.finish().status == 130
    server.set_rate(second, None)
    assert (
        "no" not in next(line for line in project.doit().out.splitlines() if line.startswith("s *")).split()
    )
    good(project, "download")
    assert [path.read_bytes() for path in targets(project, parts)] == parts
    assert fetched(server) == [1, 2, 1]
    again = server.asked(second)[1]
    assert again.range is not None
    assert again.range[0] > 1_000_000


@pytest.mark.parametrize("damage", ["missing", "rotten", "short"])
def test_one_part_is_not_there(project: Project, server: FileServer, damage: str) -> None:
    """Issue 5.3: only that one is fetched."""
    parts = three(project, server)
    good(project, "download")
    second = targets(project, parts)[1]
    if damage == "missing":
        second.unlink()
    else:
        second.write_bytes(b"x" * len(parts[1]) if damage == "rotten" else parts[1][:-1])
    row = next(line for line in project.doit().out.splitlines() if line.startswith("s *"))
    assert "yes" not in row
    good(project, "download")
    assert [path.read_bytes() for path in targets(project, parts)] == parts
    assert fetched(server) == [1, 2, 1]


def test_a_part_with_other_bytes(project: Project, server: FileServer) -> None:
    """R21, issue 5.3: the part is named, and the model is not served."""
    parts = three(project, server)
    server.files[f"/{names(3)[1]}"] = parts[1][:-1] + b"?"
    said = failed(project.doit("download"))
    assert "s part 2 of 3: no source sent the right bytes" in said
    assert f"expected: sha256:{sha256(parts[1])}" in said
    assert [path.exists() for path in targets(project, parts)] == [True, False, False]


def test_parts_that_are_here_already(project: Project, server: FileServer, tmp_path: Path) -> None:
    """Issue 5.3: from the Hub's cache and from a plain folder; what is nowhere is fetched."""
    folder = tmp_path / "mine"
    parts = three(project, server)
    blobs = tmp_path / "home" / ".cache" / "huggingface" / "hub" / "models--o--r" / "blobs"
    for place in (folder, blobs):
        place.mkdir(parents=True)
    (blobs / sha256(parts[0])).write_bytes(parts[0])
    (folder / names(3)[2]).write_bytes(parts[2])
    data = (project.path / "models.yaml").read_text("utf-8")
    (project.path / "models.yaml").write_text(data.replace("{", f'{{"adopt_from": ["{folder}"],', 1), "utf-8")
    said = good(project, "download")
    assert [path.read_bytes() for path in targets(project, parts)] == parts
    assert fetched(server) == [0, 1, 0]
    assert f"copied from {folder}" in said


def test_by_its_url_alone(project: Project, server: FileServer, tmp_path: Path) -> None:
    """Issue 5.3: --llamafile-url of the first part fetches and serves them all."""
    pytest.importorskip("xllamacpp")
    for path in split_demo(tmp_path, 20):
        server.files[f"/{path.name}"] = path.read_bytes()
    url = server.url("/d-00001-of-00002.gguf")
    words = ["serve", "--llamafile-url", url, "--engine", "embedded", "--port", "0", "--ctx-size", "512"]
    with serving(project, *words) as (_, where):
        assert len(ask(where, QUESTION)) > 10
    said = failed(project.doit("serve", "--llamafile-url", server.url("/d-00002-of-00002.gguf")), 3)
    assert "is part 2 of 2: expected the first, " in said
    assert "d-00001-of-00002.gguf" in said


def test_an_own_split_file(project: Project, tmp_path: Path) -> None:
    """Issue 5.3: --llamafile names the first; one that lacks a part is explained by the engine's words."""
    pytest.importorskip("xllamacpp")
    first, second = split_demo(tmp_path, 20)
    words = ["--llamafile", str(first), "--engine", "embedded", "--port", "0", "--ctx-size", "512"]
    with serving(project, "serve", *words) as (_, where):
        assert len(ask(where, QUESTION)) > 10
    second.unlink()
    said = failed(project.doit("serve", *words))
    assert second.name in said


def test_locked(world: World, tmp_path: Path) -> None:
    """Issue 5.1: one entry a part, resolved by its first name; --frozen is content then."""
    parts = split_demo(tmp_path, 13)
    commit = world.repo.push({f"q/{path.name}": path.read_bytes() for path in parts})
    model = entry(hf="o/r", file=f"q/{parts[0].name}", engine="embedded")
    world.project.catalogue({"s": model}, EMBEDDED)
    world.locked()
    text = world.lock.read_text("utf-8")
    for path in parts:
        assert f"url: {HUB}/o/r/resolve/{commit}/q/{path.name}" in text
        assert sha256(path.read_bytes()) in text
    good(world.project, "download", "--frozen")
    first = world.project.target(parts[0].read_bytes(), parts[0].name)
    assert [path.read_bytes() for path in sorted(first.parent.glob("*.gguf"))] == [
        p.read_bytes() for p in parts
    ]


def seeing(project: Project, eyes: bytes, name: str = "eyes.gguf") -> None:
    """A catalogue with a fake llamafile and its projector."""
    data = llamafile.build(project.path / "m.llamafile", version="0.10.5").read_bytes()
    (project.path / name).write_bytes(eyes)
    pin = {"sha256": sha256(eyes), "size": len(eyes)}
    project.catalogue({"m": project.entry("m.llamafile", data, mmproj={"url": name, **pin})}, EMBEDDED)
    behave(project)


def test_a_projector_reaches_the_engine(project: Project) -> None:
    """Issue 5.3: fetched, verified and passed."""
    eyes = llamafile.gguf(4000)
    seeing(project, eyes)
    with serving(project, "serve", "--port", "0") as (running, url):
        assert ask(url, "Hello") == "Hello"
        assert "m mmproj: 4.00 kB" in running.err
    words = arguments(project)
    target = words[words.index("--mmproj") + 1]
    assert target == str(project.target(eyes, "eyes.gguf"))
    assert Path(target).read_bytes() == eyes


def test_a_projector_that_is_none(project: Project) -> None:
    """Issue 5.3: a web page in its place is refused before the engine sees it."""
    seeing(project, b"<html>Please log in</html>")
    said = failed(project.doit("serve", "--port", "0"))
    assert "eyes.gguf is not a GGUF file" in said


def test_another_projector_is_another_server(servers: Project) -> None:
    """Issue 5.3: `doit start` says what differs from the one that runs."""
    old, new = llamafile.gguf(4000), llamafile.gguf(5000)
    seeing(servers, old)
    url = started(servers, "--port", "0")
    seeing(servers, old)
    assert started(servers) == url
    seeing(servers, new)
    said = failed(servers.background("start"))
    was, now = (servers.target(data, "eyes.gguf") for data in (old, new))
    assert f"--mmproj: running {was}, requested {now}" in said


def test_the_embedded_engine_takes_a_projector(project: Project) -> None:
    """Issue 5.3: and refuses a GGUF of another kind, in words. A real one is not to be had here."""
    pytest.importorskip("xllamacpp")
    demo = DEMO.read_bytes()
    shutil.copy(DEMO, project.path / "eyes.gguf")
    pin = {"sha256": sha256(demo), "size": len(demo)}
    model = project.entry("demo/demo.gguf", demo, engine="embedded", mmproj={"url": "eyes.gguf", **pin})
    project.catalogue({"m": model}, EMBEDDED)
    said = failed(project.doit("serve", "--port", "0"))
    assert "Failed to load CLIP model" in said
    assert "the file of `mmproj:` is not a vision projector, or belongs to another model: use" in said
