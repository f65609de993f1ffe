"""A real nginx on 127.0.0.1 and a free port, with its own configuration and directories."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pytest

from tests.support.ports import free_port
from tests.support.project import wait_until

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
needs_nginx = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed")

CONF = """\
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
  log_format bytes '$request_uri $status $body_bytes_sent $http_range';
  access_log {folder}/access.log bytes;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  default_type application/octet-stream; sendfile on;
  limit_conn_zone $server_name zone=connections:1m;
  limit_req_zone $server_name zone=requests:1m rate=1r/s;
  server {{
    listen 127.0.0.1:{port}{tls}; root {files}; server_name models;
    location / {{ {directives} }}
    location @later {{ add_header Retry-After 1 always; return 429; }}
  }}
  server {{ listen 127.0.0.1:{status_port}; access_log off; location / {{ stub_status; }} }}
}}
"""
TLS = " ssl; ssl_certificate {0}; ssl_certificate_key {1}"
LATER = "error_page 429 @later;"  # 429 with Retry-After: 1


BALANCER = """\
{user} worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log warn; daemon off;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream demo {{ least_conn; include {folder}/servers.conf; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://demo; proxy_buffering off; proxy_read_timeout 1h; }}
  }}
}}
"""


@contextmanager
def balancing(folder: Path, ports: Sequence[str], slots: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Balance requests over servers; yield the URL, and the options of `doit roll` for it.

    Args:
        slots: not used; nginx has no queue, and servers queue requests themselves.
    """
    port = free_port()
    servers = folder / "servers.conf"
    servers.write_text("".join(f"server 127.0.0.1:{one};\n" for one in ports))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(BALANCER.format(user=user, folder=folder, port=port))
    # not `-e`: Ubuntu 22.04's has no such option
    command = [str(PROGRAM), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is None and _listens(port), 30)
            yield f"http://127.0.0.1:{port}", ["--nginx", str(servers), "--nginx-pid", f"{folder}/nginx.pid"]
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Served(NamedTuple):
    """One line of the access log."""

    path: str
    status: int
    sent: int  # bytes of the body
    range: str  # as it was asked for, without `bytes=`; nothing for the whole


class Nginx:
    """nginx that serves the files of a directory. Use `with`.

    Args:
        directives: added to the location of all files; may use the zones `connections` and `requests` (1/s).
        tls: certificate and key.
    """

    def __init__(
        self, folder: Path, files: Path, directives: str = "", tls: tuple[Path, Path] | None = None
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self._tls = tls
        self.port, self._status_port = free_port(), free_port()
        conf = CONF.format(
            folder=folder, files=files, port=self.port, status_port=self._status_port,
            tls=TLS.format(*tls) if tls else "", directives=directives,
        )  # fmt: skip
        (folder / "nginx.conf").write_text(conf)
        command = [str(PROGRAM), "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with (folder / "stderr").open("wb") as stderr:  # not `-e`: Ubuntu 22.04's has no such option
            self._popen = subprocess.Popen(command, cwd=folder, stderr=stderr)

    def __enter__(self) -> Nginx:
        deadline = time.monotonic() + 90
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise AssertionError((self.folder / "stderr").read_text())
            time.sleep(0.01)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(60)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(60)

    def url(self, path: str) -> str:
        """Return the URL of a file."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}{path}"

    def served(self, path: str) -> list[Served]:
        """Return the requests of a path in the order of their ends; wait until all have ended."""
        deadline = time.monotonic() + 90
        while self.connections():
            assert time.monotonic() < deadline, "a connection stays open"
            time.sleep(0.02)
        lines = (self.folder / "access.log").read_text().splitlines()
        found = (re.fullmatch(r"(\S+) (\d+) (\d+) (?:bytes=(\S+)|-)", line) for line in lines)
        all_ = [Served(f[1], int(f[2]), int(f[3]), f[4] or "") for f in found if f]
        return [one for one in all_ if one.path == path]

    def bytes_sent(self, path: str) -> int:
        """Return the body bytes sent for a path so far."""
        return sum(one.sent for one in self.served(path) if one.status in (200, 206))

    def connections(self) -> int:
        """Return the number of open connections."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status_port}/", timeout=5) as answer:
            found = re.search(rb"Active connections: (\d+)", answer.read())
        assert found
        return int(found[1]) - 1  # the one that asks


def own_ca(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """Create a CA and a certificate and key for 127.0.0.1 that it has signed; needs `openssl`."""
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    ca = [
        "-x509",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
        "-subj",
        "/CN=Our own CA",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ]
    request = ["-subj", "/CN=127.0.0.1", "-keyout", "key.pem", "-out", "request.pem"]
    sign = ["openssl", "x509", "-req", "-days", "2", "-in", "request.pem", "-CA", "ca.pem"]
    sign += ["-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-out", "cert.pem"]
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in ([*new, *ca], [*new, *request], sign):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "ca.pem", (folder / "cert.pem", folder / "key.pem")
