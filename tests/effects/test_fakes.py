"""The fakes are what they claim to be: else every test that uses them proves nothing."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.fakes.behaviour import Behaviour, Crash
from tests.fakes.engine_args import Refused, is_server, parse, with_stored
from tests.fakes.hub import Hub
from tests.fakes.llamafile import MAGIC, VARIABLE, build, build_exe, build_gguf, gguf
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

DATA = hashlib.shake_128(b"file").digest(300_000)
OTHER = DATA[::-1]
LENGTH, RANGE = "Content-Length", "Content-Range"
FOUND = b"Found. Redirecting to /else\n"
FILE = "/dir/mödel.llamafile"
posix = pytest.mark.skipif(os.name == "nt", reason="an APE runs through /bin/sh on POSIX only")

Answer = tuple[int, http.client.HTTPMessage, bytes, bool]  # status, headers, body, is it whole?


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


def ask(server: FileServer, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    connection.request(method, server.url(FILE).split(str(server.port))[1], headers=names)
    response = connection.getresponse()
    try:
        body, whole = response.read(), True
    except http.client.IncompleteRead as error:
        body, whole = error.partial, False
    connection.close()
    return response.status, response.headers, body, whole


def until(done: Callable[[], Any], what: str, timeout_s: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := done()):
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.01)
    return result


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
    assert requests.get(server.url("/none"), timeout=5).status_code == 404


def test_connection_is_kept_alive(server: FileServer) -> None:
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.url(FILE), timeout=5)
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
    thread.join(10)
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
    server.script(FILE, Slow(600_000))
    start = time.monotonic()
    assert ask(server)[2] == DATA
    assert time.monotonic() - start > 0.3
    start = time.monotonic()
    assert ask(server)[2] == DATA
    assert time.monotonic() - start < 0.3


def test_a_rate_that_connections_share(server: FileServer) -> None:
    server.set_rate(FILE, 600_000, shared=True)
    start = time.monotonic()
    threads = [threading.Thread(target=ask, args=(server,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
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
    server.set_rate(FILE, 100_000)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(ask(server)[2]))
    started = time.monotonic()
    thread.start()
    server.wait_sent(FILE, 30_000)
    assert time.monotonic() - started > 0.2
    server.set_rate(FILE, None)
    thread.join(5)
    assert got == [DATA]
    assert time.monotonic() - started < 2.5


def test_client_that_leaves_is_no_error_and_its_bytes_are_counted(server: FileServer) -> None:
    server.set_rate(FILE, 200_000)
    client = requests.get(server.url(FILE), stream=True, timeout=5)
    server.wait_sent(FILE, 20_000)
    client.close()
    server.set_rate(FILE, None)
    assert ask(server)[2] == DATA
    assert server.errors == []


@pytest.mark.parametrize("fault", [Stall(1000, 60), Hangup(60)], ids=repr)
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
    assert time.monotonic() - started < 1
    for client in clients:
        client.settimeout(2)
        while client.recv(65536):
            pass
        client.close()


def test_slow_bodies_run_side_by_side(server: FileServer) -> None:
    server.always(FILE, Stall(1000, 0.3))
    started = time.monotonic()
    threads = [threading.Thread(target=ask, args=(server,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 1.5
    assert server.bytes_sent(FILE) == 8000


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_server_is_trusted_only_with_its_certificate(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    with FileServer(tls=(cert, key)) as server:
        server.files[FILE] = DATA
        server.script(FILE, Honest(), Drop(1000), Stall(1000, 60))
        assert server.url(FILE).startswith("https://127.0.0.1:")
        with requests.Session() as session:
            session.trust_env = False  # REQUESTS_CA_BUNDLE would win over verify
            assert session.get(server.url(FILE), verify=str(cert), timeout=5).content == DATA
            with pytest.raises(requests.exceptions.SSLError):
                session.get(server.url(FILE), timeout=5)
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                assert session.get(server.url(FILE), verify=str(cert), timeout=5).content == b""
            session.get(server.url(FILE), verify=str(cert), timeout=5, stream=True)
            started = time.monotonic()
            server.close()
            assert time.monotonic() - started < 1


# The Hub


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    with FileServer() as cdn:
        yield cdn


def test_hub_describes_the_file_and_redirects(server: FileServer, cdn: FileServer) -> None:
    hub = Hub(server, cdn, "/o/r/resolve/main/m.llamafile", DATA)
    head = requests.head(hub.url, timeout=5, allow_redirects=False)
    assert head.status_code == 302
    assert head.headers["x-linked-etag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert head.headers["x-linked-size"] == "300000"
    assert head.headers["x-repo-commit"] == hub.commit
    assert head.headers["content-length"] != "300000"
    got = requests.get(hub.url, timeout=5, headers={"Range": "bytes=5-9", "Authorization": "Bearer t"})
    assert got.content == DATA[5:10]
    assert server.requests[-1].headers["Authorization"] == "Bearer t"
    assert cdn.requests[-1].headers["Authorization"] is None


def test_hub_link_expires_on_command(server: FileServer, cdn: FileServer) -> None:
    hub = Hub(server, cdn, "/m", DATA)
    link = requests.get(hub.url, timeout=5).url
    assert requests.get(link, timeout=5).content == DATA
    hub.expire()
    cdn.script(hub.cdn_path, Drop(10))  # not consumed by the refusal
    assert requests.get(link, timeout=5).status_code == 403
    assert requests.get(cdn.url(hub.cdn_path), timeout=5).status_code == 403
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(hub.url, timeout=5)
    assert requests.get(hub.url, timeout=5).content == DATA


def test_hub_link_may_be_good_for_one_request_only(server: FileServer, cdn: FileServer) -> None:
    hub = Hub(server, cdn, "/m", DATA, uses=1)
    link = requests.get(hub.url, timeout=5).url
    assert requests.get(link, timeout=5).status_code == 403
    assert requests.get(hub.url, timeout=5).content == DATA


# The llamafile: a file


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A directory whose name is hard on shells."""
    path = tmp_path / "a dir with 'quotes' & ünï"
    path.mkdir()
    return path


