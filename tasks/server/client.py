"""Talk to a server as its clients do: health, one token, a streamed answer."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from tasks import urls
from tasks.console import formatting
from tasks.errors import ServerError
from tasks.network.answers import busy_slots
from tasks.network.deadline import Deadline, connection
from tasks.server import requests_by_kind
from tasks.server.client_environment import context_of_props
from tasks.server.server_record import ServerRecord

if TYPE_CHECKING:
    from tasks.network.sse import Delta

# without an event: a long prompt on a slow machine takes minutes
_SILENCE_S = 600.0

# between two polls of a starting server; it is polled more often at first
POLL_S = 0.05
QUICK_POLL_S = 0.01

_HEALTH_S = 2.0
_MAX_RESPONSE_BYTES = 1024 * 1024
_JSON = {"Content-Type": "application/json"}


def send_request(
    host: str,
    port: int,
    path: str,
    *,
    body: object = None,
    key: str = "",
    timeout_s: float = _HEALTH_S,
) -> tuple[int, bytes] | None:
    """Send one request; return status and body, or None without a valid response.

    Proxies are not used.

    Args:
        body: sent as JSON with POST; None sends GET.
        timeout_s: for the whole response.
    """
    link = connection(urls.reachable(host), port, Deadline(timeout_s))
    headers = dict(_JSON)
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        if body is None:
            link.request("GET", path, headers=headers)
        else:
            link.request("POST", path, json.dumps(body), headers)
        response = link.getresponse()
        return response.status, response.read(_MAX_RESPONSE_BYTES)
    except (OSError, ValueError, http.client.HTTPException):
        # ValueError: http.client could not parse a number
        return None
    finally:
        link.close()


def health(host: str, port: int, timeout_s: float = _HEALTH_S) -> int | None:
    """Return the status of GET /health; None without a valid response."""
    response = send_request(host, port, "/health", timeout_s=timeout_s)
    return response[0] if response else None


def served_context(record: ServerRecord) -> int | None:
    """Return the tokens of context of one request; None where the server is silent."""
    response = send_request(record.host, record.port, "/props", key=record.key)
    if response is None or response[0] != 200:
        return None
    return context_of_props(response[1])


def in_flight(
    host: str, port: int, key: str, timeout_s: float = _HEALTH_S
) -> int | None:
    """Count the requests that a server is processing; None where it does not tell.

    Llamafile up to 0.9 reports them in /health, later versions in /slots.
    """
    for path in ("/health", "/slots"):
        response = send_request(host, port, path, key=key, timeout_s=timeout_s)
        if response is None or response[0] != 200:
            continue
        count = busy_slots(response[1])
        if count is not None:
            return count
    return None


def probe_inference(
    name: str,
    host: str,
    port: int,
    key: str,
    timeout_s: float,
    stopped: Callable[[], object] = lambda: False,
    kind: str = "chat",
) -> bool:
    """Ask for one token, or one embedding, to prove that the server can answer.

    Args:
        kind: of the model.
        stopped: returns a true value when the user asked to stop. It is polled,
            because an answer can take minutes.

    Returns:
        True after the answer; False when the user asked to stop.

    Raises:
        ServerError: the server sent an error, or nothing within `timeout_s`.
    """
    probe = requests_by_kind.probe(kind, name)
    responses: list[tuple[int, bytes] | None] = []

    def request() -> None:
        limit = max(1.0, timeout_s)
        responses.append(
            send_request(
                host, port, probe.path, body=probe.body, key=key, timeout_s=limit
            )
        )

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    while thread.is_alive():
        if stopped():
            return False
        thread.join(QUICK_POLL_S)
    response = responses[0]
    if response is None:
        limit = formatting.format_duration(timeout_s)
        what = f"{name} is running but did not answer a request within {limit}"
        raise ServerError(what, fix="allow more time with --timeout SECONDS")
    if response[0] != 200:
        what = f"{name} is running but answered a request with an error"
        raise ServerError(what, _error_facts(*response))
    return True


def stream_chat(
    record: ServerRecord,
    messages: Sequence[Mapping[str, str]],
    silence_s: float = _SILENCE_S,
    model: str = "",
) -> Generator[Delta, None, None]:
    """Yield the pieces of an answer. Closing the generator stops the server's work.

    Args:
        silence_s: seconds until the first event, and between two events.
        model: of an endpoint; empty for the only one.

    Raises:
        ServerError: the server sent an error, ended the answer too early, or sent
            something else than events.
    """
    from tasks.server.chat import ERROR_TIMEOUT_S, MAX_ERROR_BYTES, event_texts

    request = {
        "model": model or record.name,
        "messages": list(messages),
        "stream": True,
    }
    headers = {**_JSON, "Authorization": f"Bearer {record.key or 'none'}"}
    deadline = Deadline(silence_s)
    link = connection(urls.reachable(record.host), record.port, deadline)
    try:
        link.request("POST", "/v1/chat/completions", json.dumps(request), headers)
        response = link.getresponse()
        if response.status != 200:
            deadline.renew(min(ERROR_TIMEOUT_S, silence_s))
            facts = _error_facts(response.status, response.read(MAX_ERROR_BYTES))
            what = f"{record.name} at {record.url} answered with an error"
            raise ServerError(what, facts, fix=_fix(response.status))
        yield from event_texts(response, deadline, silence_s)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error or type(error).__name__
        what = f"{record.name} at {record.url} did not complete its answer ({reason})"
        raise ServerError(what, fix=f"doit logs --model {record.name}") from None
    finally:
        link.close()


def _error_facts(status: int, body: bytes) -> list[tuple[str, object]]:
    text = body.decode("utf-8", "replace").strip()
    return [("status", status), ("answer", text[:500])]


def _fix(status: int) -> str:
    if status in (401, 403):
        return "set LLAMA_API_KEY to the key that the server was started with"
    return ""
