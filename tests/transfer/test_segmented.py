"""Several connections for one file, against a real server: they pay, they fail one by one, and they end."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tasks.catalogue.artifact import Artifact
from tasks.errors import IntegrityError, TransferError
from tasks.network import http, response
from tasks.transfer import connection_pool, scaling
from tasks.transfer.connection import READ_LEAST
from tasks.transfer.download import fetch
from tasks.transfer.ranges import count, merge

from tests.fakes.hub import Hub
from tests.fakes.llamafile import noise
from tests.fakes.server import (
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
    Paused,
    Reply,
    Request,
    Slow,
    Status,
    WrongLength,
    WrongOffset,
    WrongTotal,
)
from tests.support.world import (
    FILE,
    World,
    hurry,
    is_whole,
    leave_partial,
    refusal,
    until,
    wanted,
    without_posix,
)

SIZE = 800_000
DATA = noise(b"lanes", SIZE)
OTHER = DATA[::-1]
RATE = 600_000.0  # bytes a second of one connection
WITHIN_S = 90.0  # a transfer of these few bytes is over long before


@pytest.fixture(autouse=True)
def _pace(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture(params=["posix", pytest.param("windows", marks=pytest.mark.once)])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write a file."""
    if request.param == "windows":
        without_posix(monkeypatch)
    return str(request.param)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        server.set_rate(FILE, RATE)
        yield server


@pytest.fixture
def world() -> World:
    return World()


def model(folder: Path, *sources: str, **more: Any) -> Artifact:
    return wanted(folder, *sources, **{"data": DATA, "size": SIZE, **more})


def fetched(artifact: Artifact, world: World, within_s: float = WITHIN_S, **more: Any) -> None:
    """Fetch it, or fail because it hangs."""
    more = {"sleep": lambda s: time.sleep(min(s, 0.02)), **more}
    begun(fetch, artifact, world.tools(**more)).result(within_s)


def begun(act: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call it in a thread that no test waits for longer than for its result."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(act(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def answers(server: FileServer, path: str = FILE) -> list[Request]:
    """The requests that got bytes of the file."""
    return [request for request in server.asked(path) if request.status in (200, 206)]


def connections_left() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "connection"]


@dataclass
class InTurn:
    """Answers in the order of requests, of which the last stands for all that follow."""

    faults: tuple[Fault, ...]
    turn: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, request: Request, data: bytes | None) -> Reply:
        with self.lock:
            fault = self.faults[min(self.turn, len(self.faults) - 1)]
            self.turn += 1
        return fault.answer(request, data)


@dataclass
class Every:
    """A fault for each `nth` request, honesty for the others."""

    nth: int
    fault: Fault
    turn: int = 0

    def answer(self, request: Request, data: bytes | None) -> Reply:
        self.turn += 1
        return (Honest() if self.turn % self.nth else self.fault).answer(request, data)


@dataclass(frozen=True)
class Ranged:
    """A fault for requests that ask for a piece."""

    fault: Fault

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return (self.fault if request.range else Honest()).answer(request, data)


# How many


