"""Whether a server may take requests: the decision, and waiting for it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from tasks.console import formatting
from tasks.engine import failures
from tasks.engine.client import POLL_S, QUICK_POLL_S, health
from tasks.engine.supervisor_client import Kept
from tasks.errors import ServerError
from tasks.system.ports import by_whom, ports_of
from tasks.system.process_identity import is_running

_QUICK_S = 5.0  # a small model is ready within this: it is looked at more often
_LOOK_S = 1.0  # between two looks on which port it listens
_SAY_S = 10.0  # between two lines while it loads

_log = logging.getLogger("recipe")


class Readiness(Enum):
    """What a look at a starting server says."""

    WAIT = "wait"
    READY = "ready"
    DIED = "died"
    LATE = "late"
    STRANGER = "stranger"  # another program answers on the port
    HOPPED = "hopped"  # it has taken another port than it was told to


class Look(NamedTuple):
    """One look at a starting server."""

    exited: int | None  # exit status, negative for a signal; None while it lives
    health: int | None  # status of GET /health; None where nothing answered
    port: int  # the one it was told to take
    ports: frozenset[int] | None  # on which our process listens; None where nobody has looked, or can
    elapsed_s: float  # since the start


def judge_start(look: Look, timeout_s: float) -> Readiness:
    """The race of three: the endpoint says yes, the process is gone, the deadline has passed.

    A dead child is never waited for (llama-swap#100), and a 200 from another process is not ours
    (mozilla-ai/llamafile#54: old versions hop to the next port without a word).
    """
    elsewhere = look.ports is not None and look.port not in look.ports
    if look.exited is not None:
        return Readiness.DIED
    if look.health == 200 and elsewhere:
        return Readiness.STRANGER
    if look.health == 200:
        return Readiness.READY
    if look.ports and elsewhere:
        return Readiness.HOPPED
    return Readiness.LATE if look.elapsed_s >= timeout_s else Readiness.WAIT


def wait_ready(
    name: str, child: Kept, host: str, port: int, timeout_s: float, stopped: Callable[[], object]
) -> float | None:
    """Wait until the server may take requests.

    Args:
        stopped: says something true when the user asks to stop.

    Returns:
        Seconds it took; None when the user asked to stop.

    Raises:
        ServerError: it died, was too late, listens elsewhere, or another server answers in its place. It may
            still run.
    """
    start = said = looked = time.monotonic()
    while not stopped():
        exited = child.exited()
        status = None if exited is not None else health(host, port)
        now = time.monotonic()
        ports = None
        if status == 200 or (exited is None and now - looked >= _LOOK_S):
            ports, looked = ports_of(child.pid, port), now
        if ports == frozenset() and not is_running(child.pid):  # its keeper will say so in a moment
            status = None
        verdict = judge_start(Look(exited, status, port, ports, now - start), timeout_s)
        if verdict is Readiness.READY:
            return now - start
        if verdict is not Readiness.WAIT:
            raise _start_error(name, verdict, child, port, timeout_s)
        if now - said >= _SAY_S:
            said = now
            _log.info("%s is loading, %s so far", name, formatting.seconds(now - start))
        time.sleep(QUICK_POLL_S if now - start < _QUICK_S else POLL_S)
    return None


def _start_error(name: str, verdict: Readiness, child: Kept, port: int, timeout_s: float) -> ServerError:
    ending = child.ending()
    if verdict is Readiness.DIED and child.told:
        return ServerError(f"{name} was stopped before it was ready")
    if verdict is Readiness.DIED:
        return failures.failure(f"{name} ended before it was ready", ending, sys.platform)
    if verdict is Readiness.STRANGER:
        what = f"another program answers on port {port}{by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    if verdict is Readiness.HOPPED:
        what = f"{name} listens on another port than {port}, which another program has{by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    error = failures.failure(
        f"{name} was not ready after {formatting.seconds(timeout_s)}", ending, sys.platform
    )
    return ServerError(error.what, error.facts, error.fix or "allow more time with --timeout SECONDS")
