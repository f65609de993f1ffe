"""Decide which servers of one model `doit start` starts, and which run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.catalogue.endpoints import Servable
from tasks.server.server_record import Mode, ServerRecord


class Replica(NamedTuple):
    """One server that is asked for."""

    resolved: Servable  # with its port, if one was requested
    record: ServerRecord | None  # of the one that runs; None: to be started


def plan(resolved: Servable, running: Sequence[ServerRecord]) -> list[Replica]:
    """Return the servers that are asked for, in the order of their ports.

    A requested port is that of the first one, and the others have the next ports.
    Without one, those that run are the first.
    """
    count = resolved.replicas
    port = resolved.requested_port
    if not port:
        found: list[ServerRecord | None] = [*running[:count]]
        found += [None] * (count - len(found))
        return [Replica(resolved, record) for record in found]
    by_port = {record.port: record for record in running}
    return [
        Replica(resolved._replace(requested_port=one), by_port.get(one))
        for one in range(port, port + count)
    ]


def first_of_each(servers: Sequence[ServerRecord]) -> list[ServerRecord]:
    """Return the servers without those that only differ from an earlier in the port.

    They are servers of `doit start`: one of `doit serve` ends with its terminal.
    """
    kept: list[ServerRecord] = []
    for server in servers:
        if not any(_is_replica(server, one) for one in kept):
            kept.append(server)
    return kept


def _is_replica(server: ServerRecord, other: ServerRecord) -> bool:
    if Mode.START is not server.mode or Mode.START is not other.mode:
        return False
    same = server.name == other.name and server.key == other.key
    return same and _without_port(server.spec) == _without_port(other.spec)


def _without_port(spec: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in spec.items() if name != "--port"}
