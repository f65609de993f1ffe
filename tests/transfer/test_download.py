"""One transfer from a real server that misbehaves: right bytes at the target, or an error that says why."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from tasks.console import progress
from tasks.errors import IntegrityError, TransferError
from tasks.network import http
from tasks.network import response as transfer
from tasks.network.failures import NO_NAME
from tasks.system import files
from tasks.transfer.connection import SLOW_S
from tasks.transfer.connection_pool import STALL_S
from tasks.transfer.download import fetch
from tasks.transfer.streaming_hash import BLOCK

from tests.fakes.faults import etag
from tests.fakes.hub import Hub
from tests.fakes.server import (
    Changed,
    Drop,
    Fault,
    FileServer,
    Gzip,
    Hangup,
    Honest,
    IgnoreRange,
    LoginPage,
    NoLength,
    NoLengthTruncated,
    Redirect,
    Reply,
    Request,
    Slow,
    Stall,
    Status,
    WrongLength,
    WrongOffset,
)
from tests.support.world import (
    DATA,
    FILE,
    HALF,
    OTHER,
    SIZE,
    Span,
    World,
    begun,
    heard,
    is_whole,
    leave_partial,
    ranges,
    refusal,
    wanted,
)

ANYWHERE = "https://models.example"  # a host that no test reaches


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """What the recipe's logger says."""
    with heard(caplog, monkeypatch):
        yield caplog


# What each answer leads to. The table is the specification of resuming: for each script of answers,
# the ranges that are asked for until the file is whole.


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        pytest.param([], [None], id="honest"),
        pytest.param([Drop(HALF)], [None, (HALF, None)], id="dropped"),
        pytest.param([Drop(HALF), Drop(50_000)], [None, (HALF, None), (150_000, None)], id="dropped twice"),
        pytest.param([Drop(0)], [None, None], id="dropped before the first byte"),
        pytest.param([Hangup()], [None, None], id="no answer"),
        pytest.param([Drop(HALF), Hangup()], [None, (HALF, None), (HALF, None)], id="no answer to a range"),
        pytest.param([Drop(HALF), IgnoreRange()], [None, (HALF, None)], id="Range ignored"),
        pytest.param([Drop(HALF), WrongOffset(7)], [None, (HALF, None), None], id="206 too far"),
        pytest.param([Drop(HALF), WrongOffset(-7)], [None, (HALF, None), None], id="206 too early"),
        pytest.param([Drop(HALF), Status(416)], [None, (HALF, None), None], id="416 in the middle"),
        pytest.param([Gzip()], [None, None], id="gzip"),
        pytest.param([Drop(HALF), Gzip()], [None, (HALF, None), (HALF, None)], id="gzip for a range"),
        pytest.param([LoginPage()], [None, None], id="login page"),
        pytest.param([Drop(HALF), LoginPage()], [None, (HALF, None), (HALF, None)], id="login page later"),
        pytest.param([NoLength()], [None], id="no length"),
        pytest.param([NoLengthTruncated(HALF)], [None, (HALF, None)], id="no length, truncated"),
        pytest.param([WrongLength(100)], [None, None], id="length too large"),
        pytest.param([WrongLength(-100)], [None, None], id="length too small"),
        pytest.param([Status(500), Status(502), Status(504)], [None] * 4, id="500 502 504"),
        pytest.param([Status(408), Status(425), Status(618)], [None] * 4, id="408 425 618"),
    ],
)
def test_ends_with_the_right_bytes(
    server: FileServer, world: World, tmp_path: Path, faults: list[Fault], asked: list[Span]
) -> None:
    """R18, R19, R20, R21: every passing fault is survived, with no request and no byte too many."""
    server.script(FILE, *faults)
    artifact = wanted(tmp_path, server.url(FILE))
    stamp = fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == asked
    assert (stamp.stat.size, stamp.sha256, stamp.source) == (SIZE, artifact.sha256, server.url(FILE))
    assert stamp.stat == files.stat(artifact.target)
    assert {request.headers["Accept-Encoding"] for request in server.asked(FILE)} == {"identity"}


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        pytest.param([Drop(HALF)], [None, (HALF, None)], id="dropped"),
        pytest.param([NoLength()], [None], id="no length"),
        pytest.param([Drop(SIZE)], [None], id="dropped after the last byte"),
        pytest.param([WrongLength(100)], [None, (SIZE, None)], id="length too large"),
        pytest.param([Drop(HALF), IgnoreRange()], [None, (HALF, None)], id="Range ignored"),
    ],
)
def test_ends_with_the_right_bytes_of_unknown_size(
    server: FileServer, world: World, tmp_path: Path, faults: list[Fault], asked: list[Span]
) -> None:
    """R19: a digest without a size; the server's own length serves instead."""
    server.script(FILE, *faults)
    artifact = wanted(tmp_path, server.url(FILE), size=None)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == asked