def sh(path: Path, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    shell = sys.executable if os.name == "nt" else "/bin/sh"
    kwargs = {"capture_output": True, "text": True, "timeout": 20, "cwd": path.parent, **kwargs}
    return subprocess.run([shell, str(path), *args], check=False, **kwargs)


@posix
@pytest.mark.parametrize("make", [build, build_exe])
def test_kernel_refuses_it_even_when_executable(make: Callable[[Path], Path], odd: Path) -> None:
    path = make(odd / "m.llamafile")
    path.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error") as caught:
        subprocess.run([str(path), "--version"], check=False)
    assert caught.value.errno == 8
    assert path.read_bytes().startswith(MAGIC + b"\n")


@posix
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "busybox", "zsh", "ksh"])
def test_shells_run_it(shell: str, odd: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    path = build(odd / "m x.llamafile")
    command = [shell, *(["sh"] if shell == "busybox" else []), str(path), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert (done.stdout, done.stderr) == ("llamafile v0.8.6\n", "")


@posix
def test_name_without_slash_is_not_found(odd: Path) -> None:
    build(odd / "m")
    done = subprocess.run(["sh", "m"], cwd=odd, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "ape error" in done.stderr


def test_python_runs_it_without_a_shell(odd: Path) -> None:
    path = build(odd / "m.exe", version="0.9.3")
    command = [sys.executable, str(path), "--version"]
    assert subprocess.check_output(command, text=True).strip() == "llamafile v0.9.3"


def test_it_is_a_zip_with_a_stored_aligned_model(tmp_path: Path) -> None:
    path = build(tmp_path / "m", args=["-c", "99"], pad=1000)
    assert zipfile.is_zipfile(path)
    with zipfile.ZipFile(path) as box:
        assert box.testzip() is None
        assert box.read(".args") == b"-m\nmodel.gguf\n-c\n99\n...\n"
        info = box.getinfo("model.gguf")
    assert (info.compress_type, info.file_size) == (zipfile.ZIP_STORED, 1024)
    start = info.header_offset + 30 + len("model.gguf")
    assert start % 65536 == 0
    magic, version, tensors, keys = struct.unpack("<4sIQQ", path.read_bytes()[start : start + 24])
    assert (magic, version, tensors, keys) == (b"GGUF", 3, 0, 0)


def test_same_arguments_build_the_same_bytes_and_pad_grows_them(tmp_path: Path) -> None:
    one, two = build(tmp_path / "1", pad=5000), build(tmp_path / "2", pad=5000)
    assert one.read_bytes() == two.read_bytes()
    assert build(tmp_path / "3").stat().st_size == one.stat().st_size - 5000
    with zipfile.ZipFile(build_exe(tmp_path / "4", pad=9)) as box:
        assert not [name for name in box.namelist() if name.endswith(".gguf")]


def test_gguf_has_the_size_asked_for(tmp_path: Path) -> None:
    data = build_gguf(tmp_path / "m.gguf", size=5000).read_bytes()
    assert (len(data), data[:4]) == (5000, b"GGUF")


# The llamafile: a command line


def test_arguments_follow_the_version() -> None:
    assert parse(["-c", "1", "-c", "2", "--nobrowser"], "0.9.3")["--ctx-size"] == "2"
    assert parse(["-ngl", "all", "--gpu", "vulkan"], "0.10.0")["--gpu-layers"] == "all"
    for argv, version in [
        (["--nobrowser"], "0.10.0"),
        (["--port=1"], "0.8.6"),
        (["--port", "x"], "0.8.6"),
        (["--port"], "0.8.6"),
        (["-ngl", "all"], "0.9.3"),
        (["--gpu", "vulkan"], "0.9.3"),
    ]:
        with pytest.raises(Refused, match=r"^error: "):
            parse(argv, version)


def test_stored_arguments_come_where_the_dots_say() -> None:
    assert with_stored(["a", "...", "b"], ["x", "y"]) == ["a", "x", "y", "b"]
    assert with_stored(["a"], ["x"]) == ["a", "x"]


@pytest.mark.parametrize(
    ("version", "user", "stored", "serves"),
    [
        ("0.8.6", [], [], True),
        ("0.8.14", [], [], False),
        ("0.8.14", [], ["--server"], True),
        ("0.9.3", [], ["--server"], False),
        ("0.9.3", ["--server"], [], True),
        ("0.10.0", [], ["--server"], True),
        ("0.10.0", [], [], False),
    ],
)
def test_server_mode_follows_the_version(
    version: str, user: list[str], stored: list[str], serves: bool
) -> None:
    assert is_server(version, user, with_stored(stored, user)) is serves


def test_terminal_chat_ends_with_its_input(tmp_path: Path) -> None:
    assert sh(build(tmp_path / "m", version="0.9.3"), stdin=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("behaviour", "status", "out", "err"),
    [
        ({}, 0, "llamafile v0.10.5\n", ""),
        ({"version": "0.10.6"}, 0, "llamafile v0.10.6\n", ""),
        ({"version_status": 3, "version_text": "no AVX"}, 3, "", "no AVX\n"),
        pytest.param({"version_status": -4}, -4, "", "", marks=posix),
    ],
)
def test_version(tmp_path: Path, behaviour: Behaviour, status: int, out: str, err: str) -> None:
    done = sh(build_exe(tmp_path / "exe", behaviour=behaviour), "--version")
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_environment_overrides_the_stored_behaviour(tmp_path: Path) -> None:
    path = build(tmp_path / "m", behaviour={"version_status": 3})
    env = {**os.environ, VARIABLE: '{"version_status": 0, "version": "0.9.1"}'}
    assert sh(path, "--version", env=env).stdout == "llamafile v0.9.1\n"


def test_unknown_behaviour_is_an_error_of_the_test(tmp_path: Path) -> None:
    misspelt: Any = {"crash": {"exit": 1}}
    with pytest.raises(ValueError, match="exit"):
        build(tmp_path / "m", behaviour=misspelt)


def test_version_can_hang(tmp_path: Path) -> None:
    path = build(tmp_path / "m", behaviour={"version_hang": True, "version_text": "hanging"})
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, str(path), "--version"], stderr=log)
    try:
        until((tmp_path / "log").read_text, "a sign of life")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    finally:
        process.kill()
        process.wait()


def test_each_run_is_written_down(tmp_path: Path) -> None:
    record, history = tmp_path / "record", tmp_path / "history"
    path = build(tmp_path / "m", behaviour={"record": str(record), "history": str(history)})
    noted = {"LLAMA_API_KEY": "k", "LLAMAFILE_RECIPE_RUN": "r 1"}
    sh(path, "--version", "a b", env={**os.environ, **noted, "OTHER": "x"})
    sh(path, "--version", "ü", env={k: v for k, v in os.environ.items() if k not in noted})
    assert json.loads(record.read_text()) == ["--version", "ü"]
    runs = [json.loads(line) for line in history.read_text().splitlines()]
    assert [run["argv"] for run in runs] == [["--version", "a b"], ["--version", "ü"]]
    assert runs[0]["cwd"] == str(tmp_path)
    assert [run["env"] for run in runs] == [noted, {}]


@pytest.mark.parametrize(
    ("version", "args", "text"),
    [
        ("0.10.5", ["--nobrowser"], "error: unknown argument: --nobrowser"),
        ("0.10.5", ["--server"], "error: missing required -m MODEL.gguf"),
        ("0.9.3", ["--server"], "error: unable to load model"),
        ("0.9.3", ["--server", "-m", "none.gguf"], "No such file or directory"),
        ("0.9.3", ["--server", "-m", "text"], "not a gguf or zip file"),
        ("0.9.3", ["--server", "-m", "a@b/m.gguf"], "failed to load model"),
        ("0.9.3", ["--server", "-m", "two.zip"], "multiple .gguf files found"),
        ("0.8.6", ["--api-key-file", "none"], "error: failed to open file 'none'"),
        ("0.10.5", ["--server", "--api-key-file", "none"], "error: failed to open file 'none'"),
    ],
)
def test_exe_refuses(tmp_path: Path, version: str, args: list[str], text: str) -> None:
    (tmp_path / "a@b").mkdir()
    build_gguf(tmp_path / "a@b" / "m.gguf")
    (tmp_path / "text").write_text("<html>")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as box:
        box.writestr("a.gguf", gguf())
        box.writestr("b.gguf", gguf())
    done = sh(build_exe(tmp_path / "exe", version=version), *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


# The llamafile: a process

Started = tuple[subprocess.Popen[bytes], str, Path]  # process, address, log
Start = Callable[..., Started]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def start(odd: Path) -> Iterator[Start]:
    """Start servers; whatever is left of them at the end is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path, *args: str, port: int | None = None, **env: str) -> Started:
        port, log = port or free_port(), odd / f"log{len(running)}"
        shell = "/bin/sh" if os.name != "nt" else sys.executable
        command = [shell, str(path), "--server", "--port", str(port), *args]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=odd, env=os.environ | env, stdout=file, stderr=file, start_new_session=True
            )
        running.append(process)
        return process, f"http://127.0.0.1:{port}", log

    yield start
    for process in running:
        process.kill()
        process.wait(5)


def health(url: str) -> tuple[int, Any]:
    try:
        answer = requests.get(f"{url}/health", timeout=5)
    except requests.ConnectionError:
        return 0, None
    return answer.status_code, answer.json()


def kill_group(group: int) -> None:
    if sys.platform != "win32":
        os.killpg(group, signal.SIGKILL)


def ready(url: str) -> None:
    until(lambda: health(url)[0] == 200, "200 from /health")


@posix
def test_the_shell_becomes_the_engine_without_a_new_process(start: Start, odd: Path) -> None:
    history = odd / "history"
    process, url, _ = start(build(odd / "m", behaviour={"history": str(history)}))
    ready(url)
    assert json.loads(history.read_text())["pid"] == process.pid


def test_old_engine_refuses_connections_while_it_loads(start: Start, odd: Path) -> None:
    record = odd / "record"
    mood: Behaviour = {"load_seconds": 0.5, "record": str(record)}
    _, url, log = start(build(odd / "m", version="0.9.3", behaviour=mood), "--nobrowser")
    until(record.exists, "the record")
    assert health(url) == (0, None)
    ready(url)
    assert health(url)[1] == {"status": "ok", "slots_idle": 1, "slots_processing": 0}
    until(lambda: f"llama server listening at {url}\n" in log.read_text(), "the line")
    assert url in (odd / "llama.log").read_text()
    assert json.loads(record.read_text())[:2] == ["--server", "--port"]


def test_new_engine_answers_503_while_it_loads(start: Start, odd: Path) -> None:
    path = build(odd / "m", version="0.10.5", behaviour={"load_seconds": 0.5})
    _, url, log = start(path)
    status, body = until(lambda: (h := health(url))[0] and h, "any answer")
    assert (status, body["error"]["message"]) == (503, "Loading model")
    assert requests.get(f"{url}/v1/models", timeout=5).status_code == 200
    assert requests.post(f"{url}/v1/chat/completions", timeout=5).status_code == 503
    ready(url)
    assert health(url)[1] == {"status": "ok"}
    until(lambda: f"server is listening on {url} " in log.read_text(), "the line")


def test_it_chats_and_checks_the_key(start: Start, odd: Path) -> None:
    exe, model = build_exe(odd / "exe"), build_gguf(odd / "small.gguf")
    _, url, _ = start(exe, "-m", str(model), "--api-key", "k", "--fancy-test-flag", "v")
    ready(url)
    assert requests.get(f"{url}/v1/models", timeout=5).json()["data"][0]["id"] == "small.gguf"
    body = {"messages": [{"role": "user", "content": "hello"}]}
    key = {"Authorization": "Bearer k"}
    chat = f"{url}/v1/chat/completions"
    assert requests.post(chat, json=body, timeout=5).status_code == 401
    answer = requests.post(chat, json=body, headers=key, timeout=5).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello"}
    assert requests.post(chat, data="{", headers=key, timeout=5).status_code == 400


def test_exe_serves_the_model_inside_another_llamafile(start: Start, odd: Path) -> None:
    inside = build(odd / "m.llamafile", args=["--port", "1"])  # its .args do not count
    _, url, _ = start(build_exe(odd / "exe"), "-m", str(inside))
    ready(url)
    assert requests.get(f"{url}/v1/models", timeout=5).json()["data"][0]["id"] == "model.gguf"


@posix
@pytest.mark.parametrize(
    ("version", "number", "status"),
    [("0.9.3", 2, 0), ("0.9.3", 15, -15), ("0.10.5", 2, 0), ("0.10.5", 15, 0)],
)
def test_signals(start: Start, odd: Path, version: str, number: int, status: int) -> None:
    process, url, _ = start(build(odd / "m", version=version))
    ready(url)
    process.send_signal(number)
    assert process.wait(5) == status


@posix
def test_old_engine_has_no_handler_while_it_loads(start: Start, odd: Path) -> None:
    record = odd / "record"
    mood: Behaviour = {"load_seconds": 60, "record": str(record)}
    process, _, _ = start(build(odd / "m", behaviour=mood))
    until(record.exists, "the record")
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == -signal.SIGINT


@posix
def test_stopping_can_take_time(start: Start, odd: Path) -> None:
    path = build(odd / "m", version="0.10.5", behaviour={"stop_seconds": 0.3})
    process, url, _ = start(path)
    ready(url)
    started = time.monotonic()
    process.terminate()
    assert process.wait(5) == 0
    assert time.monotonic() - started > 0.25


@posix
def test_signals_can_be_ignored(start: Start, odd: Path) -> None:
    mood: Behaviour = {"ignore_sigint": True, "ignore_sigterm": True}
    process, url, _ = start(build(odd / "m", version="0.10.5", behaviour=mood))
    ready(url)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert health(url)[0] == 200


@posix
@pytest.mark.parametrize(
    ("crash", "status"), [({"status": 7}, 7), ({"signal": 11}, -11), ({"after": 0.2}, 1)], ids=repr
)
def test_crash(start: Start, odd: Path, crash: Crash, status: int) -> None:
    mood: Behaviour = {"crash": {"text": "out of memory", **crash}}
    process, _, log = start(build(odd / "m", behaviour=mood))
    assert process.wait(5) == status
    assert "out of memory" in log.read_text()


@posix
def test_forked_child_outlives_its_parent_unless_the_group_is_stopped(start: Start, odd: Path) -> None:
    process, url, _ = start(build(odd / "m", behaviour={"fork": True}))
    try:
        ready(url)
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM
        assert health(url)[0] == 200
    finally:
        kill_group(process.pid)
    until(lambda: health(url)[0] == 0, "the end of the group")


def server_behind(path: Path, gone: int) -> psutil.Process | None:
    """The process that runs this file, but for the one that left."""
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != gone and str(path) in (process.info["cmdline"] or []):
            return process
    return None


@posix
@pytest.mark.parametrize("key", ["leave", "leave_session"])
def test_starter_leaves_and_its_child_serves(start: Start, odd: Path, key: str) -> None:
    mood: Any = {key: True, "load_seconds": 0.1}
    path = build(odd / "m", behaviour=mood)
    process, url, _ = start(path)
    child = None
    try:
        assert process.wait(5) == 0
        ready(url)
        child = server_behind(path, process.pid)
        assert child is not None
        groups = (os.getpgid(child.pid), os.getsid(child.pid))
        assert groups == ((child.pid,) * 2 if key == "leave_session" else (process.pid,) * 2)
    finally:
        if child:
            child.kill()
        else:
            kill_group(process.pid)
    until(lambda: health(url)[0] == 0, "the end of the child")


@pytest.mark.parametrize(("version", "hops"), [("0.9.3", True), ("0.10.5", False)])
def test_busy_port(start: Start, odd: Path, version: str, hops: bool) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port: int = busy.getsockname()[1]
        process, _, log = start(build(odd / "m", version=version), port=port)
        if hops:
            until(lambda: "listening at http://127.0.0.1:" in log.read_text(), "the line")
            url = log.read_text().split("listening at ")[1].split()[0]
            assert port < int(url.rpartition(":")[2]) <= port + 10
            assert health(url)[0] == 200
        else:
            assert process.wait(5) == 1
            assert "couldn't bind HTTP server socket" in log.read_text()


@pytest.mark.parametrize(
    ("version", "behaviour", "status"),
    [
        ("0.9.3", {"silent": True}, 0),
        ("0.10.5", {"silent": True}, 503),
        ("0.10.5", {"health_status": 500}, 500),
    ],
)
def test_it_may_never_become_ready(
    start: Start, odd: Path, version: str, behaviour: Behaviour, status: int
) -> None:
    record = odd / "record"
    process, url, _ = start(build(odd / "m", version=version, behaviour={**behaviour, "record": str(record)}))
    until(record.exists, "the record")
    until(lambda: health(url)[0] == status, f"{status} from /health")
    assert process.poll() is None


def test_old_engine_gives_up_after_ten_hops(start: Start, odd: Path) -> None:
    path = build(odd / "m", version="0.9.3")
    with contextlib.ExitStack() as stack:
        port = busy_row(stack, 11)
        process, _, log = start(path, port=port)
        assert process.wait(5) == 1
        assert f"couldn't bind to server socket: hostname=127.0.0.1 port={port + 10}\n" in log.read_text()
    with contextlib.ExitStack() as stack:
        port = busy_row(stack, 10)
        _, _, log = start(path, port=port)
        until(
            lambda: f"llama server listening at http://127.0.0.1:{port + 10}\n" in log.read_text(), "the line"
        )
        ready(f"http://127.0.0.1:{port + 10}")


def busy_row(stack: contextlib.ExitStack, count: int) -> int:
    """Take so many ports in a row, with one free behind them; the first."""
    for _ in range(100):
        first = free_port()
        with contextlib.ExitStack() as row, contextlib.suppress(OSError):
            for port in range(first, first + count):
                listener = row.enter_context(socket.socket())
                listener.bind(("127.0.0.1", port))
                listener.listen()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", first + count))
            stack.enter_context(row.pop_all())
            return first
    raise AssertionError("no ports in a row")


@pytest.mark.parametrize("version", ["0.9.3", "0.10.5"])
def test_it_says_what_it_is_told_while_it_loads(start: Start, odd: Path, version: str) -> None:
    lines = ["llm_load_tensors: offloaded 0/33 layers to GPU", "ünï"]
    mood: Behaviour = {"say": lines, "silent": True}
    _, _, log = start(build(odd / "m", version=version, behaviour=mood))
    until(lambda: log.read_text() == "".join(f"{line}\n" for line in lines), "the lines")


def test_chatter_at_once_is_whole_and_quick(start: Start, odd: Path) -> None:
    size = 30_000_050
    _, url, log = start(build(odd / "m", version="0.10.5", behaviour={"chatter_bytes": size}))
    ready(url)
    began = time.monotonic()
    until(lambda: log.stat().st_size > size, "the bytes")
    assert time.monotonic() - began < 5  # tens of MB/s
    time.sleep(0.1)
    head, _, rest = log.read_bytes().partition(b"loop\n")
    assert b"server is listening" in head
    assert len(rest) == size
    lines = rest.splitlines()
    assert [int(line[:10]) for line in lines[:-1]] == list(range(1, len(lines)))
    assert {len(line) for line in lines[:-1]} == {99}
    assert health(url)[0] == 200


def test_chatter_goes_on(start: Start, odd: Path) -> None:
    _, url, log = start(build(odd / "m", version="0.10.5", behaviour={"chatter": 2_000_000}))
    ready(url)
    until(lambda: log.stat().st_size > 100_000, "some chatter")
    began, before = time.monotonic(), log.stat().st_size
    time.sleep(0.5)
    rate = (log.stat().st_size - before) / (time.monotonic() - began)
    assert 500_000 < rate < 8_000_000


@posix
def test_chatter_that_nobody_reads_kills_nobody(odd: Path) -> None:
    port = free_port()
    mood: Behaviour = {"chatter": 100_000}
    command = [
        "/bin/sh",
        str(build(odd / "m", version="0.10.5", behaviour=mood)),
        "--server",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, cwd=odd, stderr=subprocess.PIPE)
    try:
        ready(f"http://127.0.0.1:{port}")
        assert process.stderr
        process.stderr.close()
        time.sleep(0.2)
        assert health(f"http://127.0.0.1:{port}")[0] == 200
    finally:
        process.kill()
        process.wait(5)


# The llamafile: its answers

BOTH = pytest.mark.parametrize("version", ["0.9.3", "0.10.5"])
WORDS = "one two,  three\nfour ünï"
CHAT, COMPLETION = "/v1/chat/completions", "/completion"


def ask_chat(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": text}], **more}


def events(answer: requests.Response) -> list[Any]:
    """The events of a stream; strings where they are no JSON."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    text = answer.content.decode()
    assert text.endswith("\n\n")
    events = text[:-2].split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


def deltas(found: list[Any]) -> list[tuple[dict[str, Any], str | None]]:
    choices = [event["choices"][0] for event in found if event != "[DONE]" and event["choices"]]
    return [(choice["delta"], choice["finish_reason"]) for choice in choices]


@BOTH
def test_chat_streams_its_words(start: Start, odd: Path, version: str) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"answer": WORDS}))
    ready(url)
    found = events(requests.post(f"{url}{CHAT}", json=ask_chat(stream=True), timeout=5))
    assert [event["object"] for event in found if event != "[DONE]"] == ["chat.completion.chunk"] * 7
    first, *words, last = deltas(found)
    role = {"role": "assistant"} if version == "0.9.3" else {"role": "assistant", "content": None}
    assert (first, last) == ((role, None), ({}, "stop"))
    assert [delta["content"] for delta, _ in words] == ["one", " two,", "  three", "\nfour", " ünï"]
    assert ("[DONE]" in found) == (version == "0.10.5")  # the old server only ends the body
    body = ask_chat(stream=True, max_tokens=2, stream_options={"include_usage": True})
    found = events(requests.post(f"{url}{CHAT}", json=body, timeout=5))
    assert [delta.get("content") for delta, _ in deltas(found)[1:]] == ["one", " two,", None]
    assert deltas(found)[-1] == ({}, "length")
    if version == "0.10.5":
        assert found[-2]["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
        assert found[-1] == "[DONE]"


@BOTH
def test_completion_answers_whole_and_streamed(start: Start, odd: Path, version: str) -> None:
    _, url, _ = start(build(odd / "m", version=version))
    ready(url)
    body = {"prompt": "a b c", "n_predict": 2}
    answer = requests.post(f"{url}{COMPLETION}", json=body, timeout=5).json()
    assert (answer["content"], answer["stop"], answer["tokens_predicted"]) == ("a b", True, 2)
    assert answer.get("stopped_limit", answer.get("stop_type")) == (version == "0.9.3" or "limit")
    found = events(requests.post(f"{url}{COMPLETION}", json={**body, "stream": True}, timeout=5))
    assert [(event["content"], event["stop"]) for event in found] == [("a", False), (" b", False), ("", True)]
    answer = requests.post(f"{url}{COMPLETION}", json={"prompt": "a b c"}, timeout=5).json()
    assert answer["content"] == "a b c"
    assert answer.get("stopped_eos", answer.get("stop_type")) == (version == "0.9.3" or "eos")


@pytest.mark.parametrize(("version", "given"), [("0.9.3", "1 2"), ("0.10.5", "1 2 3")])
def test_n_predict_is_a_cap_before_0_10_and_a_default_since(
    start: Start, odd: Path, version: str, given: str
) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"answer": "1 2 3 4"}), "-n", "2")
    ready(url)
    for body, text in [(ask_chat(), "1 2"), (ask_chat(max_tokens=3), given), (ask_chat(max_tokens=1), "1")]:
        answer = requests.post(f"{url}{CHAT}", json=body, timeout=5).json()
        assert answer["choices"][0]["message"]["content"] == text
        assert answer["choices"][0]["finish_reason"] == "length"


