"""Ports and their owners, readiness, and requests to a server."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tasks.engine.failures import launch_error
from tasks.errors import ServerError
from tasks.server.client import health, in_flight, probe_inference
from tasks.server.readiness import wait_ready
from tasks.server.supervisor_client import SupervisorClient
from tasks.system.ports import free_port, listening_ports

from tests.fakes import llamafile
from tests.fakes.behaviour import Behaviour
from tests.fakes.llamafile import VARIABLE
from tests.support.project import REPO

posix = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def by_me() -> str:
    """How an error names this process, where the system tells who listens (macOS: only root)."""
    try:
        psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    return f" by {psutil.Process().name()} (pid {os.getpid()})"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_free_port_is_picked(host: str) -> None:
    """R23: 0 becomes a port that can be bound, and that no system gives to a connection meanwhile."""
    port = free_port(host, 0)
    assert 20_000 <= port < 32_000
    assert free_port(host, port) == port
    with socket.create_server((host if host != "localhost" else "127.0.0.1", port)):
        pass


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_a_free_port_of_ipv6(taken: int) -> None:
    """R23: families are apart: a port taken for IPv4 may be free for IPv6."""
    assert free_port("::1", 0) > 1023
    assert free_port("::1", taken) == taken


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port(taken: int, host: str) -> None:
    """R23: named with the program that has it; all addresses include this one."""
    with pytest.raises(ServerError) as caught:
        free_port(host, taken)
    assert caught.value.what == f"port {taken} on {host} is in use{by_me()}"
    assert caught.value.fix == "--port 0 takes a free one"


def test_a_port_of_the_last_run_is_free() -> None:
    """R23: a connection in TIME_WAIT does not block its port for a new server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = listener.accept()
        accepted.close()  # the server closes first: its side waits
        client.close()
    assert free_port("127.0.0.1", port) == port


@pytest.mark.parametrize(
    ("host", "said"),
    [
        pytest.param("192.0.2.1", "--host 192.0.2.1 is not an address of this machine", id="foreign"),
        pytest.param("a..b", "--host a..b: ", id="no host name"),
    ],
)
def test_a_host_that_cannot_be_listened_on(host: str, said: str) -> None:
    """R23: the option that is wrong is named."""
    with pytest.raises(ServerError) as caught:
        free_port(host, 0)
    assert caught.value.what.startswith(said)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may use every port")
def test_a_port_for_root() -> None:
    """R23: below 1024 only with a right that most users lack."""
    with pytest.raises(ServerError, match="this user may not use port 1"):
        free_port("127.0.0.1", 1)


LISTEN = "import socket, sys, time; s = socket.create_server(('', int(sys.argv[1]))); time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def until(done: Callable[[], object], what: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "command", [pytest.param([LISTEN], id="itself"), pytest.param([PARENT, LISTEN], id="its child")]
)
def test_whose_port_it_is(taken: int, command: list[str]) -> None:
    """R23: a port is ours when our process or what it started listens; another's is not."""
    port = free_port("127.0.0.1", 0)
    with subprocess.Popen([sys.executable, "-c", *command, str(port)]) as process:
        try:
            until(lambda: listening_ports(process.pid), "it listens")
            assert listening_ports(process.pid) == frozenset({port})
            assert {taken, port} <= (listening_ports(os.getpid()) or set())
        finally:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()
    assert listening_ports(process.pid) == frozenset()  # gone, which is not the same as not told


def test_nobody_listens() -> None:
    """R23: an unused port is not ours; a connection is not a listener."""
    port = free_port("127.0.0.1", 0)
    mine = listening_ports(os.getpid())
    assert mine is not None
    assert port not in mine
    connect = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.recv(1)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, "-c", connect, str(listener.getsockname()[1])]
        with subprocess.Popen(words) as process:
            accepted, _ = listener.accept()
            assert listening_ports(process.pid) == frozenset()
            accepted.close()


class Answers(http.server.BaseHTTPRequestHandler):
    """GET /health has a status; any other path says 418."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 418)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def stranger() -> Iterator[Callable[[int], int]]:
    """Start an HTTP server whose /health returns a status; return its port."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(status: int) -> int:
        handler = type("Handler", (Answers,), {"status": status})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [200, 302, 404, 503])
