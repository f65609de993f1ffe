"""Choose the server that a command line means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tasks.errors import UsageError
from tasks.server.server_record import Mode, ServerRecord

# `doit with` and `doit chat` stop their servers themselves
STOPPABLE = (Mode.START, Mode.SERVE)


class Choice(NamedTuple):
    """Which servers a command line names."""

    names: tuple[str, ...] = ()  # of models; empty: any
    port: int | None = None  # None: any
    files: tuple[tuple[str, str], ...] = ()  # (name, path) of files of the user's

    def of(self, servers: Iterable[ServerRecord]) -> list[ServerRecord]:
        """Return the servers that match."""
        return [
            server
            for server in servers
            if self.port in (None, server.port) and self._matches(server)
        ]

    def _matches(self, server: ServerRecord) -> bool:
        """Whether it is the server of one of the names, and of its file."""
        if not self.names:
            return True
        paths = [path for name, path in self.files if name == server.name]
        if paths:
            return any(path in server.command for path in paths)
        return server.name in self.names


def parse_port(text: str | None) -> int | None:
    """Return the port of `--port`; None without one.

    Raises:
        UsageError: it is not a port.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536:
        return int(text[:6])
    raise UsageError(
        f"--port: expected a port from 1 to 65535, got {text!r}",
        fix="`doit status` shows the ports of the servers",
    )


def check_unambiguous(
    servers: Sequence[ServerRecord], names: Sequence[str], verb: str, fix: str = ""
) -> None:
    """Check that each name means at most one server, or all servers are one.

    Args:
        servers: those that match the command line.
        names: the names on the command line.
        fix: another command that is possible.

    Raises:
        UsageError: several match; it lists them with the command for each.
    """
    groups = [servers]
    if names:
        groups = [[one for one in servers if one.name == name] for name in names]
    for group in groups:
        if len(group) > 1:
            raise _ambiguous(group, verb, fix)


def _ambiguous(group: Sequence[ServerRecord], verb: str, fix: str) -> UsageError:
    name = group[0].name
    what = f"`doit {verb}` is for one server, and {len(group)} are running"
    if all(server.name == name for server in group):
        what = (
            f"`doit {verb}` is for one server, and {len(group)} of {name} are running"
        )
    facts = [(_title(server), _command(server, group, verb)) for server in group]
    return UsageError(what, facts, fix=fix or "run one of these commands")


def _title(server: ServerRecord) -> str:
    pid = "-"
    if server.engine:
        pid = str(server.engine.pid)
    return f"{server.name}, port {server.port}, pid {pid}"


def _command(server: ServerRecord, group: Sequence[ServerRecord], verb: str) -> str:
    """Return the command for one server of several."""
    ports = [one.port for one in group]
    if ports.count(server.port) == 1:
        return f"doit {verb} --port {server.port}"
    return f"doit {verb} --model {server.name} --port {server.port}"
