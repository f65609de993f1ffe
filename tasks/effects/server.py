"""A server as its clients see it: the port before the start, readiness after it, and who owns the port."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tasks.core import lifecycle, report
from tasks.core.errors import ServerError
from tasks.core.lifecycle import POLL_S, Look, Readiness
from tasks.effects.process import Child

_HEALTH_S = 2.0  # for one answer of /health
_SAY_S = 10.0  # between two lines while it loads

_log = logging.getLogger("recipe")


def free_port(host: str, port: int) -> int:
    """The port a server may bind: `port` itself, or for 0 one the system picks (R23).

    Raises ServerError: the port is taken, or the host is no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        what = f"--host {host}: {getattr(error, 'strerror', error)}"
        raise ServerError(what, fix="--host 127.0.0.1 is this machine alone, 0.0.0.0 every network") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # a port in TIME_WAIT is free; on Windows the option would steal it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _bind_error(error, host, port) from None
        return int(probe.getsockname()[1])


def _bind_error(error: OSError, host: str, port: int) -> ServerError:
    if error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == 10048:
        what = f"port {port} on {host} is in use{_by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    if error.errno == errno.EADDRNOTAVAIL:
        return ServerError(f"--host {host} is no address of this machine", fix="--host 127.0.0.1")
    if error.errno == errno.EACCES:
        return ServerError(f"port {port} may not be used by this user", fix="a port above 1023")
    return ServerError(f"cannot listen on {host}, port {port}: {error.strerror}")


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == "LISTEN" and connection.laddr and connection.laddr.port == port)


def _by_whom(port: int) -> str:
    """` by python3 (pid 42)`, where the system tells."""
    import psutil

    try:
        pid = next((c.pid for c in psutil.net_connections("tcp") if c.pid and _listens(c, port)), None)
        return f" by {psutil.Process(pid).name()} (pid {pid})" if pid else ""
    except (psutil.Error, OSError):
        return ""


def is_ours(port: int, pid: int) -> bool | None:
    """Whether `pid` or something it started listens on the port; None where the system does not tell.

    Looks at our own processes alone: macOS shows no others to a user, and Linux not whose they are.
    """
    import psutil

    try:
        root = psutil.Process(pid)
        family: list[Any] = [root, *root.children(recursive=True)]  # before psutil 6: connections
        found = [(getattr(p, "net_connections", None) or p.connections)("tcp") for p in family]
    except (psutil.Error, OSError):
        return None
    return any(_listens(connection, port) for one in found for connection in one)


def health(host: str, port: int) -> int | None:
    """Status of GET /health; None where nothing answers. Proxies are not for this."""
    connection = http.client.HTTPConnection(report.reachable(host), port, timeout=_HEALTH_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_ready(
    name: str, child: Child, host: str, port: int, timeout_s: float, stopped: Callable[[], object]
) -> float | None:
    """Wait until the server may take requests.

    Args:
        stopped: says something true when the user asks to stop.

    Returns:
        Seconds it took; None when the user asked to stop.

    Raises:
        ServerError: it died, was too late, or another server answers in its place. It may still run.
    """
    start = said = time.monotonic()
    while not stopped():
        exited = child.exited()
        status = None if exited is not None else health(host, port)
        ours = is_ours(port, child.pid) if status == 200 else None
        now = time.monotonic()
        verdict = lifecycle.judge_start(Look(exited, status, ours, now - start), timeout_s)
        if verdict is Readiness.READY:
            return now - start
        if verdict is not Readiness.WAIT:
            raise _start_error(name, verdict, child, port, timeout_s)
        if now - said >= _SAY_S:
            said = now
            _log.info("%s is loading, %s so far", name, report.seconds(now - start))
        time.sleep(POLL_S)
    return None


def _start_error(name: str, verdict: Readiness, child: Child, port: int, timeout_s: float) -> ServerError:
    ending = child.ending()
    if verdict is Readiness.DIED:
        return lifecycle.failure(f"{name} ended before it was ready", ending, sys.platform)
    if verdict is Readiness.STRANGER:
        what = f"another program answers on port {port}{_by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    error = lifecycle.failure(f"{name} was not ready after {report.seconds(timeout_s)}", ending, sys.platform)
    return ServerError(error.what, error.facts, error.fix or "--timeout SECONDS gives it longer")


def failed_start(name: str, command: Sequence[str], error: OSError) -> ServerError:
    """The error for a program the system refused to start.

    The number leads, for its text is in the user's language: `[WinError 225] ...`, `[Errno 13] ...`.
    """
    number = getattr(error, "winerror", None)
    code = f"[WinError {number}]" if number else f"[Errno {error.errno}]" if error.errno else ""
    ending = lifecycle.Ending(command, None, f"{code} {error.strerror or error}".strip())
    return lifecycle.failure(f"{name} could not be started", ending, sys.platform)