def test_connection_reset_is_resumed(server: FileServer, world: World, tmp_path: Path) -> None:
    """R18: a RST may eat bytes on their way, so the range begins at what arrived."""
    server.script(FILE, Drop(HALF, reset=True))
    artifact = wanted(tmp_path, server.url(FILE))
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert len(ranges(server)) == 2


def test_content_changed_in_the_middle(server: FileServer, world: World, tmp_path: Path) -> None:
    """R21: pieces of two files are noticed by the digest, and fetched again once, from the beginning."""
    server.files[FILE] = OTHER
    server.script(FILE, Drop(HALF), Changed(DATA))
    artifact = wanted(tmp_path, server.url(FILE))
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == [None, (HALF, None), None]


def test_wrong_bytes_are_fetched_twice(server: FileServer, world: World, tmp_path: Path) -> None:
    """R21: one answer may be an accident, two are not; the second one is no cache's."""
    server.files[FILE] = OTHER
    error = refusal(wanted(tmp_path, server.url(FILE)), world.tools())
    assert isinstance(error, IntegrityError)
    assert f"got: sha256:{hashlib.sha256(OTHER).hexdigest()}" in str(error)
    assert f"expected: sha256:{hashlib.sha256(DATA).hexdigest()}" in str(error)
    assert ranges(server) == [None, None]
    asked = server.asked(FILE)
    assert [request.headers["Cache-Control"] for request in asked] == [None, "no-cache"]
    assert len({request.peer for request in asked}) == 2
    assert os.listdir(tmp_path / "models") == []


def test_wrong_bytes_from_an_earlier_run_are_fetched_once_more(
    server: FileServer, world: World, tmp_path: Path
) -> None:
    """R20, R21: a partial that rotted on the disk costs one more download, not a wrong file."""
    artifact = wanted(tmp_path, server.url(FILE))
    leave_partial(artifact, OTHER[:HALF])
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == [(HALF, None), None]


def test_complete_partial_needs_no_request(server: FileServer, world: World, tmp_path: Path) -> None:
    """R18: killed between the last byte and the rename; hub#2511 asked for byte N of N for ever."""
    artifact = wanted(tmp_path, server.url(FILE))
    leave_partial(artifact, DATA)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == []


def test_complete_partial_of_unknown_size_is_proven_by_416(
    server: FileServer, world: World, tmp_path: Path
) -> None:
    """R18: the 416 says how long the file is."""
    artifact = wanted(tmp_path, server.url(FILE), size=None)
    leave_partial(artifact, DATA)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == [(SIZE, None)]


# Failures


@pytest.mark.parametrize(
    ("status", "says"),
    [
        pytest.param(400, "HTTP 400", id="400"),
        pytest.param(401, "add a line for the host to .netrc", id="401"),
        pytest.param(403, "access is refused", id="403"),
        pytest.param(404, "the file is gone", id="404"),
        pytest.param(410, "the file is gone", id="410"),
        pytest.param(451, "not available here", id="451"),
    ],
)
def test_final_answers_are_asked_for_once(
    server: FileServer, world: World, tmp_path: Path, status: int, says: str
) -> None:
    """R19: no retry where the answer will not change; the reason and its remedy are named."""
    server.always(FILE, Status(status))
    error = refusal(wanted(tmp_path, server.url(FILE)), world.tools())
    assert isinstance(error, TransferError)
    assert f"HTTP {status}" in str(error)
    assert says in str(error)
    assert (len(ranges(server)), world.waits) == (1, [])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(Status(500), "HTTP 500", id="500"),
        pytest.param(Status(416), "416: it does not have the requested bytes", id="416"),
        pytest.param(LoginPage(), "open the URL in a browser", id="login page"),
        pytest.param(Gzip(), "encoded with gzip", id="gzip"),
        pytest.param(WrongLength(1), "wrong length: 200001 bytes, expected 200000", id="wrong length"),
        pytest.param(Hangup(), "closed connection without response", id="no answer"),
        pytest.param(Drop(0), "the connection ended before the file did", id="dropped at once"),
    ],
)
def test_a_source_that_never_delivers_is_given_up(
    server: FileServer, world: World, tmp_path: Path, fault: Fault, says: str
) -> None:
    """R19, R27: a bounded number of attempts, then the reason, the remedy and how often it was tried."""
    server.always(FILE, fault)
    error = refusal(wanted(tmp_path, server.url(FILE)), world.tools())
    assert isinstance(error, TransferError)
    assert says in str(error)
    assert f"tried {transfer.RETRIES} times" in str(error)
    assert "\n  fix: " in str(error)
    assert len(ranges(server)) == transfer.RETRIES


