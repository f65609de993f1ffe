"""Take servers out of haproxy and put them back, through its runtime API."""

from __future__ import annotations

import csv
import re
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from tasks.console import formatting
from tasks.errors import ServerError
from tasks.system.ports import local_hosts

_POLL_S = 0.1
_ANSWER_S = 10.0
_MAX_BYTES = 16 * 1024 * 1024
_UP_S = 120.0  # until its checks have seen a server that is ready
_SERVERS = "show stat -1 4 -1"  # of all proxies, only servers
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")  # what haproxy permits
# of a server without checks, haproxy knows nothing else
_UP = ("UP", "no check")


class Member(NamedTuple):
    """One server of a backend, as haproxy sees it."""

    backend: str
    name: str
    port: int
    requests: int  # in progress, and queued for it
    status: str  # UP, DOWN, DRAIN, MAINT or `no check`; also `UP 1/2`
    host: str  # its address

    @property
    def title(self) -> str:
        """Return how haproxy's commands name it."""
        return f"{self.backend}/{self.name}"


def parse_servers(text: str) -> list[Member]:
    """Return the servers that `show stat` lists; a line without an address is omitted.

    Raises:
        ValueError: it is not such a list.
    """
    if not text.startswith("# pxname,"):
        raise ValueError(text.strip().partition("\n")[0] or "an empty answer")
    found = []
    for row in csv.DictReader(text.removeprefix("# ").splitlines()):
        names = (row["pxname"] or "", row["svname"] or "")
        address = re.fullmatch(r"\[?([^\[\]]+)\]?:(\d{1,5})", row.get("addr") or "")
        if address is None or not all(map(_NAME.fullmatch, names)):
            continue
        requests = int(row["scur"] or 0) + int(row["qcur"] or 0)
        status = row["status"] or ""
        found.append(Member(*names, int(address[2]), requests, status, address[1]))
    return found


class Haproxy:
    """The runtime API of haproxy.

    Args:
        path: of the socket, `stats socket PATH level admin` in its configuration.
    """

    name = "haproxy"

    def __init__(self, path: str) -> None:
        self._path = path

    def members(self, port: int) -> list[Member]:
        """Return the servers on a port of this machine, of all backends.

        Raises:
            ServerError: haproxy does not answer, or has no such server.
        """
        try:
            known = parse_servers(self._command(_SERVERS))
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            what = f"haproxy at {self._path} does not list its servers: {error}"
            raise ServerError(what, fix="give its socket `level admin`") from None
        found = [member for member in known if member.port == port]
        hosts = local_hosts(member.host for member in found)
        found = [member for member in found if member.host in hosts]
        if not found:
            what = (
                f"haproxy at {self._path} has no server on port {port} of this machine"
            )
            titles = ", ".join(f"{one.title} at {one.host}:{one.port}" for one in known)
            fix = "add `server NAME 127.0.0.1:PORT` to its backend"
            raise ServerError(what, [("servers", titles)], fix=fix)
        return found

    def drain(self, port: int, limit_s: float) -> None:
        """Send no new request to the servers on a port, and wait for the last answer.

        Raises:
            ServerError: a request is still in progress after the time, or haproxy
                refuses; the servers take requests again.
        """
        self._set_state(port, "drain")
        done = self._wait(port, limit_s, lambda one: not one.requests)
        if not done:
            self._set_state(port, "ready")
            most = formatting.format_duration(limit_s)
            what = f"port {port} still has requests after {most}; it was not stopped"
            raise ServerError(what, fix="allow more time with --wait SECONDS")

    def put_back(self, port: int) -> None:
        """Send requests to the servers on a port again, and wait until they are up.

        Raises:
            ServerError: its checks fail, or haproxy refuses.
        """
        self._set_state(port, "ready")
        if not self._wait(port, _UP_S, lambda one: one.status in _UP):
            states = [(one.title, one.status) for one in self.members(port)]
            most = formatting.format_duration(_UP_S)
            what = f"port {port} is not up for haproxy after {most}"
            raise ServerError(what, states, fix="see `option httpchk` of its backend")

    def _wait(
        self, port: int, limit_s: float, is_done: Callable[[Member], bool]
    ) -> bool:
        deadline = time.monotonic() + limit_s
        while not all(map(is_done, self.members(port))):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _set_state(self, port: int, state: str) -> None:
        for member in self.members(port):
            command = f"set server {member.title} state {state}"
            refusal = self._command(command).strip()
            if refusal:
                what = f"haproxy at {self._path} refuses `{command}`: {refusal}"
                raise ServerError(what, fix="give its socket `level admin`")

    def _command(self, text: str) -> str:
        """Send a command; return the answer.

        Raises:
            ServerError: haproxy does not answer.
        """
        blocks = []
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_ANSWER_S)
                link.connect(self._path)
                link.sendall(f"{text}\n".encode())
                while block := link.recv(64 * 1024):
                    blocks.append(block)
                    if sum(map(len, blocks)) > _MAX_BYTES:
                        raise OSError(0, "its answer is too long")
        except (OSError, AttributeError) as error:  # Windows has no such sockets
            reason = getattr(error, "strerror", None) or str(error)
            what = f"haproxy does not answer at {self._path}: {reason}"
            fix = "--haproxy PATH of `stats socket PATH level admin` in haproxy.cfg"
            raise ServerError(what, fix=fix) from None
        return b"".join(blocks).decode("utf-8", "replace")
