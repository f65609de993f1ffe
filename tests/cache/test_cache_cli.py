"""The second run, and every run after something happened: only what is needed is done again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks.cache import roots
from tasks.catalogue import load

from tests.fakes import llamafile
from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer
from tests.support.partials import claim, wait_until
from tests.support.project import Project, interrupt
from tests.support.stamps import restamp

PATH = "/m.llamafile"
BIG = noise(b"big", 40_000_000)

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def shared() -> Iterator[FileServer]:
    """One server, so that one catalogue is the same for all tests."""
    with FileServer() as server:
        yield server


@pytest.fixture
def server(shared: FileServer) -> FileServer:
    """The server, with nothing on it and nothing asked of it."""
    shared.clear(PATH)
    shared.files.clear()
    shared.requests.clear()
    return shared


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A llamafile that runs."""
    return llamafile.build(tmp_path_factory.mktemp("built") / "m.llamafile", pad=100_000).read_bytes()


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory, shared: FileServer, data: bytes) -> Path:
    """The cache after the first `doit verify` of a catalogue of one model, which took one request."""
    project = Project(tmp_path_factory.mktemp("first"))
    shared.clear(PATH)
    shared.requests.clear()
    shared.files[PATH] = data
    project.catalogue({"m": project.entry(shared.url(PATH), data)})
    first = project.doit("verify")
    assert first.status == 0, first.err
    assert done(first.err) == ["download:m", "chmod:m", "verify:m"]
    assert len(shared.requests) == 1
    return project.cache


@pytest.fixture
def target(project: Project, server: FileServer, verified: Path, data: bytes) -> Path:
    """Where the model is that was verified once; its cache is this project's."""
    shutil.copytree(verified, project.cache)  # keeps times and modes
    server.files[PATH] = data
    project.catalogue({"m": project.entry(server.url(PATH), data)})
    catalogue = str(project.path / "models.yaml")
    load.load(catalogue, str(project.cache))
    roots.remember(catalogue, str(project.cache))  # this checkout is known, too
    copied = project.target(data, "m.llamafile")
    restamp(copied)  # as if it had been verified here
    return copied


@pytest.fixture
def slow(project: Project, server: FileServer) -> Path:
    """A model of 40 MB that comes at 12 MB a second; where it will be."""
    server.files[PATH] = BIG
    server.set_rate(PATH, 12_000_000)
    project.catalogue({"m": project.entry(server.url(PATH), BIG)})
    return project.target(BIG, "m.llamafile")


def done(err: str) -> list[str]:
    """The tasks that were executed, in order."""
    return [line[3:] for line in err.splitlines() if line.startswith(".  ")]


def stamp(target: Path) -> Path:
    return target.with_name(target.name + ".stamp.json")


def partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


# Nothing to do


def test_a_second_run_does_nothing(project: Project, server: FileServer, target: Path) -> None:
    """R6, R36: every step is up to date; no request, no change on disk, and no database of doit's."""
    before = {path: path.stat().st_mtime_ns for path in project.cache.rglob("*")}
    result = project.doit("verify:m")
    assert (result.status, result.out) == (0, "")
    assert result.err.splitlines() == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert {path: path.stat().st_mtime_ns for path in project.cache.rglob("*")} == before
    assert server.requests == []
    assert not list(project.path.glob(".doit.db*"))


def test_a_fresh_checkout_with_the_same_cache_does_nothing(
    project: Project, server: FileServer, target: Path, tmp_path: Path
) -> None:
    """R6: the cache alone is the truth (CI restores it into a new checkout)."""
    other = tmp_path / "other"
    other.mkdir()
    checkout = Project(other)
    shutil.copy(project.path / "models.yaml", checkout.path)
    result = checkout.doit("verify:m", env={"LLAMAFILE_CACHE": str(project.cache)})
    assert result.err.splitlines() == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert server.requests == []


