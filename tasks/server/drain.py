"""Let a server finish its answers before it is stopped; wait until it is idle."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from tasks import urls
from tasks.console import formatting
from tasks.network import answers
from tasks.server import drain_request
from tasks.server.client import send_request
from tasks.server.router import Router
from tasks.server.router_report import is_router
from tasks.server.router_state import ModelState
from tasks.server.server_record import ServerRecord
from tasks.system.processes import EngineProcess

_POLL_S = 0.1
_IDLE_POLLS = 2  # between two requests that wait for a slot, none may be busy
_ANSWER_S = 1.0
# llamafile up to 0.9 counts its requests in /health, later versions in /slots
_SOURCES = (
    ("/health", answers.busy_slots),
    ("/slots", answers.busy_slots),
    ("/metrics", answers.requests_in_metrics),
)


def requests_of(server: ServerRecord) -> int | None:
    """Count the requests that a server works on.

    Returns:
        At least 1 for a server that is too busy to answer; None for one that does not
        tell, or does not listen.
    """
    if is_router(server):
        return _requests_of_router(server)
    for path, count in _SOURCES:
        response = send_request(
            server.host, server.port, path, key=server.key, timeout_s=_ANSWER_S
        )
        if response is None:
            return _busy_or_unknown(server)
        status, body = response
        requests = None
        if status == 200:
            requests = count(body)
        if requests is not None:
            return requests
    return None


def _requests_of_router(server: ServerRecord) -> int | None:
    """Count the requests of all models behind an endpoint: the router has no count.

    A model that is being loaded has one, and so has a model that does not tell: it may
    have been unloaded since.
    """
    router = Router.of(server)
    models = router.models(_ANSWER_S)
    if models is None:
        return _busy_or_unknown(server)
    total = 0
    for model in models:
        if model.state is ModelState.LOADING:
            total += 1
        elif model.state is ModelState.LOADED:
            busy = router.busy(model.name, _ANSWER_S)
            total += 1 if busy is None else busy
    return total


def _busy_or_unknown(server: ServerRecord) -> int | None:
    """Return 1 for a server that accepts connections, and answers none in time."""
    try:
        address = (urls.reachable(server.host), server.port)
        socket.create_connection(address, _ANSWER_S).close()
    except OSError:
        return None
    return 1


def wait_idle(
    count: Callable[[], int | None],
    limit_s: float,
    give_up: Callable[[], bool] = lambda: False,
) -> int | None:
    """Wait until no request is in progress.

    Args:
        count: returns how many are; None if that is unknown.
        give_up: returns True to wait no longer.

    Returns:
        What `count` returned last: 0, None, or what is left at the end of the time.
    """
    deadline = time.monotonic() + limit_s
    idle = 0
    while True:
        requests = count()
        if requests is None:
            return None
        idle += 1
        if requests:
            idle = 0
        if idle == _IDLE_POLLS:
            return 0
        if time.monotonic() >= deadline or give_up():
            return requests
        time.sleep(_POLL_S)


def progress(name: str, requests: int, limit_s: float) -> str:
    """Return the text for a server that works on its last requests."""
    what = "a request"
    if requests > 1:
        what = f"{requests} requests"
    most = formatting.format_duration(limit_s)
    return f"{name} finishes {what} before it ends, for at most {most}"


def finish_answers(
    server: ServerRecord,
    engine: EngineProcess,
    kill_now: Callable[[], bool],
    report: Callable[..., Any],
) -> None:
    """Wait until an engine has no request, or its time is over; for its supervisor.

    The embedded engine does the rest itself, and ends: it accepts no further request.

    Args:
        kill_now: returns True to wait no longer.
        report: is called with a text, once, if there are requests.
    """
    limit_s = float(server.drain)
    asked = drain_request.read(server.path)
    if asked is not None:
        limit_s = float(asked)
    if server.ready_s is None or not limit_s:
        return
    requests = requests_of(server)
    if requests:
        report(draining=progress(server.name, requests, limit_s))
    if os.name == "posix" and server.spec.get("--engine", "").startswith("embedded"):
        engine.terminate(limit_s, kill_now)
        return
    wait_idle(
        lambda: requests_of(server),
        limit_s,
        lambda: kill_now() or engine.exited() is not None,
    )
