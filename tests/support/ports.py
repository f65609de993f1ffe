"""Ports for the servers of tests, and for clients that nobody is to answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.system import ports


def free_port() -> int:
    """A port of this machine on which a server may be started."""
    return ports.free_port("127.0.0.1", 0)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections: taken, so that nobody else listens there."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
