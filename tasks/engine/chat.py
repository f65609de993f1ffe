"""One answer of a server, as it is generated: OpenAI's chat completions, as server-sent events."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from tasks.network import sse
from tasks.network.deadline import Deadline

_ERROR_S = 10.0  # for the text of an error
_MOST_ERROR = 64 * 1024  # bytes of it
_PIECE = 64 * 1024  # bytes that are read at once


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
