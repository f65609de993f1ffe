"""Protect the machine from what a fuzzer may find.

No process of others gets a signal, nothing leaves the machine, nothing fills memory or disk.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import psutil

MEMORY = 3 * 1024**3  # bytes of address space: what grows without end is a MemoryError
FILE = 64 * 1024**2  # bytes of one file

violations: list[str] = []  # of the run that is under way
_strangers: set[int] = set()  # processes that no run has started


def install() -> None:
    """Guard this process, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _guard_sockets()
    _guard_signals()


def begin() -> None:
    """From here on, every process that exists is a stranger; those that begin later are not."""
    violations.clear()
    _strangers.clear()
    _strangers.update(psutil.pids())


def _guard_sockets() -> None:
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        local = str(address[0]).startswith(("127.", "::1", "localhost"))
        if self.family in (socket.AF_INET, socket.AF_INET6) and not local:
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "::1", "localhost", None, ""):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *args, **more)

    socket.socket.connect = guarded_connect  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = guarded_getaddrinfo


def _guard_signals() -> None:
    for name in ("kill", "terminate", "suspend", "send_signal"):
        setattr(psutil.Process, name, _of_process(getattr(psutil.Process, name)))
    os.kill = _of_pid(os.kill)
    os.killpg = _of_pid(os.killpg)


def _of_process(real: Callable[..., None]) -> Callable[..., None]:
    def guarded(self: psutil.Process, *args: Any) -> None:
        if self.pid in _strangers:
            violations.append(f"a signal to process {self.pid}, which no run has started")
            raise psutil.AccessDenied(self.pid)
        real(self, *args)

    return guarded


def _of_pid(real: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def guarded(pid: int, number: int) -> None:
        if number and (abs(pid) in _strangers or pid <= 0):
            violations.append(f"signal {number} to process {pid}, which no run has started")
            raise PermissionError(1, "Operation not permitted")
        real(pid, number)

    return guarded
