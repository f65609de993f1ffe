"""N processes want one artifact: one fetches it, all have it; also where file locks lie."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tasks.catalogue.artifact import Artifact
from tasks.system import files
from tasks.system.process_id import ProcessId
from tasks.transfer.ensure import ensure_file
from tasks.transfer.journal import load_progress
from tasks.transfer.locks import artifact_lock, try_lock

from tests.fakes.server import FileServer, Honest, Reply, Request
from tests.support.world import DATA, FILE, HALF, OTHER, SIZE, leave_partial, ranges, until, wanted

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from tasks.catalogue.artifact import Artifact
from tasks.errors import RecipeError
from tasks.transfer.ensure import ensure_file
from tasks.transfer import partial
from tasks.console.logs import logger

logger()
partial.SAVE_S = 0.2
cache, data = sys.argv[1], json.loads(sys.argv[2])
print("begun", flush=True)
try:
    data["sources"] = tuple(data["sources"])
    ensure_file(cache, Artifact(**data))
except RecipeError as error:
    sys.exit(f"failed: {error}")
"""


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


class Process:
    """Another process that wants the artifact."""

    def __init__(self, cache: Path, artifact: Artifact) -> None:
        command = [sys.executable, "-c", PROGRAM, str(cache), json.dumps(artifact._asdict())]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._popen = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def began(self) -> None:
        assert self._popen.stdout
        assert self._popen.stdout.readline() == "begun\n"

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def end(self, timeout_s: float = 90.0) -> tuple[int, str]:
        """Its status and what it said."""
        try:
            _, said = self._popen.communicate(timeout=timeout_s)
        finally:
            self._popen.kill()
        assert "Traceback" not in said, said
        return self._popen.returncode, said


def is_here(artifact: Artifact) -> bool:
    """The target is right, with a stamp that fits, and nothing else is left."""
    folder = Path(artifact.target).parent
    names = ["m.llamafile", "m.llamafile.stamp.json"]
    assert sorted(os.listdir(folder)) == names
    return Path(artifact.target).read_bytes() == DATA


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.once)])
def test_one_of_n_processes_fetches(server: FileServer, tmp_path: Path, count: int) -> None:
    """R19: the bytes cross the network once; the others show how far that one is."""
    server.set_rate(FILE, 200_000)
    artifact = wanted(tmp_path, server.url(FILE))
    processes = [Process(tmp_path, artifact) for _ in range(count)]
    ends = [process.end() for process in processes]
    assert [status for status, _ in ends] == [0] * count, ends
    assert is_here(artifact)
    assert server.bytes_sent(FILE) == SIZE
    assert sum("sha256 verified" in said for _, said in ends) == 1
    assert sum("another process is downloading m; waiting for it" in said for _, said in ends) == count - 1


def test_threads_of_one_process(server: FileServer, tmp_path: Path) -> None:
    """R19: doit -n 3 -P thread."""
    server.set_rate(FILE, 400_000)
    artifact = wanted(tmp_path, server.url(FILE))
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(ensure_file, str(tmp_path), artifact) for _ in range(3)]:
            done.result(90)
    assert is_here(artifact)
    assert server.bytes_sent(FILE) == SIZE


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="SIGKILL"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.once),
    ],
)
def test_the_next_goes_on_where_the_holder_died(server: FileServer, tmp_path: Path, number: int) -> None:
    """R18, R19: with its bytes."""
    server.set_rate(FILE, 40_000)
    artifact = wanted(tmp_path, server.url(FILE))
    first = Process(tmp_path, artifact)
    server.wait_sent(FILE, 20_000)
    server.set_rate(FILE, 2_000)  # the second may start slowly
    second = Process(tmp_path, artifact)
    second.began()
    until(lambda: load_progress(artifact).done, "a claim")
    first.send(number)
    first.end()
    server.set_rate(FILE, None)
    status, said = second.end()
    assert status == 0, said
    assert is_here(artifact)
    start = ranges(server)[-1]
    assert start
    assert start[0] > 0
    assert len(ranges(server)) == 2


def test_the_lock_file_stays(server: FileServer, tmp_path: Path) -> None:
    """R19: an unlinked one would be held beside a new one (filelock#27)."""
    artifact = wanted(tmp_path, server.url(FILE))
    ensure_file(str(tmp_path), artifact)
    (lock,) = (tmp_path / "locks").iterdir()
    inode = lock.stat().st_ino
    with artifact_lock(str(tmp_path), artifact):
        pass
    assert lock.stat().st_ino == inode


