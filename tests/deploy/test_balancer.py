"""haproxy.cfg in a real haproxy before two servers: one drains, then one dies, and no request is lost."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tasks.catalogue.deploy_options import DeployOptions
from tasks.deploy import balancer
from tasks.deploy.fleet import DeployedModel, Fleet, PinnedFile

from tests.support.ports import free_port
from tests.support.project import wait_until

PROGRAM = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
pytestmark = [
    pytest.mark.fleet,
    pytest.mark.once,
    pytest.mark.skipif(PROGRAM is None, reason="needs haproxy: apt-get install haproxy"),
]
HOSTS = ("127.0.0.1", "127.0.0.2")


class Server(ThreadingHTTPServer):
    """A server that answers with its own address; `/slow` waits until it may."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.host, self.may_answer, self.is_asked = host, threading.Event(), threading.Event()
        super().__init__((host, port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.is_asked.set()
            assert self.server.may_answer.wait(90)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.host.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


class Balancer:
    """haproxy with the file, but for its user, its socket and its port for Prometheus."""

    def __init__(self, folder: Path, servers: list[Server]) -> None:
        self._port, self._metrics, self._socket = free_port(), free_port(), folder / "s"
        self._backend_port = servers[0].server_port
        files = (PinnedFile("m.gguf", "a" * 64, 1),)
        model = DeployedModel("m", "M", "MIT", files, port=self._backend_port, balance=self._port)
        [text] = balancer.files(Fleet((model,), DeployOptions({}, hosts=HOSTS))).values()
        text = text.replace("  user haproxy\n  group haproxy\n", "")
        text = text.replace("/run/haproxy/admin.sock", str(self._socket)).replace("8405", str(self._metrics))
        (folder / "haproxy.cfg").write_text(text)
        self._popen = subprocess.Popen([str(PROGRAM), "-db", "-f", str(folder / "haproxy.cfg")])

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=90) as answer:
            return str(answer.read().decode())

    def tell(self, command: str) -> str:
        """Write a command to the socket; return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            return connection.makefile().read()

    def sees(self, *up: str) -> bool:
        """Whether it takes exactly these servers for healthy."""
        assert self._popen.poll() is None
        with suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=90) as answer:
                text = answer.read().decode()
            found = [host for host in HOSTS if f'server="{host}-{self._backend_port}",state="UP"}} 1' in text]
            return found == list(up)
        return False

    def stop(self) -> None:
        self._popen.terminate()
        self._popen.wait(30)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    first = Server(HOSTS[0], free_port())
    second = Server(HOSTS[1], first.server_port)
    yield [first, second]
    for server in (first, second):
        server.shutdown()
        server.server_close()


@pytest.fixture
def front(tmp_path: Path, servers: list[Server]) -> Iterator[Balancer]:
    front = Balancer(tmp_path, servers)
    try:
        wait_until(lambda: front.sees(*HOSTS))
        yield front
    finally:
        front.stop()


def test_a_server_drains_and_another_one_dies(front: Balancer, servers: list[Server]) -> None:
    """The answer that is under way ends; new requests go to the other server."""
    first, second = servers
    assert {front.get() for _ in range(20)} == set(HOSTS)

    answers: list[str] = []
    slow = [threading.Thread(target=lambda: answers.append(front.get("/slow"))) for _ in HOSTS]
    for thread in slow:
        thread.start()
    assert first.is_asked.wait(90)
    assert front.tell(f"set server m/{first.host}-{first.server_port} state drain").strip() == ""
    assert {front.get() for _ in range(20)} == {second.host}
    for server in servers:
        server.may_answer.set()
    for thread in slow:
        thread.join(90)
    assert sorted(answers) == list(HOSTS)

    front.tell(f"set server m/{first.host}-{first.server_port} state ready")
    wait_until(lambda: {front.get() for _ in range(4)} == set(HOSTS))
    second.shutdown()
    second.server_close()
    assert {front.get() for _ in range(20)} == {first.host}
    wait_until(lambda: front.sees(first.host))
