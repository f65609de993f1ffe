"""Hostile responses to each client: no traceback, hang, wrong byte or memory leak."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks.catalogue import lockfile
from tasks.catalogue.file_specs import HubFile
from tasks.catalogue.schema import read_lock
from tasks.errors import RecipeError, ServerError, TransferError
from tasks.network import http, retry
from tasks.server import client
from tasks.server.server_record import Mode, ServerRecord
from tasks.transfer import connection, connection_pool, retry_policy, segmented
from tasks.transfer.download import fetch
from tasks.upstream.client import UpstreamClient
from tasks.upstream.metadata import RemoteFile
from tasks.urls import is_local
from tasks.verbs import doctor

from tests.fakes.hostile import IDS, ROWS, HostileServer, Row
from tests.fakes.server import FileServer
from tests.support.world import DATA, FILE, World, begun, is_whole, wanted

LIMIT_S = 0.15  # for a short answer
HANGS_S = 90.0  # far more than any client may take here
MOST_SENT = 64 * 1024**2  # bytes on one connection, what lies in the kernel included

HUB_FILE = HubFile("o/r", "main", "m.gguf")


@pytest.fixture(scope="module")
def mirror() -> Iterator[FileServer]:
    with FileServer() as good:
        good.files[FILE] = DATA
        yield good


def publishers() -> UpstreamClient:
    return UpstreamClient(lambda _: None, lambda: 0.0, LIMIT_S)


def state(url: str) -> RemoteFile | None:
    """What `doit lock` and `doit add` ask; whatever they get can be written and read again."""
    try:
        found = publishers().fetch_metadata(url)
    except TransferError:
        return None
    row = lockfile.LockedFile(
        found.url, found.sha256 or "a" * 64, "MIT", "x", "x", None, found.size, found.commit
    )
    assert read_lock(lockfile.render(lockfile.LockFile(1, {}, {"m": (row,)})), "models.lock").models["m"] == (
        row,
    )
    assert not is_local(found.url)
    return found


def licence(url: str) -> None:
    """What `doit add` writes as the licence is one line of text."""
    try:
        found = publishers().fetch_license(url)
    except TransferError:
        return
    assert found == "" or found.isprintable()


def say(record: ServerRecord) -> None:
    """`doit chat`."""
    try:
        deltas = client.stream_chat(record, [{"role": "user", "content": "Hello"}], silence_s=LIMIT_S)
        text = "".join(delta.text for delta in deltas)
    except ServerError:
        return
    assert text.startswith("word")  # only a stream that says so has ended properly


def run_at(port: int) -> ServerRecord:
    """A server that is on record."""
    return ServerRecord("m", Mode.START, "127.0.0.1", port, {}, (), "m.log", "0123456789abcdef", "")


def clients(site: HostileServer) -> dict[str, Callable[[], Any]]:
    """Each question that the recipe asks, of this server."""
    asset = site.url("/o/r/releases/download/1/m.gguf")
    return {
        "lock, the Hub": lambda: state(HUB_FILE.url),
        "lock, a release": lambda: state(asset),
        "lock, a plain server": lambda: state(site.url("/m.gguf")),
        "add, the Hub": lambda: licence(HUB_FILE.url),
        "add, a release": lambda: licence(asset),
        "doctor": lambda: doctor.hub_findings(LIMIT_S),
        "status": lambda: client.health("127.0.0.1", site.port, LIMIT_S),
        "status, requests": lambda: client.in_flight("127.0.0.1", site.port, "key", LIMIT_S),
        "chat": lambda: say(run_at(site.port)),
    }


# with the oldest Python a quarter of them: what differs there is http.client
SHARE: list[Any] = [*ROWS]
for number in set(range(len(ROWS))) - set(range(0, len(ROWS), 4)):
    SHARE[number] = pytest.param(ROWS[number], marks=pytest.mark.once)


@pytest.mark.parametrize("row", SHARE, ids=IDS)
def test_questions(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock, add, doctor, status and chat get an answer or an error of ours, soon, and read little."""
    with HostileServer(row) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url())
        asked = {name: begun(ask) for name, ask in clients(site).items()}
        deadline = time.monotonic() + HANGS_S
        for name, answer in asked.items():
            error = answer.exception(max(0.1, deadline - time.monotonic()))
            assert error is None, f"{name}: {error!r}"
        assert max(site.sent, default=0) < MOST_SENT


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled download is given up after fractions of a second, and tried twice."""
    monkeypatch.setattr(retry_policy, "RetryBudget", lambda: retry.RetryBudget(2))
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connection, "SLOW_S", 0.2)
    monkeypatch.setattr(segmented, "SLOW_S", 0.2)
    monkeypatch.setattr(segmented, "STALL_S", 0.2)
    monkeypatch.setattr(connection_pool, "STALL_S", 0.2)


@pytest.mark.once
@pytest.mark.parametrize("row", [row for row in ROWS if row.name[:5] != "event"], ids=lambda row: row.name)
def test_downloads(row: Row, mirror: FileServer, tmp_path: Path, impatient: None) -> None:
    """The mirror's bytes come, whatever the first source does; unpinned, nothing but an error of ours."""
    sizes = [len(DATA)] if row.then else [len(DATA), None]  # a body without an end fills the disk, no more
    with HostileServer(row) as site:
        for size in sizes:
            artifact = wanted(tmp_path / str(size), site.url(FILE), mirror.url(FILE), size=size)
            begun(fetch, artifact, World().tools()).result(HANGS_S)
            assert is_whole(artifact)
        if not row.then:
            alone = wanted(tmp_path / "alone", site.url(FILE), pinned=False, size=None)
            error = begun(fetch, alone, World().tools()).exception(HANGS_S)
            assert error is None or isinstance(error, RecipeError), repr(error)
        assert max(site.sent, default=0) < MOST_SENT
