"""The transfer engine against a real server: connections, TLS, limits, SIGKILL, many processes at once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tasks.system.paths import temporary_key

from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer
from tests.support.nginx import LATER, Nginx, Served, needs_nginx, own_ca
from tests.support.partials import claim, wait_until
from tests.support.project import Project, Running

MIB = 1024**2
NAME = "m.llamafile"
PATH = f"/{NAME}"
SIZE = 80 * MIB  # several connections from 64 MiB on
LOST = 12 * MIB  # what SIGKILL may cost: some MiB that nobody has claimed yet, and what is in sockets

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture(scope="module")
def data() -> bytes:
    """A file that is large enough for several connections."""
    return noise(b"large", SIZE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Path:
    """The folder that nginx serves."""
    folder = tmp_path_factory.mktemp("files")
    (folder / NAME).write_bytes(data)
    return folder


@pytest.fixture
def serve(tmp_path: Path, files: Path) -> Iterator[Callable[..., Nginx]]:
    """Start nginx with these directives."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(Nginx(tmp_path / "nginx", files, *args))


def prepare(project: Project, nginx: Nginx, data: bytes) -> Path:
    """Make the file the only model; where it will be."""
    project.catalogue({"m": project.entry(nginx.url(PATH), data)})
    return project.target(data, NAME)


def assert_whole(target: Path, data: bytes) -> None:
    """The download is there, and nothing beside it."""
    assert target.read_bytes() == data
    assert sorted(path.name for path in target.parent.iterdir()) == [NAME, f"{NAME}.stamp.json"]


def bytes_of(served: list[Served]) -> int:
    """Bytes of the file that went over the network."""
    return sum(one.sent for one in served if one.status in (200, 206))


# Connections


@needs_nginx
def test_several_connections_where_one_is_slow(
    project: Project, serve: Callable[..., Nginx], data: bytes
) -> None:
    """Issue 3.1: ranges side by side; each byte once, but for what lay in sockets."""
    nginx = serve("limit_rate 10m;")
    target = prepare(project, nginx, data)
    result = project.doit("download")
    assert result.status == 0, result.err
    assert re.search(r"^m: 83\.9 MB in .* from 127\.0\.0\.1, sha256 verified$", result.err, re.MULTILINE)
    assert_whole(target, data)
    served = nginx.served(PATH)
    assert {(one.status, bool(one.range)) for one in served} == {(206, True)}
    assert len(served) >= 3
    assert SIZE <= bytes_of(served) <= 1.1 * SIZE
    seconds = re.search(r"MB in ([\d.]+) s \(", result.err)
    assert seconds
    assert float(seconds[1]) < 0.8 * SIZE / (10 * MIB)


@needs_nginx
def test_one_connection_where_one_is_fast(project: Project, serve: Callable[..., Nginx], data: bytes) -> None:
    """Issue 3.1: what one connection brings in a moment needs few requests, and hardly a byte twice.

    How few, and whether a stopped connection had data in its socket, depends on how busy this machine is; no
    piece is smaller than 4 MiB but the last.
    """
    nginx = serve()
    target = prepare(project, nginx, data)
    assert project.doit("download").status == 0
    assert_whole(target, data)
    served = nginx.served(PATH)
    assert [one.status for one in served] == [206] * len(served)
    assert len(served) <= SIZE // (4 * MIB) + 1
    assert SIZE <= bytes_of(served) <= 1.1 * SIZE


@needs_nginx
@pytest.mark.parametrize(
    ("directives", "refusal"),
    [
        pytest.param("limit_conn connections 1; limit_rate 30m;", 503, id="one connection"),
        pytest.param("limit_req zone=requests; limit_rate 30m;", 503, id="one request a second"),
        pytest.param(
            f"limit_req zone=requests; limit_req_status 429; {LATER} limit_rate 30m;", 429, id="429 to more"
        ),
        pytest.param("max_ranges 0; limit_rate 30m;", 200, id="no ranges"),
    ],
)
def test_a_server_that_allows_little(
    project: Project, serve: Callable[..., Nginx], data: bytes, directives: str, refusal: int
) -> None:
    """Issue 3.1: connections that are refused leave the work to the first one, which loses no byte."""
    nginx = serve(directives)
    target = prepare(project, nginx, data)
    result = project.doit("download")
    assert result.status == 0, result.err
    assert_whole(target, data)
    served = nginx.served(PATH)
    assert refusal in [one.status for one in served]
    assert len(served) < 10
    if refusal != 200:  # of a 200 to a range, a buffer is sent before it is given up
        assert SIZE <= bytes_of(served) <= 1.02 * SIZE


