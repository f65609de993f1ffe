"""`doit lock` reads the head of a GGUF, and `doit plan` judges by it before byte 1 (issue 15.6)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tasks.catalogue.gguf import GgufError, ModelMetadata, implausible, read_head
from tasks.errors import TransferError
from tasks.network.http import Response
from tasks.upstream.ranged_file import BLOCK, MOST_BLOCKS, MOST_S, Part, RangedFile, parse_part

from tests.fakes.faults import Status
from tests.support.project import ENGINES, Project
from tests.support.publishers import World, entry, worlds

NAME = "m.gguf"
EMBEDDED = {"embedded": ENGINES["embedded"]}


def model(path: Path, *, tokens: int = 300, context: int = 8192, tail: int = 5000) -> bytes:
    """A GGUF with the metadata of a model with grouped heads, and bytes for its tensors."""
    import gguf as package  # it imports numpy: not in each worker that collects this

    writer = package.GGUFWriter(path, "qwen3")
    writer.add_block_count(4)
    writer.add_context_length(context)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(512)
    writer.add_head_count(8)
    writer.add_head_count_kv(2)
    writer.add_key_length(64)
    writer.add_value_length(64)
    writer.add_token_list([f"token {number}" for number in range(tokens)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    data = path.read_bytes()
    return data + bytes(-len(data) % 32) + b"\7" * tail


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    yield from worlds(project)


def rows(world: World) -> list[dict[str, Any]]:
    """The lock file's rows of the model m."""
    found: list[dict[str, Any]] = yaml.safe_load(world.lock.read_text("utf-8"))["models"]["m"]
    return found


def planned(world: World, *options: str) -> dict[str, Any]:
    result = world.project.doit("plan", *options, "--json")
    [found] = json.loads(result.out)["memory"]["models"]
    return dict(found)


def test_the_head_of_a_file_on_the_hub(world: World, tmp_path: Path) -> None:
    """Issue 15.6: read, kept offline, used by plan and preflight, dropped with the digest."""
    data = model(tmp_path / "a")
    world.repo.push({NAME: data})
    world.project.catalogue({"m": entry(hf="o/r", file=NAME, engine="embedded")}, EMBEDDED)
    world.locked()
    [row] = rows(world)
    stated = {"architecture": "qwen3", "block_count": 4, "context_length": 8192, "embedding_length": 256}
    stated |= {"head_count": 8, "head_count_kv": 2, "key_length": 64, "value_length": 64}
    stated |= {"feed_forward_length": 512, "vocab_size": 300, "tensor_bytes": 5000}
    assert row["memory"] == stated
    assert {request.range for request in world.hub.cdn.requests} == {(0, BLOCK - 1)}
    need = planned(world, "--ctx-size", "1024")
    assert (need["source"], need["exact"]) == ("models.lock", True)
    assert need["cache"] == 1024 * 4 * 2 * 128 * 2
    said = world.project.doit("plan").out
    assert "from models.lock)" in said
    refused = world.project.doit("serve", "--ctx-size", "999999999", "--yes")
    assert (refused.status, "cannot work: m needs " in refused.err) == (1, True), refused.err

    text = world.lock.read_text("utf-8")
    assert world.project.doit("lock", "--check").status == 0
    offline = world.project.doit("lock", "--upgrade", env={"HF_HUB_OFFLINE": "1"})
    assert offline.status == 1, offline.err  # the Hub's branch cannot be asked
    assert "nothing changed" in world.locked("--upgrade")
    assert world.lock.read_text("utf-8") == text

    world.repo.push({NAME: b"GGUF, but no more"})
    result = world.project.doit("lock", "--upgrade")
    assert result.status == 0, result.err
    assert "warning: models.lock says nothing about the memory of 1 of them: m: " in result.err
    assert "memory" not in rows(world)[0]


def test_a_pinned_file_offline_keeps_what_is_known(world: World, tmp_path: Path) -> None:
    """Issue 15.6: neither a server that fails nor a network that is forbidden is an error of lock."""
    data = model(tmp_path / "a")
    world.server.files["/m.gguf"] = data
    pinned = world.project.entry(world.server.url("/m.gguf"), data, engine="embedded")
    world.project.catalogue({"m": pinned}, EMBEDDED)
    world.locked()
    text = world.lock.read_text("utf-8")
    assert "    memory:\n      architecture: qwen3\n      block_count: 4\n" in text
    # a lock file of an older version stays as it is
    old = "".join(
        line for line in text.splitlines(keepends=True) if "memory" not in line and "      " not in line
    )
    world.lock.write_text(old, "utf-8")
    assert "nothing changed" in world.locked()
    assert world.lock.read_text("utf-8") == old
    assert planned(world)["source"] == "a rule of thumb"
    assert "~ m: m.gguf, what its memory depends on\n" in world.locked("--upgrade")
    assert world.lock.read_text("utf-8") == text

    offline = world.project.doit("lock", "--upgrade", env={"HF_HUB_OFFLINE": "1"})
    assert (offline.status, offline.err, world.lock.read_text("utf-8")) == (0, "", text)
    world.server.always("/m.gguf", Status(500))
    failing = world.project.doit("lock", "--upgrade")
    assert (failing.status, world.lock.read_text("utf-8")) == (0, text)
    assert "HTTP 500" in failing.err