@dataclass(frozen=True)
class Overstated:
    """Every answer is the whole file, and states more bytes than it has."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        reply = IgnoreRange().answer(request, data)
        length = {"Content-Length": str(len(reply.body) + 5)}
        return replace(reply, headers={**reply.headers, **length}, close=True)


def test_a_length_that_is_always_too_large(server: FileServer, world: World, tmp_path: Path) -> None:
    """The digest decides: what is here is the file. Unpinned, nothing tells."""
    server.always(FILE, Overstated())
    artifact = wanted(tmp_path, server.url(FILE), size=None)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    unpinned = wanted(tmp_path / "b", server.url(FILE), size=None, pinned=False)
    assert "the connection ended before the file did" in str(refusal(unpinned, world.tools()))


@dataclass
class Treadmill:
    """Half a file, then half of it at a wrong offset, and so on."""

    turn: int = 0

    def answer(self, request: Request, data: bytes | None) -> Reply:
        self.turn += 1
        fault: Fault = Drop(HALF) if request.range is None else WrongOffset(1)
        return (fault if self.turn < 50 else Honest()).answer(request, data)


def test_going_in_circles_comes_to_an_end(server: FileServer, world: World, tmp_path: Path) -> None:
    """R27: the same bytes for the third time are no progress."""
    server.always(FILE, Treadmill())
    assert "tried 6 times" in str(refusal(wanted(tmp_path, server.url(FILE)), world.tools()))


def test_partial_is_kept_and_said_so(server: FileServer, world: World, tmp_path: Path) -> None:
    """R18, R19: what came before the failure is there for the next run."""
    server.script(FILE, Drop(HALF), Status(403))
    artifact = wanted(tmp_path, server.url(FILE))
    error = refusal(artifact, world.tools())
    assert "partial: 100.0 kB are kept" in str(error)
    assert "run it again to resume the download" in str(error)
    server.clear(FILE)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server)[-1] == (HALF, None)


@dataclass(frozen=True)
class LaterDate:
    """A date so many seconds from the moment at which it is said, not at which tests are collected."""

    seconds: float

    def __str__(self) -> str:
        return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=self.seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "at_least", "at_most"),
    [
        pytest.param({"Retry-After": "7"}, 7, 8, id="seconds"),
        pytest.param({"Retry-After": LaterDate(300)}, 200, 301, id="date"),
        pytest.param({"Retry-After": LaterDate(-300)}, 0, 1, id="date in the past"),
        pytest.param({"RateLimit": '"resolvers";r=0;t=37'}, 37, 38, id="RateLimit of the Hub"),
        pytest.param({"RateLimit": '"resolvers";r=5;t=37'}, 0, 1, id="RateLimit not used up"),
        pytest.param({"Retry-After": "soon"}, 0, 1, id="nonsense"),
    ],
)
def test_waits_as_long_as_asked(
    server: FileServer, world: World, tmp_path: Path, headers: dict[str, object], at_least: int, at_most: int
) -> None:
    """R19: a server that asks for a pause gets it."""
    server.script(FILE, Status(429, {name: str(text) for name, text in headers.items()}))
    fetch(wanted(tmp_path, server.url(FILE)), world.tools())
    assert len(world.waits) == 1
    assert at_least <= world.waits[0] <= at_most


def test_a_pause_without_end_is_refused(server: FileServer, world: World, tmp_path: Path) -> None:
    """R27: nobody waits six hours because a header says so."""
    server.always(FILE, Status(503, {"Retry-After": "21600"}))
    assert "HTTP 503" in str(refusal(wanted(tmp_path, server.url(FILE)), world.tools()))
    assert world.waits == []


def test_silence_is_a_dropped_connection(
    server: FileServer, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R27: a stalled body is given up after SILENCE_S, and resumed but for what was being read."""
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)
    server.script(FILE, Stall(HALF, seconds=60))
    artifact = wanted(tmp_path, server.url(FILE))
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    first, again = ranges(server)
    assert first is None
    assert again
    assert 0 < again[0] <= HALF


