"""One answer of a server, as it is generated: OpenAI's chat completions, as server-sent events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from tasks.core import report
from tasks.core.errors import ServerError
from tasks.core.run import Run

_SILENCE_S = 600.0  # without a token; a long prompt on a slow machine takes minutes
_MOST = 64 * 1024  # bytes of an error, or of one event


def stream(run: Run, messages: Sequence[Mapping[str, str]]) -> Generator[str, None, None]:
    """The pieces of the answer. Closed early, the server stops generating.

    Raises ServerError: it refuses, or goes away before the end.
    """
    body = json.dumps({"model": run.name, "messages": list(messages), "stream": True})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {run.key or 'none'}"}
    connection = http.client.HTTPConnection(report.reachable(run.host), run.port, timeout=_SILENCE_S)
    try:
        connection.request("POST", "/v1/chat/completions", body.encode(), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            text = answer.read(_MOST).decode("utf-8", "replace").strip()
            facts = [("status", answer.status), ("answer", text[:500])]
            raise ServerError(f"{run.name} at {run.url} does not answer", facts, fix=_fix(answer.status))
        yield from _pieces(answer)
    except (OSError, http.client.HTTPException) as error:
        what = (
            f"{run.name} at {run.url} went away in the middle of its answer ({error or type(error).__name__})"
        )
        raise ServerError(what, fix=f"doit logs --model {run.name}") from None
    finally:
        connection.close()


def _fix(status: int) -> str:
    return "LLAMA_API_KEY has to be the key it was started with" if status in (401, 403) else ""


def _pieces(answer: http.client.HTTPResponse) -> Iterator[str]:
    """The text of each event. Source: WHATWG's server-sent events; `data: [DONE]` is OpenAI's end.

    Llamafile before 0.10 does not send that: there a choice with its finish_reason is the last.
    """
    finished = False
    while line := answer.readline(_MOST):
        field, _, value = line.decode("utf-8", "replace").strip().partition(":")
        if field == "error":  # llama.cpp's own
            raise ServerError("the server cannot answer", [("answer", value.strip())])
        if field != "data":
            continue
        if value.strip() == "[DONE]":
            return
        choice = _choice(json.loads(value))
        finished = finished or bool(choice.get("finish_reason"))
        yield str((choice.get("delta") or {}).get("content") or "")
    if not finished:
        raise http.client.IncompleteRead(b"")


def _choice(event: Any) -> Any:
    if event.get("error"):
        raise ServerError("the server cannot answer", [("answer", event["error"].get("message"))])
    return (event.get("choices") or [{}])[0]