def test_a_moved_cache_is_as_good(project: Project, server: FileServer, target: Path) -> None:
    """R6, R32: no absolute path in it is believed."""
    moved = project.cache.rename(project.cache.with_name("moved"))
    result = project.doit("verify:m", env={"LLAMAFILE_CACHE": str(moved)})
    assert result.err.splitlines() == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert server.requests == []


def test_a_copied_cache_is_read_but_not_downloaded(
    project: Project, server: FileServer, target: Path
) -> None:
    """R6, R35, issue 11: another file is hashed once, also where the copy has kept its times."""
    copy = project.cache.with_name("copy")
    shutil.copytree(project.cache, copy)
    environment = {"LLAMAFILE_CACHE": str(copy)}
    result = project.doit("download:m", env=environment)
    assert result.status == 0
    assert "m: verifying the existing file" in result.err
    assert project.doit("download:m", env=environment).err == "-- download:m\n"
    assert server.requests == []


def test_a_relative_cache_is_seen_from_the_users_directory(
    project: Project, server: FileServer, target: Path, tmp_path: Path
) -> None:
    """R12: LLAMAFILE_CACHE=cache, wherever doit finds its dodo.py."""
    result = project.doit("download:m", cwd=tmp_path, env={"LLAMAFILE_CACHE": project.cache.name})
    assert result.err == "-- download:m\n"


WARM = """\
import sys
from doit.doit_cmd import DoitMain
try:
    status = DoitMain().run(sys.argv[1:])
except SystemExit as end:  # the recipe's loader runs its own program, and ends
    status = end.code or 0
heavy = {"requests", "urllib3", "rich", "yaml", "pydantic", "psutil", "filelock"}
print(status, *sorted(heavy & set(sys.modules)))
"""