def test_an_answer_may_be_empty(start: Start, odd: Path) -> None:
    _, url, _ = start(build(odd / "m", version="0.10.5", behaviour={"answer": ""}))
    ready(url)
    found = events(requests.post(f"{url}{CHAT}", json=ask_chat(stream=True), timeout=5))
    assert [reason for _, reason in deltas(found)] == [None, "stop"]
    answer = requests.post(f"{url}{CHAT}", json=ask_chat(), timeout=5).json()
    assert answer["choices"][0]["message"]["content"] == ""


def test_tokens_take_their_time(start: Start, odd: Path) -> None:
    mood: Behaviour = {"answer": "a b c", "token_seconds": 0.1}
    _, url, _ = start(build(odd / "m", version="0.10.5", behaviour=mood))
    ready(url)
    with requests.post(f"{url}{CHAT}", json=ask_chat(stream=True), stream=True, timeout=5) as answer:
        seen = [time.monotonic() for line in answer.iter_lines(chunk_size=1) if b'"content": "' in line]
    assert len(seen) == 3
    assert seen[-1] - seen[0] > 0.15


def busy_slots(url: str) -> int:
    slots = requests.get(f"{url}/slots", timeout=5).json()
    return sum(bool(slot.get("is_processing", slot.get("state"))) for slot in slots)