@needs_nginx
def test_a_server_that_is_busy(project: Project, serve: Callable[..., Nginx], data: bytes) -> None:
    """R19: 429 with Retry-After to the only request: waited for, and said."""
    nginx = serve(f"limit_conn connections 1; limit_conn_status 429; {LATER}")
    target = prepare(project, nginx, data)
    with socket.create_connection(("127.0.0.1", nginx.port)) as other:
        other.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        other.recv(1)  # the one connection is taken
        with project.start("download") as running:
            err = running.wait_for("HTTP 429 from 127.0.0.1; retrying in")
            other.close()
            result = running.finish()
    assert re.search(r"m: HTTP 429 from 127\.0\.0\.1; retrying in [12]\.\d s$", err, re.MULTILINE), err
    assert result.status == 0
    assert_whole(target, data)


# TLS


@needs_nginx
@needs_openssl
def test_a_companys_own_ca(
    project: Project, serve: Callable[..., Nginx], tmp_path: Path, data: bytes
) -> None:
    """R29: without the CA fatal at once, with the remedy; with it, several connections as ever."""
    ca, certificate = own_ca(tmp_path)
    nginx = serve("limit_rate 20m;", certificate)
    target = prepare(project, nginx, data)
    refused = project.doit("download")
    assert "retrying" not in refused.err
    assert refused.status == 1
    assert "the certificate is not trusted (" in refused.err
    assert "unable to get local issuer certificate" in refused.err
    assert "behind a company's proxy: REQUESTS_CA_BUNDLE=/path/of/its/ca.pem" in refused.err
    assert "retrying in" not in refused.err
    assert nginx.served(PATH) == []
    trusted = project.doit("download", env={"REQUESTS_CA_BUNDLE": str(ca)})
    assert trusted.status == 0, trusted.err
    assert_whole(target, data)
    served = nginx.served(PATH)
    assert len(served) >= 3
    assert bytes_of(served) <= 1.1 * SIZE


# SIGKILL (R18)


@posix
@needs_nginx
@pytest.mark.parametrize(
    ("rate", "kills"),
    [
        pytest.param("15m", (8 * MIB, 30 * MIB, 50 * MIB), id="several connections, three times"),
        pytest.param("100m", (1, 16 * MIB + 1), id="one fast connection, as soon as anything is claimed"),
    ],
)
def test_sigkill_costs_little(
    project: Project, serve: Callable[..., Nginx], data: bytes, rate: str, kills: tuple[int, ...]
) -> None:
    """Issue 3.3: however often it dies, the next run fetches the rest only."""
    nginx = serve(f"limit_rate {rate};")
    target = prepare(project, nginx, data)
    before = 0
    for count in kills:
        with project.start("download") as running:
            wait_until(lambda count=count: claim(target, data) >= count, f"a claim of {count} bytes")  # type: ignore[misc]
            running.send(signal.SIGKILL)
            running.finish()
        assert before < claim(target, data) < SIZE
        before = claim(target, data)
        assert not target.exists()
    before_last = bytes_of(nginx.served(PATH))
    result = project.doit("download")
    assert result.status == 0, result.err
    assert "was here already, sha256 verified" in result.err
    assert_whole(target, data)
    total = bytes_of(nginx.served(PATH))
    assert total - before_last <= SIZE - before + 4 * MIB
    assert total <= SIZE + len(kills) * LOST


