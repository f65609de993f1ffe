"""A server as its clients see it: health, a first token, a streamed answer."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence

from tasks import urls
from tasks.console import formatting
from tasks.engine.chat import _ERROR_S, _MOST_ERROR, _texts
from tasks.engine.server_record import Run
from tasks.errors import ServerError
from tasks.network import deadline
from tasks.network.answers import busy_slots
from tasks.network.deadline import Deadline, connection

_SILENCE_S = 600.0  # without an event; a long prompt on a slow machine takes minutes

POLL_S = 0.05  # between two looks at a starting server
QUICK_POLL_S = 0.01  # the same, at first

_HEALTH_S = 2.0  # for one answer of /health
_MOST = 1024 * 1024  # bytes of an answer that are read
_JSON = {"Content-Type": "application/json"}

_log = logging.getLogger("recipe")


def call(
    host: str, port: int, path: str, *, body: object = None, key: str = "", timeout_s: float = _HEALTH_S
) -> tuple[int, bytes] | None:
    """Status and body of one request; None where nothing answers. Proxies are not for this.

    Args:
        timeout_s: for the whole answer.
    """
    connection = deadline.connection(urls.reachable(host), port, deadline.Deadline(timeout_s))
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


def stream(
    run: Run, messages: Sequence[Mapping[str, str]], silence_s: float = _SILENCE_S
) -> Generator[str, None, None]:
    """The pieces of the answer. Closed early, the server stops generating.

    Args:
        silence_s: seconds for the first event, and for each one that follows.

    Raises ServerError: it refuses, goes away before the end, or sends something else.
    """
    body = json.dumps({"model": run.name, "messages": list(messages), "stream": True})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {run.key or 'none'}"}
    deadline = Deadline(silence_s)
    link = connection(urls.reachable(run.host), run.port, deadline)
    try:
        link.request("POST", "/v1/chat/completions", body.encode(), headers)
        answer = link.getresponse()
        if answer.status != 200:
            deadline.renew(min(_ERROR_S, silence_s))
            text = answer.read(_MOST_ERROR).decode("utf-8", "replace").strip()
            facts = [("status", answer.status), ("answer", text[:500])]
            raise ServerError(f"{run.name} at {run.url} does not answer", facts, fix=_fix(answer.status))
        yield from _texts(answer, deadline, silence_s)
    except (OSError, ValueError, http.client.HTTPException) as error:
        what = (
            f"{run.name} at {run.url} went away in the middle of its answer ({error or type(error).__name__})"
        )
        raise ServerError(what, fix=f"doit logs --model {run.name}") from None
    finally:
        link.close()


def _fix(status: int) -> str:
    return "LLAMA_API_KEY has to be the key it was started with" if status in (401, 403) else ""