def wait_busy(url: str, count: int) -> None:
    until(lambda: busy_slots(url) == count, f"{count} busy slots")


def leave_early(url: str, body: dict[str, Any], wait_for: bytes = b"") -> None:
    """Ask, see the slot taken (and these bytes come), and hang up."""
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(head.encode() + data)
        wait_busy(url, 1)
        got = b""
        while wait_for not in got:
            got += client.recv(65536)


@BOTH
def test_client_that_leaves_ends_its_request(start: Start, odd: Path, version: str) -> None:
    mood: Behaviour = {"answer": "word " * 1000, "token_seconds": 0.02}
    _, url, _ = start(build(odd / "m", version=version, behaviour=mood))
    ready(url)
    leave_early(url, ask_chat(stream=True), b'"content": " word"')
    wait_busy(url, 0)
    leave_early(url, ask_chat())
    if version == "0.10.5":
        wait_busy(url, 0)
    else:  # it generates to the end for nobody
        time.sleep(0.3)
        assert busy_slots(url) == 1


@BOTH
def test_slots_and_health_count_what_is_in_flight(start: Start, odd: Path, version: str) -> None:
    mood: Behaviour = {"answer": "a b", "token_seconds": 1}
    _, url, _ = start(build(odd / "m", version=version, behaviour=mood), "--parallel", "2")
    ready(url)
    slots = requests.get(f"{url}/slots", timeout=5).json()
    key, idle, busy = ("state", 0, 1) if version == "0.9.3" else ("is_processing", False, True)
    assert [(slot["id"], slot[key]) for slot in slots] == [(0, idle), (1, idle)]
    threads = []
    for count in (1, 2, 3):  # the third waits for a slot
        body = ask_chat(stream=count == 1)
        threads.append(
            threading.Thread(
                target=requests.post, args=(f"{url}{CHAT}",), kwargs={"json": body, "timeout": 9}
            )
        )
        threads[-1].start()
        wait_busy(url, min(count, 2))
        slots = requests.get(f"{url}/slots", timeout=5).json()
        assert [slot[key] for slot in slots] == [busy, busy if count > 1 else idle]
        if version == "0.9.3":
            status = "ok" if count == 1 else "no slot available"
            counts = {"slots_idle": max(0, 2 - count), "slots_processing": min(2, count)}
            assert health(url) == (200, {"status": status, **counts})
        else:
            assert health(url) == (200, {"status": "ok"})
    for thread in threads:
        thread.join()
    assert busy_slots(url) == 0