def test_silence_instead_of_an_answer(
    server: FileServer, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R27: the same before the first header."""
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)
    server.script(FILE, Hangup(60))
    artifact = wanted(tmp_path, server.url(FILE))
    fetch(artifact, world.tools())
    assert is_whole(artifact)


def test_a_trickle_is_replaced(server: FileServer, world: World, tmp_path: Path) -> None:
    """R27: a connection that brings next to nothing for SLOW_S is closed and asked for anew."""
    server.set_rate(FILE, 2_000_000)
    now, step = 0.0, SLOW_S

    def clock() -> float:
        nonlocal now
        now += step
        return now

    def sleep(_: float) -> None:
        nonlocal step
        step = 0.0
        server.set_rate(FILE, None)

    artifact = wanted(tmp_path, server.url(FILE))
    fetch(artifact, world.tools(clock=clock, sleep=sleep))
    assert is_whole(artifact)
    assert len(ranges(server)) == 2


TRICKLE = Slow(20.0)  # bytes a second, of which a buffer takes a quarter of an hour to fill


def trickle_clock(server: FileServer) -> Callable[[], float]:
    """Real seconds, and a leap over SLOW_S and STALL_S with each answer that has begun to trickle."""

    def clock() -> float:
        trickling = sum(2 < request.sent < 1000 for request in server.asked(FILE))
        return time.monotonic() + trickling * (SLOW_S + STALL_S + 1)

    return clock


def test_a_connection_that_trickles_for_ever_is_given_up(
    server: FileServer, world: World, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """R18, R27: a few bytes a second are no silence, and fill no buffer; the next connection goes on."""
    server.script(FILE, Drop(HALF), TRICKLE)
    artifact = wanted(tmp_path, server.url(FILE))
    begun(fetch, artifact, world.tools(clock=trickle_clock(server))).result(60)
    assert is_whole(artifact)
    assert ranges(server) == [None, (HALF, None), (HALF, None)]
    assert server.asked(FILE)[1].sent < 1000
    assert "almost no data for 30 s from 127.0.0.1; retrying in" in said.text


def test_a_source_that_only_trickles_is_given_up(
    server: FileServer, world: World, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """R19, R27: as often as any other failure; then the next source brings the file."""
    server.always(FILE, TRICKLE)
    server.files["/mirror"] = DATA
    artifact = wanted(tmp_path, server.url(FILE), server.url("/mirror"))
    stamp = begun(fetch, artifact, world.tools(clock=trickle_clock(server))).result(60)
    assert is_whole(artifact)
    assert (stamp.source, ranges(server, "/mirror")) == (server.url("/mirror"), [None])
    assert len(server.asked(FILE)) == transfer.RETRIES
    assert len(world.waits) == transfer.RETRIES - 1
    assert f"almost no data for 30 s (tried {transfer.RETRIES} times); trying the next source" in said.text


def test_endless_data_is_cut_off(
    server: FileServer, world: World, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """R22: no more is written than the file may have."""
    server.files[FILE] = DATA * 40
    server.always(FILE, NoLength())
    error = refusal(wanted(tmp_path, server.url(FILE)), world.tools())
    assert "more than the expected 200000 bytes" in said.text
    assert "206 with bytes up to 7999999 of 8000000" in str(error)
    assert max(done for done, _ in world.shown) < 2 * SIZE + BLOCK


# Several sources


def test_next_source_goes_on_where_the_first_stopped(
    server: FileServer, world: World, tmp_path: Path
) -> None:
    """R18, R19: a mirror need not begin again."""
    server.files["/mirror"] = DATA
    server.script(FILE, Drop(HALF), Status(404))
    artifact = wanted(tmp_path, server.url(FILE), server.url("/mirror"))
    stamp = fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert (ranges(server, "/mirror"), stamp.source) == ([(HALF, None)], server.url("/mirror"))


@pytest.mark.parametrize("fault", [Honest(), NoLength()], ids=["length", "no length"])
def test_a_short_wrong_file_does_not_spoil_its_mirror(
    server: FileServer, world: World, tmp_path: Path, fault: Fault
) -> None:
    """R21: the length that a wrong file had is not expected of the next source."""
    server.files |= {FILE: b"not the model", "/mirror": DATA}
    server.always("/mirror", fault)
    artifact = wanted(tmp_path, server.url(FILE), server.url("/mirror"), size=None)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server, "/mirror") == [None]


def test_every_source_is_named_with_its_reason(server: FileServer, world: World, tmp_path: Path) -> None:
    """R19: wrong bytes, a missing file and a missing disk, each by name."""
    server.files["/wrong"] = OTHER
    sources = (server.url("/wrong"), server.url("/none"), str(tmp_path / "none.llamafile"))
    error = refusal(wanted(tmp_path, *sources), world.tools())
    assert isinstance(error, IntegrityError)
    assert [name for name, _ in error.facts] == list(sources)
    for part in ("wrong SHA-256", "HTTP 404", "No such file or directory", "mirrors in models.yaml"):
        assert part in str(error)


def test_a_silent_host_is_asked_once_per_run(world: World, tmp_path: Path) -> None:
    """R27: two sources on a host that is down are not two times the waiting."""
    with FileServer() as gone:
        sources = gone.url("/one"), gone.url("/two")
    error = refusal(wanted(tmp_path, *sources), world.tools())
    assert "Connection refused" in str(error)
    assert f"{sources[1]}: same host, which does not respond" in str(error)
    assert len(world.waits) == transfer.RETRIES - 1


def test_no_source_has_an_address(world: World, tmp_path: Path) -> None:
    """R27: without DNS the fix is the network, with mirrors too, be they of one host or of several."""
    sources = [f"https://{path}" for path in ("a.invalid/1", "a.invalid/2", "b.invalid/1")]
    error = refusal(wanted(tmp_path, *sources), world.tools())
    assert f"{sources[1]}: same host, whose name cannot be resolved" in str(error)
    assert f"{sources[2]}: cannot resolve b.invalid" in str(error)
    assert error.fix == NO_NAME


@pytest.mark.parametrize("form", ["path", "file URL"])
def test_local_source(world: World, tmp_path: Path, form: str) -> None:
    """R21: a file of this machine is copied, and proven like any other."""
    source = tmp_path / "a mödel.llamafile"
    source.write_bytes(DATA)
    artifact = wanted(tmp_path, str(source) if form == "path" else source.as_uri())
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert source.read_bytes() == DATA


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(DATA[:HALF], "wrong length: 100000 bytes, expected 200000", id="too short"),
        pytest.param(DATA + b"x", "wrong length: 200001 bytes, expected 200000", id="too long"),
        pytest.param(OTHER, "wrong SHA-256", id="other bytes"),
        pytest.param(None, "No such file or directory", id="missing"),
    ],
)
def test_local_source_that_is_not_it(world: World, tmp_path: Path, data: bytes | None, says: str) -> None:
    """R19, R21: a wrong file on this disk is named at once; waiting would not mend it."""
    source = tmp_path / "source.llamafile"
    if data is not None:
        source.write_bytes(data)
    assert says in str(refusal(wanted(tmp_path, str(source)), world.tools()))
    assert world.waits == []


# Not pinned


def test_unpinned_file_is_held_to_its_publishers_digest(
    server: FileServer, world: World, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """R21: the Hub's X-Linked-Etag of the redirect counts, with a warning that says how to pin it."""
    with FileServer() as cdn:
        hub = Hub(server, cdn, FILE, DATA)
        artifact = wanted(tmp_path, hub.url, pinned=False, size=None)
        stamp = fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert stamp.sha256 == hub.sha256
    assert f"m is not pinned; its publisher states --sha256 {hub.sha256}" in said.text


@pytest.mark.parametrize("done", [0, HALF, SIZE], ids=["from 0", "resumed", "complete partial"])
def test_bytes_other_than_the_publishers_are_refused(
    server: FileServer, world: World, tmp_path: Path, done: int
) -> None:
    """R21: also when the wrong bytes came in an earlier run."""
    with FileServer() as cdn:
        hub = Hub(server, cdn, FILE, DATA)
        cdn.files[hub.cdn_path] = OTHER
        artifact = wanted(tmp_path, hub.url, pinned=False, size=None)
        if done:
            leave_partial(artifact, OTHER[:done], validator=etag(OTHER))
        error = refusal(artifact, world.tools())
        assert ranges(cdn, hub.cdn_path)[0] == ((done, None) if done else None)
    assert isinstance(error, IntegrityError)
    assert f"expected: sha256:{hub.sha256}" in str(error)


def test_signed_link_that_expired_is_asked_for_anew(server: FileServer, world: World, tmp_path: Path) -> None:
    """R18: a link good for one request; the origin is asked for another (transformers#45797)."""
    with FileServer() as cdn:
        hub = Hub(server, cdn, FILE, DATA, uses=1)
        cdn.script(hub.cdn_path, Drop(HALF), Drop(50_000))
        artifact = wanted(tmp_path, hub.url)
        fetch(artifact, world.tools())
        assert is_whole(artifact)
        taken = [r for r in cdn.asked(hub.cdn_path) if r.status in (200, 206)]
        assert sum(r.sent for r in taken) == SIZE
        assert len({request.query for request in taken}) == 3
    assert len(server.asked(FILE)) == 3


@dataclass(frozen=True)
class Untagged:
    """A server that gives no validator, and the answers of another fault."""

    fault: Fault

    def answer(self, request: Request, data: bytes | None) -> Reply:
        reply = self.fault.answer(request, data)
        headers = {name: text for name, text in reply.headers.items() if name != "ETag"}
        return Reply(**{**reply.__dict__, "headers": headers})


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Drop(HALF), Changed(DATA)], id="changed once"),
        pytest.param([Drop(HALF), IgnoreRange(), Changed(DATA)], id="Range ignored, then changed"),
        pytest.param([Untagged(Drop(HALF)), Untagged(Changed(DATA))], id="no ETag"),
        pytest.param([Untagged(Drop(HALF)), Changed(DATA)], id="an ETag only later"),
    ],
)
def test_pieces_of_two_files_are_never_joined(
    server: FileServer, world: World, tmp_path: Path, faults: list[Fault]
) -> None:
    """R20: with no digest at all, a rest is only taken where the server says that it fits (If-Range)."""
    server.files[FILE] = OTHER
    server.script(FILE, *faults)
    artifact = wanted(tmp_path, server.url(FILE), pinned=False, size=None)
    fetch(artifact, world.tools())
    assert Path(artifact.target).read_bytes() in (DATA, OTHER)


