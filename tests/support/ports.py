"""Ports for servers of tests, and ports that refuse connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tasks.errors import ServerError
from tasks.system import ports


def free_port() -> int:
    """Return a free port."""
    return ports.free_port("127.0.0.1", 0)


def free_ports(count: int) -> list[int]:
    """Return free ports that follow each other."""
    while True:
        first = free_port()
        found = range(first, first + count)
        with suppress(ServerError):
            return [ports.free_port("127.0.0.1", port) for port in found]


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port of 127.0.0.1 that is bound, so that connections are refused."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
