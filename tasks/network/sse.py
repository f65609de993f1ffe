"""A streamed chat completion: server-sent events, and what each of them says. Pure.

Sources: WHATWG, "Server-sent events" (lines, fields, when an event is complete); OpenAI's chat completions
for the events; `error:` as a field is llama.cpp's own.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tasks.errors import ServerError
from tasks.network.answers import parsed

MOST_BYTES = 16 * 1024**2  # of one event
DONE = "[DONE]"
_SHOWN = 500  # characters of an answer in an error
_LINE_END = re.compile(rb"\r\n|\n|\r")
_REFUSES = "the server cannot answer"


class Event(NamedTuple):
    """One event of a stream."""

    data: str
    name: str = ""  # of its `event:` field


class Parser:
    """Split a stream into events, in whatever pieces it arrives.

    An event that has not ended when the stream does is dropped, as the standard demands.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._line = bytearray()  # that has not ended
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0  # bytes of `_data`
        self._after_cr = False  # the last piece ended with \r: an \n that follows belongs to it
        self._is_first_line = True

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that this piece completes. Raises ServerError: one is too long."""
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r"
        first, *others = _LINE_END.split(piece)
        self._line += first
        found: list[Event] = []
        for following in others:
            found += self._end_of_line(bytes(self._line))
            self._line = bytearray(following)
        if len(self._line) + self._size > self._most:
            raise ServerError(f"the server sent an event of more than {self._most} bytes")
        return found

    def _end_of_line(self, line: bytes) -> list[Event]:
        if self._is_first_line:
            line, self._is_first_line = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == b"event":
            self._name = value
        elif field == b"error":  # llama.cpp before 2025
            return [Event(value.decode("utf-8", "replace"), "error")]
        return []

    def _dispatch(self) -> list[Event]:
        data, name = b"\n".join(self._data), self._name
        self._data, self._name, self._size = [], b"", 0
        if not data:
            return []
        return [Event(data.decode("utf-8", "replace"), name.decode("utf-8", "replace"))]


class Delta(NamedTuple):
    """What one event adds to the answer."""

    text: str = ""
    finished: bool = False  # the answer is complete
    is_last: bool = False  # nothing follows


def delta(event: Event) -> Delta:
    """Read an event. Raises ServerError: it reports an error, or has another form."""
    if event.data.strip() == DONE:
        return Delta(finished=True, is_last=True)
    if event.name == "error":
        raise ServerError(_REFUSES, [("answer", _message(event.data))])
    try:
        data = parsed(event.data)
    except ValueError as error:
        raise _malformed(event, f"is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise _malformed(event, "is not a JSON object")
    if refusal := data.get("error"):
        raise ServerError(_REFUSES, [("answer", _text_of(refusal))])
    choice = _first(data.get("choices"))
    piece = choice.get("delta")
    content = piece.get("content") if isinstance(piece, dict) else None
    return Delta(content if isinstance(content, str) else "", bool(choice.get("finish_reason")))


def _first(choices: object) -> dict[str, Any]:
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _message(data: str) -> str:
    """The text of an error that is an event of its own: JSON of several shapes, or text."""
    try:
        value = parsed(data)
    except ValueError:
        return data.strip()[:_SHOWN]
    if isinstance(value, dict) and value.get("error"):
        value = value["error"]
    return _text_of(value)


def _text_of(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or error)[:_SHOWN]


def _malformed(event: Event, why: str) -> ServerError:
    shown = event.data[:100]
    return ServerError(f"the server sent an event that {why}", [("event", ascii(shown))])