@dataclass(frozen=True)
class ChangedAndDropped:
    """The file is `data` now, and the connection breaks after half of it."""

    data: bytes

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return Drop(HALF).answer(request, self.data)


def test_second_change_is_noticed_too(server: FileServer, world: World, tmp_path: Path) -> None:
    """R20: after a restart the new bytes have a validator of their own."""
    third = OTHER[:-1] + b"!"
    server.files[FILE] = OTHER
    server.script(FILE, Drop(HALF), ChangedAndDropped(DATA), Changed(third))
    artifact = wanted(tmp_path, server.url(FILE), pinned=False, size=None)
    fetch(artifact, world.tools())
    assert Path(artifact.target).read_bytes() == third


# Where a redirect may lead


class Routed(HTTPAdapter):
    """Requests for any host at all end at a server on this machine; the hosts meant are kept."""

    def __init__(self, server: FileServer) -> None:
        super().__init__(max_retries=0)
        self._place = f"127.0.0.1:{server.port}"
        self.hosts: list[str] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        meant = str(request.url)
        parts = urlsplit(meant)
        self.hosts.append(f"{parts.scheme}://{parts.netloc}")
        request.url = urlunsplit(parts._replace(scheme="http", netloc=self._place))
        try:
            response = super().send(request, *args, **more)
        finally:
            request.url = meant
        response.url = meant
        return response