def test_the_model_in_a_llamafile_and_the_file_that_is_here(world: World, tmp_path: Path) -> None:
    """Issue 15.6: a few ranges of a zip; and none where the file is on this machine."""
    data = model(tmp_path / "a", tail=3 * BLOCK)
    path = tmp_path / "m.llamafile"
    path.write_bytes(b"MZqFpD='\n" + bytes(BLOCK))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("m.gguf", data)
    program = path.read_bytes()
    world.server.files["/m.llamafile"] = program
    pinned = world.project.entry(world.server.url("/m.llamafile"), program, engine_version="0.10")
    world.project.catalogue({"m": pinned}, EMBEDDED)
    world.locked()
    [row] = rows(world)
    assert (row["memory"]["block_count"], "tensor_bytes" in row["memory"]) == (4, False)
    assert sum(request.sent for request in world.server.requests) <= MOST_BLOCKS * BLOCK < len(program)
    world.lock.unlink()
    (world.project.path / "here.gguf").write_bytes(data)
    world.project.catalogue({"m": entry(url="here.gguf", engine="embedded")}, EMBEDDED)
    asked = world.requests
    world.locked()
    assert (rows(world)[0]["memory"]["vocab_size"], world.requests) == (300, asked)


def test_a_lock_file_with_a_wrong_value_is_refused(world: World, tmp_path: Path) -> None:
    """Issue 15.6: with the line of the value."""
    world.server.files["/m.gguf"] = data = model(tmp_path / "a")
    world.project.catalogue(
        {"m": world.project.entry(world.server.url("/m.gguf"), data, engine="embedded")}, EMBEDDED
    )
    world.locked()
    text = world.lock.read_text("utf-8")
    for good, bad, expected in (
        ("block_count: 4", "block_count: -4", "expected a whole number of 0 or more, got -4"),
        ("block_count: 4", "block_count: many", "got"),
        ("block_count: 4", "layers: 4", "unknown key"),
    ):
        world.lock.write_text(text.replace(good, bad), "utf-8")
        result = world.project.doit("plan")
        assert (result.status, expected in result.err) == (3, True), result.err


def part(status: int, body: bytes, stated: str = "") -> Response:
    return Response(status, {"content-range": stated} if stated else {}, "", body)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (part(206, b"23", "bytes 2-3/9"), Part(b"23", 9)),
        (part(206, b"23456", "bytes 2-3/9"), Part(b"23", 9)),
        (part(200, b"0123456"), Part(b"23", 7)),
        (part(206, b"23", "bytes 2-3/*"), None),
        (part(206, b"23", "bytes 0-3/9"), None),
        (part(206, b"23"), None),
        (part(404, b"no"), None),
    ],
)
def test_the_answer_to_a_range(answer: Response, expected: Part | None) -> None:
    """Issue 15.6: the bytes that were asked for, or an error; never other bytes."""
    if expected is None:
        with pytest.raises(TransferError):
            parse_part(answer, 2, 4)
    else:
        assert parse_part(answer, 2, 4) == expected


@pytest.mark.parametrize("steps", [0, MOST_S + 1])
def test_reading_ends_at_the_limits(steps: float) -> None:
    """Issue 15.6: of bytes and of time; each block is requested once."""
    asked: list[int] = []
    times = iter([0.0, *[steps] * 99])

    def fetch(start: int, stop: int) -> Part:
        asked.append(start)
        return Part(bytes(stop - start), None)

    stream = io.BufferedReader(RangedFile(fetch, 99 * BLOCK, lambda: next(times)), BLOCK)
    count = len(stream.read())
    stream.seek(0)
    assert len(stream.read(5)) == min(5, count)
    blocks = MOST_BLOCKS if steps == 0 else 0
    assert (count, len(asked)) == (blocks * BLOCK, blocks)


def test_a_head_that_is_cut_off_is_enough(tmp_path: Path) -> None:
    """Issue 15.6: from where the vocabulary begins; a file without the layers is refused."""
    data = model(tmp_path / "a", tokens=5000)
    whole = read_head(io.BytesIO(data), len(data))
    assert (whole.tensor_bytes, whole.vocab_size) == (5000, 5000)
    assert read_head(io.BytesIO(data[:4000]), len(data)) == whole._replace(tensor_bytes=None)
    with pytest.raises(GgufError):
        read_head(io.BytesIO(data[:200]), len(data))
    with pytest.raises(GgufError, match="context_length 2000000000: expected"):
        read_head(io.BytesIO(model(tmp_path / "b", context=2 * 10**9)), None)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (ModelMetadata("x", 32, 131072, 4096, 32, 8), ""),
        (ModelMetadata("x", 99_999), "has block_count 99999: expected 10000 at most"),
        (ModelMetadata(head_count_kv=(1, 99_999)), "has head_count_kv 99999: expected 16384 at most"),
    ],
)  # fmt: skip
def test_what_no_model_has(metadata: ModelMetadata, problem: str) -> None:
    """Issue 15.6: a publisher's answer is not trusted."""
    assert implausible(metadata).removeprefix("the GGUF ") == problem
