"""A real haproxy before servers on this machine, on a free port."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tasks.deploy.balancer import METRICS_PORT

from tests.support.ports import free_port
from tests.support.project import wait_until

PROGRAM = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
needs_haproxy = pytest.mark.skipif(PROGRAM is None, reason="haproxy is not installed (apt install haproxy)")

CONF = """\
global
  stats socket {socket} mode 600 level admin
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  timeout queue 10m
  option redispatch 1
  retries 3
  retry-on conn-failure
frontend models
  bind 127.0.0.1:{port}
  default_backend demo
backend demo
  balance leastconn
  option httpchk
  http-check send meth GET uri /health
  http-check expect status 200
  default-server check inter 200ms fastinter 100ms downinter 100ms fall 3 rise 1 maxconn {slots}
{servers}
"""


@contextmanager
def balancing(folder: Path, ports: Sequence[str], slots: int = 4) -> Iterator[tuple[str, list[str]]]:
    """Balance requests over servers; yield the URL, and the options of `doit roll` for it.

    Args:
        slots: requests that a server works on at the same time; others wait.
    """
    port, path = free_port(), folder / "haproxy.sock"
    servers = "\n".join(f"  server r{number} 127.0.0.1:{one}" for number, one in enumerate(ports, 1))
    with _running(folder, CONF.format(socket=path, port=port, servers=servers, slots=slots), port):
        yield f"http://127.0.0.1:{port}", ["--haproxy", str(path)]


@contextmanager
def deployed(folder: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Balance requests as the haproxy.cfg of `doit deploy` says; yield the same.

    Only its user, the folder of its socket, and its port for Prometheus are others.
    """
    path = folder / "haproxy.sock"
    for before, after in (
        ("  user haproxy\n  group haproxy\n", ""),
        ("/run/haproxy/admin.sock", str(path)),
        (f":{METRICS_PORT}\n", f":{free_port()}\n"),
    ):
        assert text.count(before) == 1, text
        text = text.replace(before, after)
    [port] = re.findall(r"^  bind :(\d+)$", text, re.MULTILINE)
    with _running(folder, text, int(port)):
        yield f"http://127.0.0.1:{port}", ["--haproxy", str(path)]


@contextmanager
def _running(folder: Path, text: str, port: int) -> Iterator[None]:
    config = folder / "haproxy.cfg"
    config.write_text(text)
    with subprocess.Popen([str(PROGRAM), "-db", "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is None and _listens(port), 30)
            yield
        finally:
            process.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