def routed(server: FileServer) -> tuple[Routed, Callable[[], Any]]:
    """An adapter that sees every request, and a session that uses it."""
    adapter = Routed(server)
    session = http.new_session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return adapter, lambda: session


@pytest.mark.parametrize(
    ("location", "says"),
    [
        pytest.param("http://other.example/file", "plain http is allowed only with a sha256", id="http"),
        pytest.param("http://models.example/file", "plain http is allowed only with", id="same host, plain"),
        pytest.param("https://me:pw@other.example/file", "no user or password in a URL", id="password"),
        pytest.param("ftp://other.example/file", "expected https://", id="ftp"),
    ],
)
def test_a_redirect_is_checked_before_it_is_followed(
    server: FileServer, world: World, tmp_path: Path, location: str, says: str
) -> None:
    """R22, R29: without a digest, no packet goes to a plain http host."""
    server.always(FILE, Redirect(location))
    server.files["/file"] = DATA
    adapter, session = routed(server)
    artifact = wanted(tmp_path, ANYWHERE + FILE, pinned=False, size=None)
    assert says in str(refusal(artifact, world.tools(new_session=session)))
    assert (adapter.hosts, world.waits) == ([ANYWHERE], [])


@pytest.mark.parametrize(
    ("location", "pinned"),
    [
        pytest.param("https://other.example/file", False, id="https, unpinned"),
        pytest.param("http://other.example/file", True, id="http, pinned"),
        pytest.param("/file", False, id="relative"),
        pytest.param("https://other.example/file?name=a b", False, id="a space in it"),
    ],
)
def test_a_redirect_to_a_proper_place_is_followed(
    server: FileServer, world: World, tmp_path: Path, location: str, pinned: bool
) -> None:
    """R22: to another host, over TLS or with a digest."""
    server.always(FILE, Redirect(location))
    server.files["/file"] = DATA
    _, session = routed(server)
    artifact = wanted(tmp_path, ANYWHERE + FILE, pinned=pinned, size=None)
    fetch(artifact, world.tools(new_session=session))
    assert is_whole(artifact)