def test_health(stranger: Callable[[int], int], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """R27: the status as it is, no redirect followed; no proxy is asked."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port('127.0.0.1', 0)}")
    port = stranger(status)
    assert health("127.0.0.1", port) == status
    assert health("0.0.0.0", port) == status
    assert health("localhost", port) == status


def test_health_of_nothing(taken: int) -> None:
    """R27: without a server or a response, the result is None within seconds."""
    assert health("127.0.0.1", free_port("127.0.0.1", 0)) is None
    start = time.monotonic()
    assert health("127.0.0.1", taken) is None
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="closes"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, id="an endless line"),
        pytest.param(b"\xff\x00" * 500, id="junk"),
    ],
)
def test_health_of_another_protocol(answer: bytes) -> None:
    """R28: a response that is not HTTP gives None, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        assert health("127.0.0.1", int(listener.getsockname()[1])) is None
        thread.join(5)


class Engines:
    """Start fake engines, each with its supervisor; end those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._supervisor: list[SupervisorClient] = []

    def start(self, port: int, version: str = "0.8.6", **behaviour: Any) -> SupervisorClient:
        file = llamafile.build(self._folder / "m.llamafile", version=version)
        mood: Behaviour = {**behaviour}  # type: ignore[typeddict-item]
        words = ["/bin/sh", str(file), "--server", "--port", str(port), "--host", "127.0.0.1"]
        env = {"PATH": os.environ["PATH"], VARIABLE: json.dumps(mood)}
        folder = str(self._folder)
        supervisor = SupervisorClient(
            words, env=env, cwd=folder, log=f"{folder}/log", record=f"{folder}/m.json",
            values={"mark": "of a test"}, root=str(REPO),
        )  # fmt: skip
        self._supervisor.append(supervisor)
        return supervisor

    def close(self) -> None:
        for supervisor in self._supervisor:
            supervisor.stop(kill_now=lambda: True)
            assert not lives(supervisor.pid)


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    started = Engines(tmp_path)
    yield started
    started.close()


def wait(
    child: SupervisorClient, port: int, timeout_s: float = 90, stopped: Callable[[], object] = lambda: False
) -> Any:
    return wait_ready("m", child, "127.0.0.1", port, timeout_s, stopped)


@posix
@pytest.mark.parametrize("version", ["0.8.6", "0.9.3", "0.10.5"])
def test_ready_when_it_is_loaded(engines: Engines, version: str) -> None:
    """R27: refused connections and 503 mean wait; 200 means ready."""
    port = free_port("127.0.0.1", 0)
    start = time.monotonic()
    child = engines.start(port, version, load_seconds=0.5)
    assert wait(child, port) is not None
    assert time.monotonic() - start >= 0.5
    assert listening_ports(child.pid) == frozenset({port})
    assert health("127.0.0.1", port) == 200


@posix
def test_ready_when_a_child_serves(engines: Engines) -> None:
    """R23: the port of what our process started is ours."""
    port = free_port("127.0.0.1", 0)
    assert wait(engines.start(port, fork=True), port) > 0


@posix
def test_dead_is_dead_at_once(engines: Engines) -> None:
    """R26, R27: a process that has ended is reported before the deadline."""
    port = free_port("127.0.0.1", 0)
    child = engines.start(port, crash={"text": "bad model", "status": 4, "after": 0.2}, load_seconds=600)
    start = time.monotonic()
    with pytest.raises(ServerError) as caught:
        wait(child, port, timeout_s=600)
    assert time.monotonic() - start < 300
    facts = dict(caught.value.facts)
    assert caught.value.what == "m ended before it was ready"
    assert (facts["ended"], facts["output"], facts["log"]) == ("exit status 4", "bad model", child.log)


@posix
@pytest.mark.parametrize(
    ("version", "behaviour"),
    [
        pytest.param("0.8.6", {"silent": True}, id="never binds"),
        pytest.param("0.10.5", {"silent": True}, id="503 for ever"),
        pytest.param("0.10.5", {"health_status": 500}, id="500 for ever"),
    ],
)
def test_late(engines: Engines, version: str, behaviour: dict[str, Any]) -> None:
    """R27: the deadline ends the wait; the caller ends the process."""
    port = free_port("127.0.0.1", 0)
    child = engines.start(port, version, **behaviour)
    start = time.monotonic()
    with pytest.raises(ServerError) as caught:
        wait(child, port, timeout_s=0.8)
    assert time.monotonic() - start >= 0.8
    assert caught.value.what == "m was not ready after 800 ms"
    assert caught.value.fix == "allow more time with --timeout SECONDS"
    assert child.exited() is None


@posix
def test_a_stranger_is_not_taken_for_it(engines: Engines, stranger: Callable[[int], int]) -> None:
    """R23: llamafile 0.8.6 takes the next port; the 200 is another program's."""
    port = stranger(200)
    child = engines.start(port, "0.8.6")
    with pytest.raises(ServerError) as caught:
        wait(child, port)
    assert caught.value.what == f"another program answers on port {port}{by_me()}"


@posix
@pytest.mark.parametrize("status", [404, 503])
def test_it_hops_away_from_a_stranger(engines: Engines, stranger: Callable[[int], int], status: int) -> None:
    """R23, R27: the port's owner is not ready and ours uses another port: the wait ends."""
    port = stranger(status)
    start = time.monotonic()
    with pytest.raises(ServerError) as caught:
        wait(engines.start(port, "0.9.3"), port, timeout_s=600)
    assert time.monotonic() - start < 300
    expected = f"m listens on another port than {port}, which another program uses{by_me()}"
    assert (caught.value.what, caught.value.fix) == (expected, "use --port 0 for a free one")


@posix
def test_it_hops_away_from_what_says_nothing(engines: Engines, taken: int) -> None:
    """R23, R27: the same where nothing answers on the port at all."""
    with pytest.raises(ServerError, match=f"m listens on another port than {taken}"):
        wait(engines.start(taken, "0.8.6"), taken, timeout_s=60)


@posix
def test_a_stranger_has_the_port_of_a_new_engine(engines: Engines, stranger: Callable[[int], int]) -> None:
    """R23: llamafile 0.10 exits with an error when its port is in use."""
    port = stranger(404)
    child = engines.start(port, "0.10.5")
    with pytest.raises(ServerError) as caught:
        wait(child, port)
    assert "couldn't bind HTTP server socket" in str(caught.value)
    assert caught.value.fix == "another program uses the port: use --port 0 for a free one"


@posix
def test_stopped_while_it_loads(engines: Engines) -> None:
    """R14: a requested stop is not an error."""
    port = free_port("127.0.0.1", 0)
    child = engines.start(port, silent=True)
    start = time.monotonic()
    assert wait(child, port, stopped=lambda: time.monotonic() - start > 0.3) is None
    assert child.exited() is None


def test_a_program_that_could_not_be_started() -> None:
    """R28: the error has the command and the system's message."""
    error = launch_error(
        "m", ["/bin/sh", "/a b/m.llamafile"], PermissionError(13, "Permission denied"), sys.platform
    )
    facts = dict(error.facts)
    assert error.what == "cannot start m"
    assert facts["command"] == "/bin/sh '/a b/m.llamafile'"
    assert facts["output"] == "[Errno 13] Permission denied"
    assert facts["ended"] == ""


@pytest.fixture
def api() -> Iterator[Callable[[dict[str, Any]], int]]:
    """Start a server whose paths have a status and a body each; its port. It asks for the key `K`."""
    servers: list[http.server.ThreadingHTTPServer] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        pages: Any

        def do_GET(self) -> None:
            status, body = self.pages.get(self.path, (404, b""))
            if self.path != "/health" and self.headers.get("Authorization") != "Bearer K":
                status, body = 401, b"{}"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    def start(pages: dict[str, Any]) -> int:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Pages", (Handler,), {"pages": pages})
        )
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