def test_a_warm_run_imports_nothing_costly(project: Project, target: Path) -> None:
    """R36: a run in which everything is up to date pays for doit alone."""
    result = subprocess.run(
        [sys.executable, "-c", WARM, "download:m"],
        cwd=project.path, env=project.env, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("0\n", "-- download:m\n")


# Something happened


def test_a_deleted_target_is_fetched_again(
    project: Project, server: FileServer, target: Path, data: bytes
) -> None:
    """R36: and what depends on it is done again."""
    target.unlink()
    result = project.doit("verify:m")
    assert result.status == 0
    assert done(result.err) == ["download:m", "chmod:m", "verify:m"]
    assert (target.read_bytes(), len(server.requests)) == (data, 1)


@posix
def test_a_lost_mode_is_set_again_and_nothing_else(
    project: Project, server: FileServer, target: Path
) -> None:
    """R8, R36: caches that are restored from archives lose modes. That is a change like any other: the file
    is read, and its engine is not asked again."""
    target.chmod(0o644)
    result = project.doit("verify:m")
    assert "m: the digest is correct, nothing is downloaded" in result.err
    assert done(result.err) == ["download:m", "chmod:m"]
    assert result.err.splitlines()[-1] == "-- verify:m"
    assert (target.stat().st_mode & 0o777, server.requests) == (0o755, [])


def test_a_touched_file_is_read_but_not_downloaded(
    project: Project, server: FileServer, target: Path
) -> None:
    """R6: another time means reading it once; what was proven about the same bytes stays proven."""
    os.utime(target)
    result = project.doit("verify:m")
    assert done(result.err) == ["download:m"]
    assert "m: the digest is correct, nothing is downloaded" in result.err
    assert result.err.splitlines()[-1] == "-- verify:m"
    assert project.doit("download:m").err == "-- download:m\n"
    assert server.requests == []


def test_one_changed_byte_is_noticed(project: Project, server: FileServer, target: Path, data: bytes) -> None:
    """R20, R21: said with both digests, fetched again, and verified again."""
    with target.open("r+b") as file:
        file.seek(len(data) // 2)
        file.write(bytes([data[len(data) // 2] ^ 1]))
    wrong = hashlib.sha256(target.read_bytes()).hexdigest()
    result = project.doit("verify:m")
    assert result.status == 0
    assert "m has changed on disk; downloading it again" in result.err
    assert f"got: sha256:{wrong}" in result.err
    assert done(result.err) == ["download:m", "chmod:m", "verify:m"]
    assert (target.read_bytes(), len(server.requests)) == (data, 1)


def test_a_truncated_file_is_noticed(project: Project, server: FileServer, target: Path, data: bytes) -> None:
    """R20: another size is another file."""
    os.truncate(target, 1000)
    assert project.doit("download:m").status == 0
    assert (target.read_bytes(), len(server.requests)) == (data, 1)


@pytest.mark.parametrize("damage", [None, "", '{"size": "many"}'], ids=repr)
def test_a_lost_stamp_costs_one_reading(
    project: Project, server: FileServer, target: Path, damage: str | None
) -> None:
    """R6: deleted, or damaged: what it said is found out again, without a download."""
    if damage is None:
        stamp(target).unlink()
    else:
        stamp(target).write_text(damage)
    result = project.doit("verify:m")
    assert result.status == 0
    assert done(result.err) == ["download:m", "verify:m"]
    assert "m: the digest is correct, nothing is downloaded" in result.err
    assert project.doit("verify:m").err.splitlines() == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert server.requests == []


def test_another_digest_in_the_catalogue_is_another_file(
    project: Project, server: FileServer, target: Path, data: bytes
) -> None:
    """R36, R37: an edited entry is fetched beside the old one, whose bytes stay."""
    new = data + b"\0"
    server.files[PATH] = new
    project.catalogue({"m": project.entry(server.url(PATH), new)})
    assert project.doit("download").status == 0
    assert project.target(new, "m.llamafile").read_bytes() == new
    assert target.read_bytes() == data


def test_a_change_without_a_digest_is_noticed_too(project: Project, server: FileServer) -> None:
    """R20: what an unpinned download was is known from the stamp."""
    first = noise(b"first", 5000)
    server.files[PATH] = first
    project.catalogue({"m": project.entry(server.url(PATH))})
    assert project.doit("download").status == 0
    found = next((project.cache / "models").rglob("m.llamafile"))
    os.utime(found, (1, 1))
    assert "the digest is correct, nothing is downloaded" in project.doit("download").err
    assert len(server.requests) == 1
    found.write_bytes(noise(b"other", 5000))
    assert "m has changed on disk; downloading it again" in project.doit("download").err
    assert (found.read_bytes(), len(server.requests)) == (first, 2)


# Interrupted (R18)


@posix
def test_a_killed_download_goes_on_where_its_last_claim_ends(
    project: Project, server: FileServer, slow: Path
) -> None:
    """R18, R20: SIGKILL; the next process asks for what was not claimed, and for no byte more."""
    with project.start("download") as running:
        wait_until(lambda: claim(slow, BIG) > 0, "a first claim")
        running.send(signal.SIGKILL)
        running.finish()
    have = claim(slow, BIG)
    assert 0 < have <= partial(slow).stat().st_size < len(BIG)
    assert not slow.exists()
    server.set_rate(PATH, None)
    result = project.doit("download")
    assert result.status == 0
    assert "was here already, sha256 verified" in result.err
    first, second = server.asked(PATH)
    assert (first.range, second.range) == (None, (have, None))
    assert second.sent == len(BIG) - have
    assert slow.read_bytes() == BIG
    assert sorted(os.listdir(slow.parent)) == ["m.llamafile", "m.llamafile.stamp.json"]


@posix
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interrupted_download_keeps_what_came(
    project: Project, server: FileServer, slow: Path, number: signal.Signals, status: int
) -> None:
    """R18: it says so, ends as a shell expects, and goes on from the very byte."""
    with project.start("download") as running:
        wait_until(lambda: claim(slow, BIG) > 1_000_000, "a claim")
        seen = claim(slow, BIG)
        interrupt(running) if number == signal.SIGINT else running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (status, "")
    assert "Interrupted. Partial downloads are kept; run the same command to resume." in result.err
    have = claim(slow, BIG)
    assert seen <= have < len(BIG)
    assert partial(slow).read_bytes()[:have] == BIG[:have]
    assert not slow.exists()
    server.set_rate(PATH, None)
    assert project.doit("download").status == 0
    assert server.asked(PATH)[-1].range == (have, None)
    assert slow.read_bytes() == BIG


@posix
def test_an_unfinished_download_is_shown(project: Project, server: FileServer, slow: Path) -> None:
    """R20: a partial is listed as such, and is never served or made executable."""
    with project.start("verify") as running:
        server.wait_sent(PATH, 8_000_000, 30)
        interrupt(running)
        assert running.finish().status == 130
    shown = project.doit("catalogue", "--json")
    row = json.loads(shown.out)["models"][0]
    assert (row["here"], row["state"]) == (False, "partial")
    assert 0 < row["downloaded"] < row["size"]
    assert re.search(r"^m .* \d+ %", project.doit().out, re.MULTILINE)
    assert not partial(slow).stat().st_mode & 0o111


# Two at once


def test_two_at_once_download_once(project: Project, server: FileServer, slow: Path) -> None:
    """R6: one fetches, the other says that it waits, and both succeed."""
    with project.start("download:m") as first:
        server.wait_sent(PATH, 1_000_000, 30)
        with project.start("download:m") as second:
            second.wait_for("another process is downloading m; waiting for it")
            server.set_rate(PATH, None)
            results = [first.finish(), second.finish()]
    assert [result.status for result in results] == [0, 0]
    assert "sha256 verified" in results[0].err
    assert "m was downloaded by another process" in results[1].err
    assert slow.read_bytes() == BIG
    assert (len(server.asked(PATH)), server.bytes_sent(PATH)) == (1, len(BIG))


@posix
def test_whoever_waits_takes_over(project: Project, server: FileServer, slow: Path) -> None:
    """R18: the first is killed; the second goes on with what was claimed."""
    with project.start("download:m") as first:
        wait_until(lambda: claim(slow, BIG) > 0, "a first claim")
        with project.start("download:m") as second:
            second.wait_for("another process is downloading")
            first.send(signal.SIGKILL)
            first.finish()
            server.set_rate(PATH, None)
            assert second.finish().status == 0
    assert slow.read_bytes() == BIG
    ranges: list[Any] = [request.range for request in server.asked(PATH)]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert ranges[1][0] > 0


# The cache itself


def test_the_cache_says_what_it_is(project: Project, target: Path) -> None:
    """R32: backups leave it out, and whoever finds it can read what it is."""
    assert (
        (project.cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    )
    assert "can be fetched again" in (project.cache / "README.txt").read_text()
    assert not list(project.cache.rglob("*.tmp"))


@posix
def test_a_cache_that_cannot_be_is_a_clear_error(project: Project, server: FileServer) -> None:
    """R19: with the variable that moves it; nothing is asked of the server."""
    server.files[PATH] = b"x"
    project.catalogue({"m": project.entry(server.url(PATH), b"x")})
    result = project.doit("download", env={"LLAMAFILE_CACHE": "/dev/null/x"})
    assert result.status == 1
    assert "cannot write to the cache /dev/null/x: Not a directory" in result.err
    assert "set LLAMAFILE_CACHE to a directory you can write to" in result.err
    assert server.requests == []


@pytest.mark.parametrize("folder", ["locks", "models"])
def test_a_file_where_a_folder_should_be(project: Project, server: FileServer, folder: str) -> None:
    """R19: named, without a traceback."""
    server.files[PATH] = b"x"
    project.catalogue({"m": project.entry(server.url(PATH), b"x")})
    project.cache.mkdir()
    (project.cache / folder).write_text("in the way")
    result = project.doit("download")
    assert result.status == 1
    assert str(project.cache / folder) in result.err
    assert server.requests == []
