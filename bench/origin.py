"""Make the file of the download benchmark, and serve it with nginx.

Each kind of path has a port. All files are in a directory of the caller; nginx is
stopped by its pid, however the benchmark ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

NAME = "big.gguf"
BLOCK = 8 * 1024**2
READY_S = 10.0

# what a port does with each connection; nginx's `m` is 1024 * 1024 bytes per second
PORTS = {"http": "", "tls": "", "150": "limit_rate 150m;", "20": "limit_rate 20m;"}

# huggingface_hub requests `/bench/model/resolve/…`; the Hub redirects to its CDN
SERVER = """
  server {{
    listen {address}:{port}{ssl};
    root {root};
    {limit}
    location = /status {{ access_log off; stub_status; }}
    location /bench/model/resolve/ {{
      rewrite ^ /{name} break;
      add_header X-Repo-Commit {commit};
      add_header X-Linked-Etag '"{sha256}"';
      add_header X-Linked-Size {size};
    }}
  }}"""

CONF = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  log_format bytes '$body_bytes_sent $status $server_port "$http_range"';
  access_log {folder}/access.log bytes;
  sendfile on;
  tcp_nopush on;
  default_type application/octet-stream;
  ssl_certificate {folder}/cert.pem;
  ssl_certificate_key {folder}/cert.key;
  client_body_temp_path {folder}/temp;
  proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/temp;
  uwsgi_temp_path {folder}/temp;
  scgi_temp_path {folder}/temp;
{servers}
}}
"""


@dataclass(frozen=True)
class Blob:
    """The file that the server sends."""

    path: Path
    sha256: str
    size: int


def make_blob(folder: Path, size: int) -> Blob:
    """Write incompressible bytes.

    They are on disk and in the page cache when this returns.
    """
    folder.mkdir()
    path, digest, left = folder / NAME, hashlib.sha256(), size
    with path.open("wb") as file:
        while left:
            block = os.urandom(min(BLOCK, left))
            left -= len(block)
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())
    assert sha256_of(path) == digest.hexdigest()
    return Blob(path, digest.hexdigest(), size)


def sha256_of(path: Path) -> str:
    """Return the digest of a file; hashlib.file_digest needs Python 3.11."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def make_certificate(folder: Path) -> None:
    """Write ca.pem, cert.pem and cert.key: a certificate for 127.0.0.1 and its CA."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    (folder / "cert.ext").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
        "keyUsage=critical,digitalSignature\n"
        "basicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n"
    )
    commands = (
        f"req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=bench -days 2"
        " -addext keyUsage=critical,keyCertSign",
        f"req {key} -keyout cert.key -out cert.csr -subj /CN=localhost",
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
        " -extfile cert.ext -out cert.pem",
    )
    for command in commands:
        subprocess.run(
            ["openssl", *command.split()], cwd=folder, check=True, capture_output=True
        )


def free_ports(count: int) -> list[int]:
    """Return ports that are free at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Origin:
    """A running nginx. Use `with`.

    Args:
        folder: the directory of its configuration and logs; it is created.
        prefix: the start of its command line (`taskset …`, `nsenter …`).
        listen: the address it binds.
        host: the address that its clients use, if it differs.
    """

    def __init__(
        self,
        blob: Blob,
        folder: Path,
        prefix: tuple[str, ...] = (),
        listen: str = "127.0.0.1",
        host: str = "",
    ) -> None:
        self.blob, self.folder = blob, folder
        self._prefix, self._listen, self._host = prefix, listen, host or listen
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))

    def base(self, port: str) -> str:
        """Return `scheme://host:port` of one kind of path."""
        return f"http{'s' if port == 'tls' else ''}://{self._host}:{self.ports[port]}"

    @property
    def ca(self) -> Path:
        """Return the path of the CA that its clients trust."""
        return self.folder / "ca.pem"

    def __enter__(self) -> Origin:
        self.folder.mkdir()
        make_certificate(self.folder)
        facts = {
            "address": self._listen,
            "root": self.blob.path.parent,
            "name": NAME,
            "commit": "c" * 40,
        }
        facts |= {"sha256": self.blob.sha256, "size": self.blob.size}
        servers = "".join(
            SERVER.format(
                port=port,
                ssl=" ssl" if kind == "tls" else "",
                limit=PORTS[kind],
                **facts,
            )
            for kind, port in self.ports.items()
        )
        conf = self.folder / "nginx.conf"
        conf.write_text(CONF.format(folder=self.folder, servers=servers), "utf-8")
        errors = self.folder / "error.log"
        command = [
            *self._prefix,
            "nginx",
            "-c",
            str(conf),
            "-e",
            str(errors),
            "-p",
            str(self.folder),
        ]
        with (self.folder / "stderr").open("wb") as stderr:
            self._popen = subprocess.Popen(
                command, stderr=stderr, start_new_session=True
            )
        deadline = time.monotonic() + READY_S
        while not (self.folder / "nginx.pid").exists():  # written once it listens
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"nginx did not start: {errors.read_text('utf-8')}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()  # its workers exit with the master
        self._popen.wait(10)

    def served(self) -> int:
        """Return the body bytes sent so far, once no connection is open.

        nginx logs a request when it ends. Of an interrupted connection it counts what
        it passed to the kernel, a little more than the client received.
        """
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + READY_S
        while True:
            with direct.open(f"{self.base('http')}/status") as answer:
                found = re.search(r"Active connections: (\d+)", answer.read().decode())
            if found and found.group(1) == "1":  # this one
                lines = (self.folder / "access.log").read_text("utf-8").splitlines()
                return sum(int(line.split()[0]) for line in lines)
            if time.monotonic() > deadline:
                raise RuntimeError(
                    "connections to nginx are still open after their clients' exit"
                )
            time.sleep(0.01)