SLOTS = b'[{"id": 0, "is_processing": true}, {"id": 1, "is_processing": false}]'
OLD_SLOTS = b'[{"id": 0, "state": 0}, {"id": 1, "state": 1}, {"id": 2, "state": 1}]'


@pytest.mark.parametrize(
    ("pages", "key", "count"),
    [
        pytest.param(
            {"/health": (200, b'{"status": "ok", "slots_idle": 1, "slots_processing": 3}')},
            "",
            3,
            id="0.8, 0.9",
        ),
        pytest.param({"/health": (200, b'{"status": "ok"}'), "/slots": (200, SLOTS)}, "K", 1, id="0.10"),
        pytest.param({"/slots": (200, OLD_SLOTS)}, "K", 2, id="slots with a state"),
        pytest.param({"/slots": (200, SLOTS)}, "wrong", None, id="slots behind another key"),
        pytest.param({"/slots": (501, b'{"error": {}}')}, "K", None, id="no slots: switched off"),
        pytest.param({"/slots": (200, b"[]")}, "K", None, id="an empty list"),
        pytest.param({"/slots": (200, b"[1]")}, "K", None, id="a list of something else"),
        pytest.param({"/health": (200, b"<html>"), "/slots": (200, b"\xff")}, "K", None, id="no JSON"),
        pytest.param({}, "", None, id="nothing of that kind"),
    ],
)
def test_requests_in_flight(
    api: Callable[[dict[str, Any]], int], pages: dict[str, Any], key: str, count: int | None
) -> None:
    """The number of requests, where the engine reports it; None otherwise."""
    assert in_flight("127.0.0.1", api(pages), key) == count