@posix
@needs_nginx
def test_sigkill_in_the_first_moments(project: Project, serve: Callable[..., Nginx], data: bytes) -> None:
    """Issue 3.3: 0.1 to 0.3 s after the connection was made, three times; no run loses what is claimed."""
    nginx = serve("limit_rate 100m;")
    target = prepare(project, nginx, data)
    claims = [0]
    for after_s in (0.1, 0.2, 0.3):
        with project.start("download") as running:
            wait_until(lambda: nginx.connections() > 0, "a connection")
            killed_at = time.monotonic() + after_s
            wait_until(lambda at=killed_at: time.monotonic() >= at, "the time to kill")  # type: ignore[misc]
            running.send(signal.SIGKILL)
            running.finish()
            wait_until(lambda: nginx.connections() == 0, "it noticed")
        claims.append(claim(target, data))
    assert claims == sorted(claims)
    assert 0 < claims[-1] < SIZE
    assert project.doit("download").status == 0
    assert_whole(target, data)
    assert bytes_of(nginx.served(PATH)) <= SIZE + 3 * LOST


@posix
@needs_nginx
def test_what_a_killed_process_leaves_is_removed(
    project: Project, serve: Callable[..., Nginx], data: bytes
) -> None:
    """R20: killed while it writes a journal; the run that succeeds leaves the model and its stamp alone."""
    nginx = serve("limit_rate 10m;")
    target = prepare(project, nginx, data)

    def is_writing() -> bool:
        names = os.listdir(target.parent) if target.parent.exists() else []
        return any(name.startswith(temporary_key(f"{NAME}.partial.json")) for name in names)

    with project.start("download") as running:
        deadline = time.monotonic() + 20
        while not is_writing():
            if time.monotonic() > deadline:
                pytest.skip("it is never seen writing a temporary file")
        running.send(signal.SIGKILL)
        running.finish()
    assert project.doit("download").status == 0
    assert_whole(target, data)


# Many processes

# Bytes a second of all connections together: while the others start, and then. At full speed the sockets of
# this machine hold megabytes, which count as sent when a connection gives way to another.
SLOW, PACE = 500_000.0, 20_000_000.0


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


def start_all(stack: ExitStack, project: Project, count: int) -> tuple[Running, list[Running]]:
    """Start that many downloads of one model: the one that fetches, and those that wait for it."""
    running = [stack.enter_context(project.start("download:m")) for _ in range(count)]

    def waiting() -> list[Running]:
        return [one for one in running if "another process is downloading m; waiting for it" in one.err]

    wait_until(lambda: len(waiting()) == count - 1, "all but one wait", 60)
    holder = next(one for one in running if one not in waiting())
    return holder, waiting()


def test_eight_at_once_download_once(project: Project, server: FileServer, data: bytes) -> None:
    """Issue 3.6: one fetches, seven say that they wait, and all succeed."""
    server.files[PATH] = data
    server.set_rate(PATH, SLOW, shared=True)
    project.catalogue({"m": project.entry(server.url(PATH), data)})
    with ExitStack() as stack:
        holder, others = start_all(stack, project, 8)
        server.set_rate(PATH, PACE, shared=True)
        first = holder.finish()
        results = [other.finish() for other in others]
    assert (first.status, {result.status for result in results}) == (0, {0})
    assert "83.9 MB in" in first.err
    assert all("m was downloaded by another process" in result.err for result in results)
    assert SIZE <= server.bytes_sent(PATH) <= 1.02 * SIZE
    assert_whole(project.target(data, NAME), data)


@posix
def test_the_next_goes_on_where_the_holder_died(project: Project, server: FileServer, data: bytes) -> None:
    """Issue 3.6: SIGKILL of the one that fetches; of those that wait, one goes on with its bytes."""
    server.files[PATH] = data
    server.set_rate(PATH, SLOW, shared=True)
    project.catalogue({"m": project.entry(server.url(PATH), data)})
    target = project.target(data, NAME)
    with ExitStack() as stack:
        holder, others = start_all(stack, project, 4)
        server.set_rate(PATH, 12_000_000, shared=True)
        wait_until(lambda: claim(target, data) >= 10 * MIB, "a claim")
        holder.send(signal.SIGKILL)
        holder.finish()
        server.set_rate(PATH, None)
        results = [other.finish() for other in others]
    assert [result.status for result in results] == [0, 0, 0]
    heirs = [result for result in results if "was here already, sha256 verified" in result.err]
    assert len(heirs) == 1
    assert sum("m was downloaded by another process" in result.err for result in results) == 2
    assert server.bytes_sent(PATH) <= SIZE + LOST
    assert_whole(target, data)
