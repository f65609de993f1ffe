"""TCP ports of this machine: find a free one, and who listens where."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from tasks.errors import ServerError

# Below the ports that systems give to connections and to port 0 (Linux from 32768, the
# others from 49152 on): many engines load for minutes before they bind, and another
# program may have been given such a port by then.
_PICKED = range(20_000, 32_000)
_TRIES = 20


def free_port(host: str, port: int) -> int:
    """Return the port that a server may bind: `port`, or a free one for 0 (R23).

    Raises:
        ServerError: the port is in use, or the host is not an address of this machine.
    """
    try:
        info = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        what = f"--host {host}: {getattr(error, 'strerror', error)}"
        fix = "--host 127.0.0.1 is this machine only, 0.0.0.0 every network"
        raise ServerError(what, fix=fix) from None
    family, _, _, _, address = info
    if port == 0:
        for candidate in random.SystemRandom().sample(_PICKED, _TRIES):
            with suppress(OSError):
                return _bound(family, address, candidate)
    try:
        return _bound(family, address, port)
    except OSError as error:
        raise _bind_error(error, host, port) from None


def local_hosts(hosts: Iterable[str]) -> set[str]:
    """Return the hosts that are this machine, or a single one.

    A single one may be this machine's under another name, as in a container.
    """
    found = set(hosts)
    if len(found) > 1:
        return set(filter(_is_local, found))
    return found


def _is_local(host: str) -> bool:
    """Whether a name or an address is one of this machine."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, _, _, address in found:
        with suppress(OSError), socket.socket(family, kind) as probe:
            probe.bind(address)
            return True
    return False


def _bound(family: int, address: Any, port: int) -> int:
    """Bind a port for a moment and return its number. Raises OSError."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            # a port in TIME_WAIT is free; on Windows the option would steal a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address[0], port, *address[2:]))
        return int(probe.getsockname()[1])


def _bind_error(error: OSError, host: str, port: int) -> ServerError:
    if error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == 10048:
        what = f"port {port} on {host} is in use{port_owner_text(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    if error.errno == errno.EADDRNOTAVAIL:
        what = f"--host {host} is not an address of this machine"
        return ServerError(what, fix="--host 127.0.0.1")
    if error.errno == errno.EACCES:
        what = f"this user may not use port {port}"
        return ServerError(what, fix="a port above 1023")
    return ServerError(f"cannot listen on {host}, port {port}: {error.strerror}")


def port_owner_text(port: int) -> str:
    """Return ` by python3 (pid 42)`; "" if the system does not show who listens."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.pid and _listens(connection, port):
                name = psutil.Process(connection.pid).name()
                return f" by {name} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""


def _listens(connection: Any, port: int) -> bool:
    if connection.status != "LISTEN" or not connection.laddr:
        return False
    return bool(connection.laddr.port == port)


def listening_ports(pid: int, port: int = 0) -> frozenset[int] | None:
    """Return the ports on which `pid` and its descendants listen.

    Only reads processes of this user: macOS shows no others, and Linux does not say
    which process listens.

    Args:
        port: if `pid` itself listens on it, its descendants are not read: finding them
            means reading every process.

    Returns:
        None if the system does not say.
    """
    import psutil

    ports: set[int] = set()
    try:
        root = psutil.Process(pid)
        ports |= _ports(root)
        if port in ports:
            return frozenset(ports)
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended since
                ports |= _ports(child)
    except psutil.NoSuchProcess:
        return frozenset()
    except (psutil.Error, OSError):
        return None
    return frozenset(ports)


def count_connections(pid: int, port: int) -> int | None:
    """Count the open connections of clients to a port of `pid` or its descendants.

    Returns:
        None if the system does not say.
    """
    import psutil

    found = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has ended since
                open_ones = [c for c in _tcp(process) if c.status == "ESTABLISHED"]
                found += sum(c.laddr.port == port for c in open_ones)
    except psutil.NoSuchProcess:
        return 0
    except (psutil.Error, OSError):
        return None
    return found


def _ports(process: Any) -> frozenset[int]:
    return frozenset(c.laddr.port for c in _tcp(process) if c.status == "LISTEN")


def _tcp(process: Any) -> Any:
    read = getattr(process, "net_connections", None)
    if read is None:  # before psutil 6
        read = process.connections
    return read("tcp")