# The disk


def test_too_large_a_file_is_refused_before_its_body(
    server: FileServer, world: World, tmp_path: Path
) -> None:
    """R22: what the server says about the size is believed before the disk is full."""

    @dataclass(frozen=True)
    class Huge:
        def answer(self, request: Request, data: bytes | None) -> Reply:
            return Reply(200, {"Content-Length": str(10**13)}, b"x", close=True)

    server.always(FILE, Huge())
    error = refusal(wanted(tmp_path, server.url(FILE), size=None), world.tools())
    assert "does not fit on the disk" in str(error)
    assert "needs: 10000.0 GB" in str(error)
    assert {done for done, _ in world.shown} == {0}


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_write_that_fails_keeps_what_was_written(server: FileServer, world: World, tmp_path: Path) -> None:
    """R19, R20: the operating system's own words, the place, and a partial that the next run goes on with."""
    import resource
    import signal

    artifact = wanted(tmp_path, server.url(FILE))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        error = refusal(artifact, world.tools())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert "cannot write: File too large" in str(error)
    assert f"in: {tmp_path / 'models'}" in str(error)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    start = ranges(server)[1]
    assert start
    assert 0 < start[0] <= 150_000


def test_a_target_that_cannot_be_written(server: FileServer, world: World, tmp_path: Path) -> None:
    """R19: a directory that is none."""
    (tmp_path / "models").write_text("a file")
    error = refusal(wanted(tmp_path, server.url(FILE)), world.tools())
    assert "cannot write" in str(error)
    assert "LLAMAFILE_CACHE" in str(error)
    assert ranges(server) == []


def test_ctrl_c_keeps_every_byte(server: FileServer, world: World, tmp_path: Path) -> None:
    """R18: an interrupt leaves a claim for what is there."""

    def stop(done: int, total: int | None, note: str = "") -> None:
        if done >= HALF:
            raise KeyboardInterrupt

    world.update = stop  # type: ignore[method-assign]
    server.set_rate(FILE, 200_000)
    artifact = wanted(tmp_path, server.url(FILE))
    with pytest.raises(KeyboardInterrupt):
        fetch(artifact, world.tools())
    have = os.path.getsize(artifact.partial)
    server.set_rate(FILE, None)
    fetch(artifact, World().tools())
    assert is_whole(artifact)
    assert ranges(server) == [None, (have, None)]


# What is said


