"""One answer of a server, as it is generated: OpenAI's chat completions, as server-sent events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping, Sequence

from tasks.console import formatting
from tasks.engine.server_record import Run
from tasks.errors import ServerError
from tasks.network import sse
from tasks.network.deadline import Deadline, connection

_SILENCE_S = 600.0  # without an event; a long prompt on a slow machine takes minutes
_ERROR_S = 10.0  # for the text of an error
_MOST_ERROR = 64 * 1024  # bytes of it
_PIECE = 64 * 1024  # bytes that are read at once


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
    link = connection(formatting.reachable(run.host), run.port, deadline)
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


def _texts(answer: http.client.HTTPResponse, deadline: Deadline, silence_s: float) -> Iterator[str]:
    """The text of each event; `data: [DONE]` is the last.

    Llamafile before 0.10 does not send that: there a choice with its finish_reason is the last.
    """
    parser, finished = sse.Parser(), False
    while piece := answer.read1(_PIECE):
        for event in parser.feed(piece):
            found = sse.delta(event)
            yield found.text
            if found.is_last:
                return
            finished = finished or found.finished
            deadline.renew(silence_s)
    if not finished:
        raise http.client.IncompleteRead(b"")