def test_default_slots(start: Start, odd: Path) -> None:
    for version, count in [("0.8.6", 1), ("0.10.5", 4)]:
        _, url, _ = start(build(odd / version, version=version))
        ready(url)
        assert len(requests.get(f"{url}/slots", timeout=5).json()) == count


@BOTH
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_chat_can_fail_while_health_is_well(start: Start, odd: Path, version: str, path: str) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"chat_status": 500}))
    ready(url)
    answer = requests.post(f"{url}{path}", json={**ask_chat(stream=True), "prompt": "p"}, timeout=5)
    assert answer.status_code == 500
    if version == "0.9.3":
        assert answer.text.startswith("500 Internal Server Error\n")
    else:
        assert (answer.json()["error"]["code"], answer.json()["error"]["type"]) == (500, "server_error")
    assert health(url)[0] == 200


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_chat_can_hang(start: Start, odd: Path, version: str, stream: bool) -> None:
    _, url, _ = start(build(odd / "m", version=version, behaviour={"chat_hang": True}))
    ready(url)
    # Of another class when the body is late: the old server sends the head of a stream at once.
    with pytest.raises(requests.RequestException, match="timed out") as caught:
        requests.post(f"{url}{CHAT}", json=ask_chat(stream=stream), timeout=0.5)
    assert isinstance(caught.value, requests.Timeout) != (stream and version == "0.9.3")
    assert health(url)[0] == 200
    if version == "0.10.5":
        wait_busy(url, 0)
    else:
        assert busy_slots(url) == 1