def test_the_lock_of_a_cache_at_another_path(tmp_path: Path) -> None:
    """Finding 31: two containers have one volume at different paths, and one lock for a file in it."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "mounted").symlink_to(tmp_path / "volume")
    places = [str(tmp_path / name) for name in ("volume", "mounted")]
    here, there = (Artifact("m", (), f"{place}/models/a/m.gguf") for place in places)
    with artifact_lock(places[0], here), try_lock(places[1], there) as free:
        assert not free
    with try_lock(places[1], there) as free:
        assert free


# Where locks lie: two lock folders for one target stand for a file system whose locks exclude nobody


def test_the_journal_keeps_two_apart(server: FileServer, tmp_path: Path) -> None:
    """R19: the second finds the first one's name, and waits."""
    server.set_rate(FILE, 2_000)
    artifact = wanted(tmp_path, server.url(FILE))
    first = Process(tmp_path / "a", artifact)
    server.wait_sent(FILE, 1000)
    second = Process(tmp_path / "b", artifact)
    second.began()
    server.set_rate(FILE, 60_000)
    ends = first.end(), second.end()
    assert [status for status, _ in ends] == [0, 0], ends
    assert Path(artifact.target).read_bytes() == DATA
    assert server.bytes_sent(FILE) == SIZE
    assert "another process is downloading m" in ends[1][1]


@pytest.mark.once
@pytest.mark.parametrize("turn", range(3))
def test_both_begin_at_once(server: FileServer, tmp_path: Path, turn: int) -> None:
    """R19, R20: both have the right bytes in the end, whoever fetched them."""
    server.set_rate(FILE, 300_000)
    artifact = wanted(tmp_path, server.url(FILE))
    processes = [Process(tmp_path / name, artifact) for name in "ab"]
    ends = [process.end() for process in processes]
    assert [status for status, _ in ends] == [0, 0], ends
    assert is_here(artifact)
    assert server.bytes_sent(FILE) <= 2 * SIZE


@pytest.mark.once
@pytest.mark.parametrize("turn", range(2))
def test_both_begin_at_once_and_one_gets_other_bytes(server: FileServer, tmp_path: Path, turn: int) -> None:
    """R20, R21: the target is right or it is not there, also when one of the two has a bad edge."""

    @dataclass
    class Edges:
        """The first request gets another file; the whole of it comes before the second one's end."""

        count: int = 0

        def answer(self, request: Request, data: bytes | None) -> Reply:
            self.count += 1
            return Honest().answer(request, OTHER if self.count == 1 else data)

    server.always(FILE, Edges())
    server.set_rate(FILE, 300_000)
    artifact = wanted(tmp_path, server.url(FILE))
    for process in [Process(tmp_path / name, artifact) for name in "ab"]:
        process.end()
    if os.path.exists(artifact.target):
        assert Path(artifact.target).read_bytes() == DATA


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_an_owner_that_died_is_not_waited_for(server: FileServer, tmp_path: Path) -> None:
    """R19: its name stays in the journal; its process does not."""
    server.set_rate(FILE, 200_000)
    artifact = wanted(tmp_path, server.url(FILE))
    first = Process(tmp_path / "a", artifact)
    server.wait_sent(FILE, HALF)
    server.set_rate(FILE, 2_000)
    first.send(signal.SIGKILL)
    first.end()
    assert ProcessId.parse_owner(files.read_json(artifact.journal)["owner"])
    server.set_rate(FILE, None)
    start = time.monotonic()
    ensure_file(str(tmp_path / "b"), artifact)
    assert time.monotonic() - start < 55  # LEASE_S is 60 s
    assert Path(artifact.target).read_bytes() == DATA


def test_another_machine_is_waited_for_as_long_as_it_writes(server: FileServer, tmp_path: Path) -> None:
    """R19: its journal is young until it is old, or says nobody."""
    artifact = wanted(tmp_path, server.url(FILE))
    leave_partial(artifact, DATA[:HALF])
    journal = files.read_json(artifact.journal)
    other = {**journal, "owner": ["elsewhere", "another boot", 1, 1.0, ""]}
    Path(artifact.journal).write_text(json.dumps(other))
    done: list[Any] = []

    def wait() -> None:
        ensure_file(str(tmp_path), artifact)
        done.append(None)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(1)
    assert thread.is_alive()
    assert server.requests == []
    files.write_atomic(artifact.journal, json.dumps(journal))
    thread.join(60)
    assert done == [None]
    assert ranges(server) == [(HALF, None)]


def test_a_file_system_without_locks(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R19: hub#2399: ENOSYS is no reason not to download."""
    if os.name == "nt":
        pytest.skip("flock is of POSIX")
    import errno
    import fcntl

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    artifact = wanted(tmp_path, server.url(FILE))
    ensure_file(str(tmp_path), artifact)
    assert hashlib.sha256(Path(artifact.target).read_bytes()).hexdigest() == artifact.sha256