def test_what_is_said_at_the_end(
    server: FileServer, world: World, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """R25: size, time, rate, host, and what was here before."""
    artifact = wanted(tmp_path, server.url(FILE))
    leave_partial(artifact, DATA[:HALF])
    fetch(artifact, world.tools())
    assert "from 127.0.0.1, 100.0 kB was here already, sha256 verified" in said.messages[-1]
    os.unlink(artifact.target)
    leave_partial(artifact, OTHER[:HALF])
    fetch(artifact, world.tools())
    assert "from 127.0.0.1, sha256 verified" in said.messages[-1]


def test_a_file_that_nothing_pins_is_said_to_be_so(
    server: FileServer, world: World, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    """R21: and with which digest it can be pinned."""
    fetch(wanted(tmp_path, server.url(FILE), pinned=False, size=None), world.tools())
    assert f"not pinned; its sha256 is {hashlib.sha256(DATA).hexdigest()}" in said.messages[-1]


@pytest.mark.parametrize("size", [SIZE, None], ids=["known size", "unknown size"])
def test_progress_is_told(server: FileServer, world: World, tmp_path: Path, size: int | None) -> None:
    """R7: done and total; without a length anywhere, the total is known at the end."""
    server.always(FILE, NoLength())
    fetch(wanted(tmp_path, server.url(FILE), size=size), world.tools())
    assert (world.shown[0], world.shown[-1]) == ((0, size), (SIZE, SIZE))


def test_lines_for_a_log(said: pytest.LogCaptureFixture) -> None:
    """R7, R35: percent, done of total, rate of this run, time left; not more often than it is set."""
    with progress.LogProgress("m", 1_000_000, 0.0) as lines:
        lines.update(5_000_000, 20_000_000)
        lines.update(5_000_000, None)
    with progress.LogProgress("m", 1_000_000, 60.0) as lines:
        lines.update(6_000_000, 20_000_000)
    known, unknown = said.messages
    assert known.startswith("m: 25 %, 5.00 MB of 20.0 MB, ")
    assert "/s, " in known
    assert known.endswith(" left")
    assert unknown.startswith("m: 5.00 MB, ")
    assert unknown.endswith("/s")


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """R35: a pipe gets lines."""
    assert isinstance(progress.progress("m", 0), progress.LogProgress)


# Any sequence of faults

at = st.integers(0, SIZE)
statuses = st.sampled_from([400, 401, 403, 404, 408, 410, 416, 418, 429, 500, 503, 504, 618])
any_fault: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Drop, at, st.booleans()),
    st.builds(NoLengthTruncated, at),
    st.builds(WrongLength, st.integers(-SIZE, SIZE)),
    st.builds(WrongOffset, st.integers(-SIZE, SIZE)),
    st.builds(Status, statuses, st.sampled_from([{}, {"Retry-After": "5"}])),
    st.sampled_from([Hangup(), IgnoreRange(), LoginPage(), Gzip(), NoLength(), Honest()]),
    st.sampled_from([Changed(OTHER), Changed(DATA), Changed(DATA + b"more"), Changed(b"")]),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, Path]]:
    """One server for all examples; each has a path of its own."""
    with FileServer() as server:
        yield server, tmp_path_factory.mktemp("examples")


@settings(max_examples=50)
@given(runs=st.lists(st.lists(any_fault, max_size=6), min_size=1, max_size=3), size=st.booleans())
@example(runs=[[Drop(HALF), Changed(OTHER)]], size=True)
@example(runs=[[Drop(SIZE), Status(404)], [Changed(DATA + b"more")]], size=False)
@example(runs=[[Changed(b"")], [Changed(OTHER), Drop(HALF)]], size=False)
def test_no_sequence_of_faults_ends_with_wrong_bytes(
    shared: tuple[FileServer, Path], runs: list[list[Fault]], size: bool
) -> None:
    """R18 to R21: right bytes at the target, or a named error and no target; then honesty always helps."""
    server, folder = shared
    path = f"/{len(server.requests)}-{len(os.listdir(folder))}"
    artifact = wanted(folder / path[1:], server.url(path), size=SIZE if size else None)
    for faults in [*runs, []]:
        server.clear(path)
        server.files[path] = DATA
        server.script(path, *faults)
        try:
            fetch(artifact, World().tools())
        except (TransferError, IntegrityError) as error:
            assert faults, f"an honest server, and yet {error}"  # noqa: PT017
            assert server.url(path) in str(error)  # noqa: PT017
            assert not os.path.exists(artifact.target)
        else:
            assert is_whole(artifact)
            break
    shutil.rmtree(folder / path[1:])


@settings(max_examples=50)
@given(
    faults=st.lists(
        st.one_of(
            st.builds(Drop, at),
            st.builds(WrongOffset, st.integers(-SIZE, SIZE)),
            st.sampled_from([IgnoreRange(), Changed(OTHER), Changed(DATA), Hangup(), Status(416)]),
            st.sampled_from([Untagged(Drop(HALF)), Untagged(Changed(OTHER)), Untagged(Honest())]),
            st.sampled_from([ChangedAndDropped(DATA), ChangedAndDropped(OTHER)]),
        ),
        max_size=8,
    )
)
def test_no_sequence_of_changes_joins_two_files(shared: tuple[FileServer, Path], faults: list[Fault]) -> None:
    """R20: nothing pins the file, and still it is one of those that the server had, as a whole."""
    server, folder = shared
    path = f"/{len(server.requests)}-{len(os.listdir(folder))}"
    server.files[path] = DATA
    server.script(path, *faults)
    artifact = wanted(folder / path[1:], server.url(path), pinned=False, size=None)
    try:
        fetch(artifact, World().tools())
    except TransferError:
        assert not os.path.exists(artifact.target)
    else:
        assert Path(artifact.target).read_bytes() in (DATA, OTHER)
    shutil.rmtree(folder / path[1:], ignore_errors=True)