@BOTH
@pytest.mark.parametrize("way", ["flag", "file", "environment"])
def test_ways_to_give_a_key(start: Start, odd: Path, version: str, way: str) -> None:
    (odd / "keys").write_text("other key\n\nsecret-key\n")
    args = {"flag": ["--api-key", "secret-key"], "file": ["--api-key-file", "keys"]}.get(way, [])
    env = {"LLAMA_API_KEY": "secret-key"} if way == "environment" else {}
    old = version == "0.9.3"
    _, url, log = start(build(odd / "m", version=version), *args, **env)
    ready(url)

    def status(path: str, key: str | None = None, name: str = "Authorization") -> int:
        headers = {name: key} if key else {}
        if path in (CHAT, COMPLETION):
            body = {**ask_chat(), "prompt": "p"}
            return requests.post(url + path, json=body, headers=headers, timeout=5).status_code
        return requests.get(url + path, headers=headers, timeout=5).status_code

    shut = 200 if old and way == "environment" else 401  # the old server knows no such variable
    assert [status("/health"), status("/v1/models"), status("/")] == [200, 200, 200]
    assert [status(CHAT), status(COMPLETION), status(CHAT, "Bearer nope")] == [shut] * 3
    assert status("/slots") == (200 if old else 401)
    for path in (CHAT, COMPLETION, "/slots"):
        assert status(path, "Bearer secret-key") == 200
    assert status(CHAT, "secret-key", "X-Api-Key") == (shut if old else 200)
    assert "secret" not in log.read_text()
    if way == "flag":
        assert "api_key: ****-key" in log.read_text() or "api_keys: ****-key" in log.read_text()


def test_what_is_said_of_a_wrong_key_and_path(start: Start, odd: Path) -> None:
    _, url, _ = start(build(odd / "new", version="0.10.5"), "--api-key", "secret-key")
    ready(url)
    error = {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}
    assert requests.get(f"{url}/slots", timeout=5).json() == {"error": error}
    assert requests.get(f"{url}/none", timeout=5).status_code == 401
    _, url, _ = start(build(odd / "old", version="0.9.3"), "--api-key", "secret-key")
    ready(url)
    assert requests.post(f"{url}{CHAT}", json=ask_chat(), timeout=5).text == "Unauthorized"
    assert requests.get(f"{url}/none", timeout=5).text == "File Not Found"


def test_openai_client_reads_the_stream(start: Start, odd: Path) -> None:
    openai = pytest.importorskip("openai")
    for version in ("0.9.3", "0.10.5"):
        _, url, _ = start(build(odd / version, version=version, behaviour={"answer": WORDS}))
        ready(url)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(model="m", messages=ask_chat()["messages"], stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == WORDS