def test_slow_connections_are_used_side_by_side(
    server: FileServer, world: World, tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18: more connections while they bring more, and hardly a byte twice.

    Here each one counts as more, because a rate that a busy machine measures may show no gain.
    """
    monkeypatch.setattr(scaling, "MIN_SPEEDUP", 0.0)
    monkeypatch.setattr(scaling, "COLLAPSE", 0.0)
    server.set_rate(FILE, RATE / 3)
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert server.most_at_once[FILE] >= 3
    assert server.bytes_sent(FILE) < 1.15 * SIZE
    assert any("connections" in note for note in world.notes)
    first = server.asked(FILE)[0].range
    assert first is None or first[0] == 0  # the lowest bytes come first: the digest follows them


def test_more_lanes_are_not_kept_where_they_do_not_pay(
    server: FileServer, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18: more are tried, and given up again, with hardly a byte twice.

    What does not pay is in tests/transfer/test_scaling.py, with lines that connections share; a real line
    that is measured for so short a time is mostly noise, so here nothing pays.
    """
    monkeypatch.setattr(scaling, "MIN_SPEEDUP", float("inf"))
    monkeypatch.setattr(scaling, "TRIAL_S", 0.3)
    monkeypatch.setattr(scaling, "PROBE_FIRST_S", 60.0)
    server.set_rate(FILE, 200_000, shared=True)
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert server.most_at_once[FILE] == 2
    both = [done for (done, _), note in zip(world.shown, world.notes, strict=True) if note == "2 connections"]
    assert 0 < both[-1] < 0.8 * SIZE  # the rest came over one
    assert server.bytes_sent(FILE) < 1.3 * SIZE


@pytest.mark.parametrize("why", ["small", "not pinned", "at the end"])
def test_one_connection(
    server: FileServer, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """R18, R20: a small file, one that nothing pins, and one of which little is missing."""
    artifact = model(tmp_path, server.url(FILE), pinned=why != "not pinned")
    if why == "small":
        monkeypatch.setattr(scaling, "SPLIT_FROM", SIZE + 1)
    if why == "at the end":
        leave_partial(artifact, DATA, spans=[(0, SIZE - scaling.PIECE_MIN)])
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert len(server.asked(FILE)) == server.most_at_once[FILE] == 1


@pytest.mark.parametrize("size", [SIZE, None], ids=["known size", "unknown size"])
def test_the_servers_own_size_will_do(
    server: FileServer, world: World, tmp_path: Path, size: int | None
) -> None:
    """R18: a digest without a size is split as soon as the size is known."""
    artifact = model(tmp_path, server.url(FILE), size=size)
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert server.most_at_once[FILE] > 1


def test_connections_are_used_again(server: FileServer, world: World, tmp_path: Path) -> None:
    """R18: a piece that was read to its end leaves a connection that can be asked again."""
    spans = [(i, i + 20_000) for i in range(0, SIZE, 40_000)]  # 20 gaps
    artifact = model(tmp_path, server.url(FILE))
    leave_partial(artifact, DATA, spans=spans)
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert len({request.peer for request in server.asked(FILE)}) <= 8
    assert len(server.asked(FILE)) >= 20


REFUSALS: list[Any] = [
    pytest.param(Status(503), id="503"),
    pytest.param(Status(429, {"Retry-After": "1"}), id="429"),
    pytest.param(Status(403), id="403"),
    pytest.param(Hangup(), id="no answer"),
    pytest.param(Drop(0, reset=True), id="reset"),
]


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_server_that_allows_so_many(
    server: FileServer, world: World, tmp_path: Path, at_once: int, fault: Fault
) -> None:
    """R18, R19: what is refused beside others is no failure; those that are answered bring the file."""
    server.limit(FILE, at_once, fault)
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    refused = [r for r in server.asked(FILE) if r not in answers(server) or not r.sent]
    assert len(refused) < 25
    assert server.bytes_sent(FILE) < 1.4 * SIZE


def test_a_server_that_leaves_a_second_connection_hanging(
    server: FileServer, world: World, tmp_path: Path
) -> None:
    """R27: a connection without an answer does not stop the others; here SILENCE_S is 30 s."""
    server.limit(FILE, 1, Hangup(60))
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world, within_s=28)
    assert is_whole(artifact, DATA)


@pytest.mark.once
def test_the_last_connection_is_left_hanging(
    server: FileServer, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have fetched the rest and left before its silence was noticed: it is replaced, once."""
    monkeypatch.setattr(connection_pool, "STALL_S", 3.0)
    server.limit(FILE, 1, Hangup(60))
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world, within_s=28)
    assert is_whole(artifact, DATA)


# One of several fails


FAULTS: list[Any] = [
    pytest.param(WrongOffset(7), id="206 too far"),
    pytest.param(WrongOffset(-7), id="206 too early"),
    pytest.param(IgnoreRange(), id="Range ignored"),
    pytest.param(Status(416), id="416"),
    pytest.param(WrongTotal(5), id="another total"),
    pytest.param(WrongLength(100), id="length too large"),
    pytest.param(WrongLength(-100), id="length too small"),
    pytest.param(LoginPage(), id="web page"),
    pytest.param(Gzip(), id="gzip"),
    pytest.param(Drop(5000), id="dropped"),
    pytest.param(Drop(5000, reset=True), id="reset"),
    pytest.param(Hangup(), id="no answer"),
    pytest.param(NoLength(), id="no length"),
    pytest.param(NoLengthTruncated(5000), id="no length, truncated"),
    pytest.param(Status(500), id="500"),
    pytest.param(Status(618), id="618"),
]


@pytest.mark.once
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", [2, 3])
def test_some_requests_fail(
    server: FileServer, world: World, tmp_path: Path, system: str, fault: Fault, nth: int
) -> None:
    """R19, R20: the others go on, and what one did not bring is fetched again."""
    server.always(FILE, Every(nth, fault))
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_would_be_final_for_one_is_not_for_several(
    server: FileServer, world: World, tmp_path: Path, status: int
) -> None:
    """R19: an edge that does not have the file yet; the others bring it."""
    server.always(FILE, InTurn((Honest(), Honest(), Status(status), Honest())))
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert [r.status for r in server.asked(FILE)].count(status) == 1


NO_RANGES: list[Any] = [
    pytest.param(IgnoreRange(), id="Range ignored"),
    pytest.param(Status(416), id="416"),
    pytest.param(WrongOffset(7), id="206 too far"),
]


@pytest.mark.parametrize("fault", NO_RANGES)
@pytest.mark.parametrize("done", [0, SIZE // 2])
def test_only_the_whole_can_be_had(
    server: FileServer, world: World, tmp_path: Path, fault: Fault, done: int
) -> None:
    """R19: a server without ranges brings the file over one connection, hardly more than once."""
    server.always(FILE, Ranged(fault))
    artifact = model(tmp_path, server.url(FILE))
    if done:
        leave_partial(artifact, DATA[:done])
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert len(server.asked(FILE)) < 25
    whole = [r.sent for r in answers(server) if r.range is None or isinstance(fault, IgnoreRange)]
    assert sum(sent for sent in whole if sent > SIZE // 4) <= 1.25 * SIZE


def test_a_silent_lane_is_not_waited_for(
    server: FileServer, world: World, tmp_path: Path, system: str
) -> None:
    """R27, R20: its rest is taken by another; when its socket speaks again, the published file stays."""
    speaks = threading.Event()
    server.script(FILE, Honest(), Paused(10_000, speaks, then=OTHER))
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    before = os.stat(artifact.target)
    assert until(connections_left, "the connection that waits for its socket")
    speaks.set()
    until(lambda: not connections_left(), "the end of every connection")
    assert Path(artifact.target).read_bytes() == DATA
    assert os.stat(artifact.target).st_mtime_ns == before.st_mtime_ns
    assert os.listdir(Path(artifact.target).parent) == ["m.llamafile"]


def test_a_silent_lane_that_speaks_nonsense_does_not_spoil_what_is_proven(
    server: FileServer, world: World, tmp_path: Path
) -> None:
    """R20: others brought its bytes, they are hashed, and then it sends other ones."""
    speaks, goes_on = threading.Event(), threading.Event()
    stalled = Paused(16 * 1024, speaks, then=OTHER)

    @dataclass
    class Edges:
        """The second request falls silent; the last bytes of the file come when that has spoken."""

        count: int = 0

        def answer(self, request: Request, data: bytes | None) -> Reply:
            self.count += 1
            if self.count == 2:
                return stalled.answer(request, data)
            first = request.range[0] if request.range else 0
            return Paused(max(0, SIZE - 20_000 - first), goes_on).answer(request, data)

    server.always(FILE, Edges())
    artifact = model(tmp_path, server.url(FILE))
    done = begun(fetch, artifact, world.tools())
    until(lambda: world.shown and world.shown[-1][0] >= SIZE - 20_000 - READ_LEAST, "all but the last bytes")
    second = server.asked(FILE)[1]
    sent = second.sent
    speaks.set()
    until(lambda: second.sent > sent, "the silent one speaks")
    time.sleep(0.2)
    goes_on.set()
    done.result(WITHIN_S)
    assert is_whole(artifact, DATA)


def test_a_slow_lane_is_replaced(server: FileServer, world: World, tmp_path: Path) -> None:
    """R27: another connection may meet a better edge."""
    server.set_rate(FILE, 100_000)
    server.script(FILE, Honest(), Honest(), Slow(8_000))
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    slow = server.asked(FILE)[2]
    assert slow.sent < 30_000


@pytest.mark.parametrize("asked_s", [3600.0, 300.0])
def test_a_pause_asked_of_one_lane_does_not_stop_the_others(
    server: FileServer, world: World, tmp_path: Path, asked_s: float
) -> None:
    """R19, R27: one request is told to come back in an hour, all others are answered."""
    over = threading.Event()
    server.set_rate(FILE, 10_000)  # the first is still busy when the second is refused
    server.script(FILE, Honest(), Status(500, {"Retry-After": f"{asked_s:.0f}"}))
    artifact = model(tmp_path, server.url(FILE))
    try:
        done = begun(fetch, artifact, world.tools(sleep=lambda s: over.wait(s) and None))
        until(lambda: len(server.asked(FILE)) > 1, "a second connection asks")
        server.set_rate(FILE, None)
        done.result(90)
    finally:
        over.set()
    assert is_whole(artifact, DATA)


def test_a_server_that_asks_for_a_pause_gets_it(server: FileServer, world: World, tmp_path: Path) -> None:
    """R19: while it is waited for, no other connection asks."""
    waiting, over = threading.Event(), threading.Event()
    asked: list[int] = []

    def sleep(seconds: float) -> None:
        if seconds < 30:
            return
        waiting.set()
        over.wait(WITHIN_S)

    artifact = model(tmp_path, server.url(FILE))
    done = begun(fetch, artifact, world.tools(sleep=sleep))
    server.wait_sent(FILE, SIZE // 4)
    server.limit(FILE, 0, Status(429, {"Retry-After": "30"}))
    server.always(FILE, Status(429, {"Retry-After": "30"}))
    assert waiting.wait(WITHIN_S)
    time.sleep(0.3)  # those that were on their way
    asked.append(len(server.asked(FILE)))
    time.sleep(2.5)
    asked.append(len(server.asked(FILE)))
    server.clear(FILE)
    over.set()
    done.result(WITHIN_S)
    assert is_whole(artifact, DATA)
    assert asked[1] - asked[0] == 0


# Links


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    with FileServer() as cdn:
        yield cdn


@pytest.mark.parametrize("uses", [1, 2, None])
def test_links_that_expire_under_many_lanes(
    server: FileServer, cdn: FileServer, world: World, tmp_path: Path, uses: int | None
) -> None:
    """R18: another link is asked for, once for all, and the bytes stay."""
    hub = Hub(server, cdn, FILE, DATA, uses=uses)
    cdn.set_rate(hub.cdn_path, RATE)
    artifact = model(tmp_path, hub.url)
    done = begun(fetch, artifact, world.tools())
    cdn.wait_sent(hub.cdn_path, SIZE // 3)
    hub.expire()
    done.result(WITHIN_S)
    assert is_whole(artifact, DATA)
    assert cdn.most_at_once[hub.cdn_path] > 1
    assert cdn.bytes_sent(hub.cdn_path) < 1.25 * SIZE
    if uses is None:
        assert len(server.asked(FILE)) <= 4  # the first, and one after it expired


def test_the_hub_allows_one_connection(
    server: FileServer, cdn: FileServer, world: World, tmp_path: Path
) -> None:
    """R18: a fresh 403 for whoever asks beside another; some say that the Hub does so."""
    hub = Hub(server, cdn, FILE, DATA)
    cdn.set_rate(hub.cdn_path, RATE)
    cdn.limit(hub.cdn_path, 1, Status(403))
    artifact = model(tmp_path, hub.url)
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert len(cdn.asked(hub.cdn_path)) < 25


# Breaks


class Back:
    """A server that is down from some moment on, until somebody has waited for it."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._again: FileServer | None = None

    def sleep(self, _: float) -> None:
        """It comes back."""
        with self._lock:
            if self.server.closing.is_set() and not self._again:
                self._again = FileServer(port=self.server.port)
                self._again.files[FILE] = DATA
                self._again.set_rate(FILE, 3 * RATE)

    @property
    def again(self) -> FileServer:
        """The one that came back."""
        assert self._again
        return self._again


def test_a_server_that_dies_and_comes_back(
    server: FileServer, world: World, tmp_path: Path, system: str
) -> None:
    """R18, R19: every connection breaks; what came stays, and only the rest is asked for."""
    back = Back(server)
    artifact = model(tmp_path, server.url(FILE))
    done = begun(fetch, artifact, world.tools(sleep=back.sleep))
    server.wait_sent(FILE, SIZE // 2)
    server.close()
    done.result(WITHIN_S)
    assert is_whole(artifact, DATA)
    with back.again as again:
        assert again.bytes_sent(FILE) < SIZE * 0.75


def test_a_mirror_goes_on_with_what_lanes_brought(
    server: FileServer, world: World, tmp_path: Path, system: str
) -> None:
    """R18, R19: its requests are for the gaps alone."""
    server.files["/mirror"] = DATA
    server.set_rate("/mirror", RATE)
    artifact = model(tmp_path, server.url(FILE), server.url("/mirror"))
    done = begun(fetch, artifact, world.tools())
    server.wait_sent(FILE, SIZE // 2)
    server.guard(FILE, lambda request: Status(404).answer(request, None))
    server.always(FILE, Status(404))
    server.set_rate(FILE, 10 * RATE)
    done.result(WITHIN_S)
    assert is_whole(artifact, DATA)
    assert server.bytes_sent(FILE) + server.bytes_sent("/mirror") < 1.3 * SIZE


GAPS = [(0, 50_000), (120_000, 200_000), (200_000, 210_000), (500_000, 700_000)]


def missing(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The bytes that spans do not have."""
    at, out = 0, []
    for first, end in [*merge(spans), (SIZE, SIZE)]:
        if at < first:
            out.append((at, first))
        at = end
    return out


def test_only_gaps_are_asked_for(server: FileServer, world: World, tmp_path: Path, system: str) -> None:
    """R18: a run that was killed left islands; the digest is of what is on the disk and of what comes."""
    artifact = model(tmp_path, server.url(FILE))
    holey = bytearray(DATA)
    for first, end in missing(GAPS):
        holey[first:end] = bytes(end - first)
    leave_partial(artifact, bytes(holey), spans=GAPS)
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert count(missing(GAPS)) <= server.bytes_sent(FILE) < 1.35 * count(missing(GAPS))
    for request in server.asked(FILE):
        assert request.range
        first, last = request.range
        assert any(a <= first and (SIZE if last is None else last + 1) <= b for a, b in missing(GAPS))


def test_what_a_stopped_run_has_is_not_fetched_again(
    server: FileServer, world: World, tmp_path: Path, system: str
) -> None:
    """R18: Ctrl-C in the middle of several connections; the next run asks for the gaps."""

    def stop(done: int, total: int | None, note: str = "") -> None:
        if done > SIZE // 2 and "connections" in note:
            raise KeyboardInterrupt

    world.update = stop  # type: ignore[method-assign]
    artifact = model(tmp_path, server.url(FILE))
    with pytest.raises(KeyboardInterrupt):
        fetch(artifact, world.tools())
    until(lambda: not connections_left(), "the end of every connection")
    before = server.bytes_sent(FILE)
    fetched(artifact, World())
    assert is_whole(artifact, DATA)
    # each connection loses a buffer when it is stopped; of files of this size that is much
    assert server.bytes_sent(FILE) < SIZE + 2 * 8 * 2 * READ_LEAST
    assert server.bytes_sent(FILE) - before < 0.75 * SIZE


# Wrong bytes


def test_wrong_bytes_over_lanes_are_fetched_once_more(
    server: FileServer, world: World, tmp_path: Path, system: str
) -> None:
    """R21: pieces may not have belonged together; in one piece they are simply wrong."""
    server.files[FILE] = OTHER
    error = refusal(model(tmp_path, server.url(FILE)), world.tools())
    assert isinstance(error, IntegrityError)
    assert f"got: sha256:{hashlib.sha256(OTHER).hexdigest()}" in str(error)
    assert server.most_at_once[FILE] > 1
    assert server.asked(FILE)[-1].range is None  # the second time it is one connection
    assert server.bytes_sent(FILE) < 2.2 * SIZE
    assert os.listdir(tmp_path / "models") == []


def test_one_bad_edge_costs_one_more_download(
    server: FileServer, world: World, tmp_path: Path, system: str
) -> None:
    """R20, R21: of several connections one had another file."""

    @dataclass(frozen=True)
    class Edge:
        def answer(self, request: Request, data: bytes | None) -> Reply:
            return Honest().answer(request, OTHER if request.range else data)

    server.always(FILE, Edge())
    artifact = model(tmp_path, server.url(FILE))
    fetched(artifact, world)
    assert is_whole(artifact, DATA)
    assert server.asked(FILE)[-1].range is None


# What fails for good


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(Status(404), "HTTP 404", id="404"),
        pytest.param(Status(500), "HTTP 500", id="500"),
        pytest.param(Hangup(), "closed connection", id="no answer"),
        pytest.param(LoginPage(), "a web page", id="web page"),
    ],
)
def test_when_everything_fails_the_partial_is_kept(
    server: FileServer, world: World, tmp_path: Path, fault: Fault, says: str
) -> None:
    """R19, R27: the reason, what is kept, and a bounded number of requests."""
    artifact = model(tmp_path, server.url(FILE))
    done = begun(refusal, artifact, world.tools())
    server.wait_sent(FILE, SIZE // 2)
    asked = len(server.asked(FILE))
    server.guard(FILE, lambda request: fault.answer(request, DATA))
    server.set_rate(FILE, 10 * RATE)
    error = done.result(WITHIN_S)
    assert isinstance(error, TransferError)
    assert says in str(error)
    assert "are kept" in str(error)
    assert len(server.asked(FILE)) - asked < 40
    server.clear(FILE)
    before = server.bytes_sent(FILE)
    fetched(artifact, World())
    assert is_whole(artifact, DATA)
    assert server.bytes_sent(FILE) - before < 0.7 * SIZE


def test_all_waiting_has_an_end(server: FileServer, world: World, tmp_path: Path) -> None:
    """R27: connections do not make it longer."""
    waits: list[float] = []
    server.always(FILE, InTurn((Drop(SIZE // 2), Status(503, {"Retry-After": "400"}))))
    error = refusal(model(tmp_path, server.url(FILE)), world.tools(sleep=waits.append))
    assert "HTTP 503" in str(error)
    assert sum(waits) <= response.WAIT_TOTAL_S


def test_silence_of_every_lane_is_an_error(
    server: FileServer, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R27: with a name, and not for ever."""
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.5)
    never = threading.Event()
    artifact = model(tmp_path, server.url(FILE))
    done = begun(refusal, artifact, world.tools())
    server.wait_sent(FILE, SIZE // 2)
    server.guard(FILE, lambda request: Paused(0, never).answer(request, DATA))
    server.set_rate(FILE, 10 * RATE)
    error = done.result(WITHIN_S)
    assert "no data for" in str(error)
    assert "are kept" in str(error)


def test_no_lane_is_left(server: FileServer, world: World, tmp_path: Path) -> None:
    """R14: every thread of a transfer ends with it."""
    fetched(model(tmp_path, server.url(FILE)), world)
    until(lambda: not connections_left(), "the end of every connection")
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"connection", "journal", "sha256"}
