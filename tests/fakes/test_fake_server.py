"""The fake file server and Hub are what they claim to be: else every test that uses them proves nothing."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

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
    Paused,
    Redirect,
    Slow,
    Stall,
    Status,
    WrongLength,
    WrongOffset,
    WrongTotal,
)
from tests.fakes.tls import self_signed
from tests.support.fake_engines import posix, until

pytestmark = pytest.mark.once
DATA = hashlib.shake_128(b"file").digest(300_000)
OTHER = DATA[::-1]
LENGTH, RANGE = "Content-Length", "Content-Range"
FOUND = b"Found. Redirecting to /else\n"
FILE = "/dir/mödel.llamafile"

Answer = tuple[int, http.client.HTTPMessage, bytes, bool]  # status, headers, body, is it whole?


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


def ask(server: FileServer, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    connection.request(method, server.url(FILE).split(str(server.port))[1], headers=names)
    response = connection.getresponse()
    try:
        body, whole = response.read(), True
    except http.client.IncompleteRead as error:
        body, whole = error.partial, False
    connection.close()
    return response.status, response.headers, body, whole


# The file server, honest


def test_whole_file_comes_with_its_length_and_tag(server: FileServer) -> None:
    status, headers, body, _ = ask(server)
    assert (status, body, headers["Content-Length"]) == (200, DATA, str(len(DATA)))
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')
    assert server.bytes_sent(FILE) == len(DATA)


@pytest.mark.parametrize(
    ("asked", "recorded", "start", "stop"),
    [
        pytest.param("bytes=0-0", (0, 0), 0, 1, id="first byte"),
        pytest.param("bytes=100-199", (100, 199), 100, 200, id="middle"),
        pytest.param("bytes=299000-", (299_000, None), 299_000, 300_000, id="open end"),
        pytest.param("bytes=-500", (-500, None), 299_500, 300_000, id="suffix"),
        pytest.param("bytes=-999999", (-999_999, None), 0, 300_000, id="suffix longer than file"),
        pytest.param("bytes=299999-400000", (299_999, 400_000), 299_999, 300_000, id="past end"),
    ],
)
def test_range(
    server: FileServer, asked: str, recorded: tuple[int, int | None], start: int, stop: int
) -> None:
    status, headers, body, _ = ask(server, Range=asked)
    assert (status, body) == (206, DATA[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/300000"
    request = server.requests[0]
    assert (request.range, request.status, request.sent) == (recorded, 206, stop - start)
    assert request.headers["RANGE"] == asked


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-"])
def test_range_that_means_nothing_gets_the_whole_file(server: FileServer, header: str) -> None:
    assert ask(server, Range=header)[2] == DATA


def test_range_past_the_end_is_416_with_the_size(server: FileServer) -> None:
    status, headers, _, _ = ask(server, Range="bytes=300000-")
    assert (status, headers["Content-Range"]) == (416, "bytes */300000")


def test_if_range_decides_between_part_and_whole(server: FileServer) -> None:
    tag = ask(server, "HEAD")[1]["ETag"]
    assert ask(server, Range="bytes=1-2", If_Range=tag)[0] == 206
    assert ask(server, Range="bytes=1-2", If_Range='"other"')[2] == DATA


def test_head_has_the_headers_and_no_body(server: FileServer) -> None:
    status, headers, body, _ = ask(server, "HEAD", Range="bytes=1-2")
    assert (status, body, headers["Content-Length"]) == (200, b"", "300000")


def test_unknown_path_is_404(server: FileServer) -> None:
    assert requests.get(server.url("/none"), timeout=60).status_code == 404


def test_connection_is_kept_alive(server: FileServer) -> None:
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.url(FILE), timeout=60)
        adapter: Any = session.get_adapter("http://")
        [pool] = adapter.poolmanager.pools._container.values()
        assert pool.num_connections == 1


# The file server, several connections at once


def test_a_limit_counts_what_is_being_answered(server: FileServer) -> None:
    server.limit(FILE, 1, Status(503))
    goes_on = threading.Event()
    server.script(FILE, Paused(1000, goes_on))
    first: list[Answer] = []
    thread = threading.Thread(target=lambda: first.append(ask(server)))
    thread.start()
    server.wait_sent(FILE, 1000)
    assert [ask(server)[0], ask(server)[0]] == [503, 503]
    goes_on.set()
    thread.join(60)
    assert (first[0][0], first[0][2]) == (200, DATA)
    until(lambda: ask(server)[0] == 200, "the first is over")
    assert server.most_at_once[FILE] == 1


def test_a_pause_may_be_followed_by_other_bytes(server: FileServer) -> None:
    goes_on = threading.Event()
    goes_on.set()
    server.script(FILE, Paused(1000, goes_on, then=OTHER))
    assert ask(server)[2] == DATA[:1000] + OTHER[1000:]
    server.script(FILE, Paused(10, goes_on, then=OTHER))
    assert ask(server, Range="bytes=500-599")[2] == DATA[500:510] + OTHER[510:600]


def test_one_slow_answer(server: FileServer) -> None:
    server.script(FILE, Slow(200_000))
    start = time.monotonic()
    assert ask(server)[2] == DATA
    assert time.monotonic() - start > 0.9
    assert ask(server)[2] == DATA


def test_a_rate_that_connections_share(server: FileServer) -> None:
    server.set_rate(FILE, 600_000, shared=True)
    start = time.monotonic()
    threads = [threading.Thread(target=ask, args=(server,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert time.monotonic() - start > 0.7


def test_another_total(server: FileServer) -> None:
    server.always(FILE, WrongTotal(5))
    status, headers, body, _ = ask(server, Range="bytes=0-9")
    assert (status, headers[RANGE], body) == (206, "bytes 0-9/300005", DATA[:10])
    status, headers, _, whole = ask(server)
    assert (status, headers[LENGTH], whole) == (200, "300005", False)


def test_requests_over_one_connection_have_one_peer(server: FileServer) -> None:
    with requests.Session() as session:
        for _ in range(2):
            session.get(server.url(FILE))
    requests.get(server.url(FILE))
    peers = [request.peer for request in server.asked(FILE)]
    assert peers[0] == peers[1] != peers[2]


def test_a_server_that_comes_back(server: FileServer) -> None:
    server.close()
    with FileServer(port=server.port) as again:
        again.files[FILE] = DATA
        assert ask(again)[2] == DATA


# The file server, misbehaving


@pytest.mark.parametrize(
    ("fault", "asked", "status", "header", "body", "whole"),
    [
        (Drop(1000), "bytes=0-", 206, (LENGTH, "300000"), DATA[:1000], False),
        (Drop(1000), "bytes=50-", 206, (LENGTH, "299950"), DATA[50:1050], False),
        (Stall(70_000, 0.1), "", 200, (LENGTH, "300000"), DATA[:70_000], False),
        (Status(503, {"Retry-After": "1"}, b"no"), "", 503, ("Retry-After", "1"), b"no", True),
        (IgnoreRange(), "bytes=10-19", 200, (RANGE, None), DATA, True),
        (WrongOffset(7), "bytes=10-19", 206, (RANGE, "bytes 17-26/300000"), DATA[17:27], True),
        (WrongOffset(-9), "bytes=5-9", 206, (RANGE, "bytes 0-4/300000"), DATA[:5], True),
        (NoLength(), "", 200, (LENGTH, None), DATA, True),
        (NoLength(), "", 200, ("Connection", "close"), DATA, True),
        (NoLengthTruncated(9), "", 200, (LENGTH, None), DATA[:9], True),
        (WrongLength(+5), "", 200, (LENGTH, "300005"), DATA, False),
        (WrongLength(-5), "", 200, (LENGTH, "299995"), DATA[:-5], True),
        (Redirect("/else", {"X-Y": "z"}), "", 302, ("X-Y", "z"), FOUND, True),
    ],
    ids=repr,
)  # fmt: skip
def test_fault_happens_once_and_then_honesty_returns(
    server: FileServer,
    fault: Fault,
    asked: str,
    status: int,
    header: tuple[str, str | None],
    body: bytes,
    whole: bool,
) -> None:
    server.script(FILE, fault)
    range_ = {"Range": asked} if asked else {}
    got = ask(server, **range_)
    assert (got[0], got[1][header[0]], got[2], got[3]) == (status, header[1], body, whole)
    assert ask(server)[2] == DATA


def test_script_runs_in_order_and_head_uses_none_of_it(server: FileServer) -> None:
    server.script(FILE, Status(503), Honest(), Status(618))
    got = [ask(server, method)[0] for method in ("HEAD", "GET", "GET", "GET", "GET")]
    assert got == [200, 503, 200, 618, 200]


def test_always_is_for_every_request_until_cleared(server: FileServer) -> None:
    server.always(FILE, Status(401))
    assert [ask(server, method)[0] for method in ("HEAD", "GET", "GET")] == [401, 401, 401]
    server.clear(FILE)
    assert ask(server)[0] == 200


def test_changed_file_has_another_tag_from_then_on(server: FileServer) -> None:
    tag = ask(server)[1]["ETag"]
    server.script(FILE, Changed(OTHER))
    assert ask(server, Range="bytes=0-9", If_Range=tag)[:3:2] == (200, OTHER)
    assert ask(server, Range="bytes=0-9")[2] == OTHER[:10]


def test_login_page_is_200_and_html(server: FileServer) -> None:
    server.script(FILE, LoginPage())
    status, headers, body, _ = ask(server, Range="bytes=5-")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<!DOCTYPE html>")


def test_gzip_comes_unasked(server: FileServer) -> None:
    server.script(FILE, Gzip())
    status, headers, body, _ = ask(server, Range="bytes=5-", Accept_Encoding="identity")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == DATA
    assert int(headers["Content-Length"]) == len(body) != len(DATA)


def test_hangup_comes_before_the_status_line(server: FileServer) -> None:
    server.script(FILE, Hangup())
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server)
    assert server.requests[0].status == 0


@posix
def test_drop_may_be_a_reset(server: FileServer) -> None:
    server.script(FILE, Drop(0, reset=True))
    with pytest.raises(ConnectionResetError):
        ask(server)


def test_rate_slows_the_body_and_can_be_lifted_meanwhile(server: FileServer) -> None:
    server.set_rate(FILE, 20_000)  # the whole would take ten seconds
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(ask(server)[2]))
    started = time.monotonic()
    thread.start()
    server.wait_sent(FILE, 6_000)
    assert time.monotonic() - started > 0.2
    server.set_rate(FILE, None)
    thread.join(8)
    assert got == [DATA]


def test_client_that_leaves_is_no_error_and_its_bytes_are_counted(server: FileServer) -> None:
    server.set_rate(FILE, 200_000)
    client = requests.get(server.url(FILE), stream=True, timeout=60)
    server.wait_sent(FILE, 20_000)
    client.close()
    server.set_rate(FILE, None)
    assert ask(server)[2] == DATA
    assert server.errors == []


@pytest.mark.parametrize("fault", [Stall(1000, 600), Hangup(600)], ids=repr)
def test_shutdown_is_quick_with_stalled_and_idle_clients(fault: Fault) -> None:
    server = FileServer()
    server.files[FILE] = DATA
    server.always(FILE, fault)
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    path = server.url(FILE).split(str(server.port))[1]
    for client in clients[1:]:  # the first says nothing
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    until(lambda: len(server.requests) == 4, "four requests")
    started = time.monotonic()
    server.close()
    assert time.monotonic() - started < 300
    for client in clients:
        client.settimeout(2)
        while client.recv(65536):
            pass
        client.close()


def test_slow_bodies_run_side_by_side(server: FileServer) -> None:
    goes_on = threading.Event()
    server.always(FILE, Paused(1000, goes_on))
    threads = [threading.Thread(target=ask, args=(server,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: server.most_at_once[FILE] == 8, "all of them")
    goes_on.set()
    for thread in threads:
        thread.join()
    assert server.bytes_sent(FILE) == 8 * len(DATA)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_server_is_trusted_only_with_its_certificate(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    with FileServer(tls=(cert, key)) as server:
        server.files[FILE] = DATA
        server.script(FILE, Honest(), Drop(1000), Stall(1000, 600))
        assert server.url(FILE).startswith("https://127.0.0.1:")
        with requests.Session() as session:
            session.trust_env = False  # REQUESTS_CA_BUNDLE would win over verify
            assert session.get(server.url(FILE), verify=str(cert), timeout=60).content == DATA
            with pytest.raises(requests.exceptions.SSLError):
                session.get(server.url(FILE), timeout=60)
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                assert session.get(server.url(FILE), verify=str(cert), timeout=60).content == b""
            session.get(server.url(FILE), verify=str(cert), timeout=60, stream=True)
            started = time.monotonic()
            server.close()
            assert time.monotonic() - started < 300


# The Hub


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    with FileServer() as cdn:
        yield cdn


def test_hub_describes_the_file_and_redirects(server: FileServer, cdn: FileServer) -> None:
    hub = Hub(server, cdn, "/o/r/resolve/main/m.llamafile", DATA)
    head = requests.head(hub.url, timeout=60, allow_redirects=False)
    assert head.status_code == 302
    assert head.headers["x-linked-etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert head.headers["x-linked-size"] == "300000"
    assert head.headers["x-repo-commit"] == hub.commit
    assert head.headers["content-length"] != "300000"
    got = requests.get(hub.url, timeout=60, headers={"Range": "bytes=5-9", "Authorization": "Bearer t"})
    assert got.content == DATA[5:10]
    assert server.requests[-1].headers["Authorization"] == "Bearer t"
    assert cdn.requests[-1].headers["Authorization"] is None


def test_hub_link_expires_on_command(server: FileServer, cdn: FileServer) -> None:
    hub = Hub(server, cdn, "/m", DATA)
    link = requests.get(hub.url, timeout=60).url
    assert requests.get(link, timeout=60).content == DATA
    hub.expire()
    cdn.script(hub.cdn_path, Drop(10))  # not consumed by the refusal
    assert requests.get(link, timeout=60).status_code == 403
    assert requests.get(cdn.url(hub.cdn_path), timeout=60).status_code == 403
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(hub.url, timeout=60)
    assert requests.get(hub.url, timeout=60).content == DATA


def test_hub_link_may_be_good_for_one_request_only(server: FileServer, cdn: FileServer) -> None:
    hub = Hub(server, cdn, "/m", DATA, uses=1)
    link = requests.get(hub.url, timeout=60).url
    assert requests.get(link, timeout=60).status_code == 403
    assert requests.get(hub.url, timeout=60).content == DATA
