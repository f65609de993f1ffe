"""What systemd is told of `doit serve` as a service of the type `notify`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasks.system.sd_notify import address, extending, message, notify

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import Project

posix = pytest.mark.skipif(os.name == "nt", reason="needs sockets of the family AF_UNIX")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/run/systemd/notify", "/run/systemd/notify"),
        ("@/org/x", "\0/org/x"),
        ("", ""),
        ("@", ""),
        ("relative", ""),
        ("vsock:2:9", ""),
    ],
)
def test_address(text: str, expected: str) -> None:
    """Issue 17.7: a path, or an abstract socket."""
    assert address(text) == expected


def test_message() -> None:
    """Issue 17.7: one line a field; a value cannot add a field."""
    fields = {"READY": 1, "STATUS": "two\nSTOPPING=1"}
    assert message(fields) == b"READY=1\nSTATUS=two STOPPING=1"


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A socket, as systemd's, and the value of NOTIFY_SOCKET."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are of Linux")
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        name = str(Path(folder, "notify"))
        if request.param == "abstract":
            name = f"@recipe-{uuid.uuid4().hex}"
        made.bind(address(name))
        made.settimeout(90)
        yield made, name


@posix
def test_of_a_service(project: Project, listener: tuple[socket.socket, str]) -> None:
    """Issue 17.7: more time for a download and for loading, ready, and the stop with the time that it has."""
    made, name = listener
    with_llamafile(project)
    with project.start("serve", "--port", "0", "--drain", "40", env={"NOTIFY_SOCKET": name}) as running:
        texts = [made.recv(4096).decode() for _ in range(3)]
        assert texts[0] == "STATUS=downloading m.llamafile\nEXTEND_TIMEOUT_USEC=60000000"
        assert texts[1] == "STATUS=loading m\nEXTEND_TIMEOUT_USEC=600000000"
        assert texts[2].startswith("READY=1\nSTATUS=m is ready at http://127.0.0.1:")
        running.send(signal.SIGTERM)
        assert made.recv(4096) == b"STOPPING=1\nSTATUS=stopping m\nEXTEND_TIMEOUT_USEC=60000000"
        assert running.finish().status == 0


@posix
def test_without_systemd(tmp_path: Path) -> None:
    """Issue 17.7: no socket, or one that is not there, changes nothing."""
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none")}):
        notify(environ, READY=1)
        with extending(environ, "working"):
            pass