def test_a_probe(api: Callable[[dict[str, Any]], int]) -> None:
    """R27: the probe needs one token; any other response is reported."""
    path = "/v1/chat/completions"
    probe_inference("m", "127.0.0.1", api({path: (200, b"{}")}), "K", 5)
    with pytest.raises(ServerError) as caught:
        probe_inference("m", "127.0.0.1", api({path: (500, b'{"error": "no template"}\n')}), "K", 5)
    assert caught.value.what == "m is running but answered a request with an error"
    assert dict(caught.value.facts) == {"status": 500, "answer": '{"error": "no template"}'}
    with pytest.raises(ServerError) as caught:
        probe_inference("m", "127.0.0.1", api({path: (200, b"{}")}), "wrong", 5)
    assert dict(caught.value.facts)["status"] == 401


def test_a_probe_that_nothing_answers(taken: int) -> None:
    """R27: within what is left of --timeout, and at least a second."""
    start = time.monotonic()
    with pytest.raises(ServerError) as caught:
        probe_inference("m", "127.0.0.1", taken, "", -3)
    assert 1 <= time.monotonic() - start < 60
    assert caught.value.what.startswith("m is running but did not answer a request within ")
    assert caught.value.fix == "allow more time with --timeout SECONDS"


class WindowsError(OSError):
    """As Windows raises it, where the number is what counts."""

    def __init__(self, winerror: int, strerror: str) -> None:
        super().__init__(22, strerror)
        self.winerror = winerror


@pytest.mark.parametrize(
    ("error", "output", "fix"),
    [
        pytest.param(
            WindowsError(225, "因为文件包含病毒"),
            "[WinError 225] 因为文件包含病毒",
            "virus scanner",
            id="virus",
        ),
        pytest.param(WindowsError(193, "%1 is"), "[WinError 193] %1 is", "4 GiB", id="over 4 GiB"),
        pytest.param(OSError("no number"), "no number", "", id="an error without a number"),
        pytest.param(
            FileNotFoundError(2, "No such file or directory"),
            "[Errno 2] No such file or directory",
            "run the command again",
            id="it has gone",
        ),
    ],
)
def test_why_it_could_not_be_started(error: OSError, output: str, fix: str) -> None:
    """R28: the number finds the remedy, whatever language the system speaks."""
    refused = launch_error("m", ["x"], error, sys.platform)
    assert dict(refused.facts)["output"] == output
    assert fix in refused.fix
    assert bool(refused.fix) == bool(fix)
