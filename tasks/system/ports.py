"""TCP ports of this machine: which one is free, who has one, and where a process listens."""

from __future__ import annotations

import errno
import os
import random
import socket
from contextlib import suppress
from typing import Any

from tasks.errors import ServerError

# Below the ports that systems give to connections and to port 0 (Linux from 32768, the others from 49152 on):
# many engines load for minutes before they bind, and one of those may be somebody else's by then
_PICKED = range(20_000, 32_000)
_TRIES = 20


def free_port(host: str, port: int) -> int:
    """The port a server may bind: `port` itself, or for 0 one that is free and likely to stay so (R23).

    Raises ServerError: the port is taken, or the host is no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        what = f"--host {host}: {getattr(error, 'strerror', error)}"
        raise ServerError(what, fix="--host 127.0.0.1 is this machine alone, 0.0.0.0 every network") from None
    for candidate in random.SystemRandom().sample(_PICKED, _TRIES) if port == 0 else ():
        with suppress(OSError):
            return _bound(family, address, candidate)
    try:
        return _bound(family, address, port)
    except OSError as error:
        raise _bind_error(error, host, port) from None


def _bound(family: int, address: Any, port: int) -> int:
    """Bind a port for a moment; its number. Raises OSError."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # a port in TIME_WAIT is free; on Windows the option would steal it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address[0], port, *address[2:]))
        return int(probe.getsockname()[1])


def _bind_error(error: OSError, host: str, port: int) -> ServerError:
    if error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == 10048:
        what = f"port {port} on {host} is in use{by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    if error.errno == errno.EADDRNOTAVAIL:
        return ServerError(f"--host {host} is no address of this machine", fix="--host 127.0.0.1")
    if error.errno == errno.EACCES:
        return ServerError(f"port {port} may not be used by this user", fix="a port above 1023")
    return ServerError(f"cannot listen on {host}, port {port}: {error.strerror}")


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr and connection.laddr.port == port)


def by_whom(port: int) -> str:
    """` by python3 (pid 42)`, where the system tells."""
    import psutil

    try:
        pid = next((c.pid for c in psutil.net_connections("tcp") if c.pid and _listens(c, port)), None)
        return f" by {psutil.Process(pid).name()} (pid {pid})" if pid else ""
    except (psutil.Error, OSError):
        return ""


def ports_of(pid: int, port: int = 0) -> frozenset[int] | None:
    """The ports on which `pid` and what it started listen; None where the system does not tell.

    Where `pid` itself listens on `port`, that is answer enough: to find children reads every process.
    Looks at our own processes alone: macOS shows no others to a user, and Linux not whose they are.
    """
    import psutil

    found: set[int] = set()
    try:
        root = psutil.Process(pid)
        own = _ports(root)
        found |= own
        for child in [] if port in own else root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                found |= _ports(child)
    except psutil.NoSuchProcess:
        return frozenset()
    except (psutil.Error, OSError):
        return None
    return frozenset(found)


def _ports(process: Any) -> frozenset[int]:
    found = (getattr(process, "net_connections", None) or process.connections)("tcp")  # before psutil 6
    return frozenset(c.laddr.port for c in found if c.status == "LISTEN")
