"""Read a streamed chat completion: server-sent events in OpenAI's format."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from tasks.network import sse
from tasks.network.deadline import Deadline

ERROR_TIMEOUT_S = 10.0  # to read the text of an error response
MAX_ERROR_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024


def event_texts(
    response: http.client.HTTPResponse, deadline: Deadline, silence_s: float
) -> Iterator[sse.Delta]:
    """Yield what each event adds to the answer, until `data: [DONE]`.

    Llamafile before 0.10 does not send `[DONE]`. There, the stream may end after
    a choice with a finish_reason.

    Args:
        response: the open response.
        deadline: renewed at each event.
        silence_s: seconds allowed between two events.

    Raises:
        OSError, http.client.HTTPException: the stream ended too early.
        ServerError: an event is malformed, too long, or reports an error.
    """
    parser = sse.Parser()
    finished = False
    while data := response.read1(_READ_BYTES):
        for event in parser.feed(data):
            delta = sse.delta(event)
            yield delta
            if delta.is_last:
                return
            finished = finished or delta.finished
            deadline.renew(silence_s)
    if not finished:
        raise ConnectionError("the connection was closed")
