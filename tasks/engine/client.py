"""A server as its clients see it: health, readiness, a first token, requests in flight."""

from __future__ import annotations

import http.client
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence

from tasks.console import formatting
from tasks.engine import readiness
from tasks.engine.readiness import POLL_S, QUICK_POLL_S, Look, Readiness
from tasks.engine.supervisor_client import Kept
from tasks.errors import ServerError
from tasks.network import deadline
from tasks.network.answers import busy_slots
from tasks.system.ports import by_whom, ports_of
from tasks.system.process_identity import is_running

_HEALTH_S = 2.0  # for one answer of /health
_QUICK_S = 5.0  # a small model is ready within this: it is looked at more often
_LOOK_S = 1.0  # between two looks on which port it listens
_MOST = 1024 * 1024  # bytes of an answer that are read
_JSON = {"Content-Type": "application/json"}
_SAY_S = 10.0  # between two lines while it loads

_log = logging.getLogger("recipe")


def call(
    host: str, port: int, path: str, *, body: object = None, key: str = "", timeout_s: float = _HEALTH_S
) -> tuple[int, bytes] | None:
    """Status and body of one request; None where nothing answers. Proxies are not for this.

    Args:
        timeout_s: for the whole answer.
    """
    connection = deadline.connection(formatting.reachable(host), port, deadline.Deadline(timeout_s))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    text = None if body is None else json.dumps(body)
    try:
        connection.request("GET" if body is None else "POST", path, text, {**headers, **_JSON})
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST)
    except (OSError, ValueError, http.client.HTTPException):  # ValueError: a number that is not one
        return None
    finally:
        connection.close()


def health(host: str, port: int, timeout_s: float = _HEALTH_S) -> int | None:
    """Status of GET /health; None where nothing answers."""
    answer = call(host, port, "/health", timeout_s=timeout_s)
    return answer[0] if answer else None


def in_flight(host: str, port: int, key: str, timeout_s: float = _HEALTH_S) -> int | None:
    """Requests that a server works on, where it tells: /health up to llamafile 0.9, /slots since."""
    for path in ("/health", "/slots"):
        answer = call(host, port, path, key=key, timeout_s=timeout_s)
        count = busy_slots(answer[1]) if answer and answer[0] == 200 else None
        if count is not None:
            return count
    return None


def probe(
    name: str, host: str, port: int, key: str, timeout_s: float, stopped: Callable[[], object] = lambda: False
) -> bool:
    """Have one token generated: the proof that it does what it is for.

    Args:
        stopped: says something true when the user asks to stop, who does not wait for minutes.

    Returns:
        Whether it was; not when the user asked to stop.

    Raises ServerError.
    """
    body = {"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    answers: list[tuple[int, bytes] | None] = []

    def ask() -> None:
        limit = max(1.0, timeout_s)
        answers.append(call(host, port, "/v1/chat/completions", body=body, key=key, timeout_s=limit))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    while thread.is_alive():
        if stopped():
            return False
        thread.join(QUICK_POLL_S)
    answer = answers[0]
    if answer is None:
        what = f"{name} is up and did not answer a request within {formatting.seconds(timeout_s)}"
        raise ServerError(what, fix="--timeout SECONDS gives it longer")
    if answer[0] != 200:
        text = answer[1].decode("utf-8", "replace").strip()
        raise ServerError(f"{name} is up and cannot answer", [("status", answer[0]), ("answer", text[:500])])
    return True


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
        verdict = readiness.judge_start(Look(exited, status, port, ports, now - start), timeout_s)
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
        return readiness.failure(f"{name} ended before it was ready", ending, sys.platform)
    if verdict is Readiness.STRANGER:
        what = f"another program answers on port {port}{by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    if verdict is Readiness.HOPPED:
        what = f"{name} listens on another port than {port}, which another program has{by_whom(port)}"
        return ServerError(what, fix="--port 0 takes a free one")
    error = readiness.failure(
        f"{name} was not ready after {formatting.seconds(timeout_s)}", ending, sys.platform
    )
    return ServerError(error.what, error.facts, error.fix or "--timeout SECONDS gives it longer")


def failed_start(name: str, command: Sequence[str], error: OSError) -> ServerError:
    """The error for a program the system refused to start.

    The number leads, for its text is in the user's language: `[WinError 225] ...`, `[Errno 13] ...`.
    """
    number = getattr(error, "winerror", None)
    code = f"[WinError {number}]" if number else f"[Errno {error.errno}]" if error.errno else ""
    ending = readiness.Ending(command, None, f"{code} {error.strerror or error}".strip())
    return readiness.failure(f"{name} could not be started", ending, sys.platform)
