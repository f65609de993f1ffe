"""Parse a streamed chat completion: server-sent events and their content. Pure.

Sources: WHATWG, "Server-sent events" (lines, fields, when an event is complete); OpenAI
chat completions (the events); the field `error:` is llama.cpp's own.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tasks.errors import ServerError
from tasks.network.answers import parse_json

MAX_BYTES = 16 * 1024**2  # of one event
DONE = "[DONE]"
_SHOWN = 500  # characters of a response in an error message
_LINE_END = re.compile(rb"\r\n|\n|\r")
_REFUSES = "the server cannot answer"
# llama.cpp and DeepSeek; vLLM and OpenRouter
_REASONING = ("reasoning_content", "reasoning")


class Event(NamedTuple):
    """One event of a stream."""

    data: str
    name: str = ""  # of its `event:` field


class Parser:
    """Split a stream into events, whatever the size of its pieces.

    An event that is incomplete when the stream ends is dropped, as the standard says.
    """

    def __init__(self, most: int = MAX_BYTES) -> None:
        self._most = most
        self._line = bytearray()  # the line that is incomplete so far
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0  # bytes of `_data`
        # the last piece ended with \r, and a following \n belongs to the same line end
        self._after_cr = False
        self._is_first_line = True

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that this piece completes.

        Raises:
            ServerError: an event is too long.
        """
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r"
        first, *following = _LINE_END.split(piece)
        self._line += first
        events: list[Event] = []
        for line in following:
            events += self._end_of_line(bytes(self._line))
            self._line = bytearray(line)
        if len(self._line) + self._size > self._most:
            what = f"the server sent an event of more than {self._most} bytes"
            raise ServerError(what)
        return events

    def _end_of_line(self, line: bytes) -> list[Event]:
        if self._is_first_line:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._is_first_line = False
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
        data = b"\n".join(self._data).decode("utf-8", "replace")
        name = self._name.decode("utf-8", "replace")
        has_data = bool(self._data)  # also one empty line of data
        self._data = []
        self._name = b""
        self._size = 0
        return [Event(data, name)] if has_data else []


class Delta(NamedTuple):
    """What one event adds to the response."""

    text: str = ""
    finished: bool = False  # the response is complete
    is_last: bool = False  # no event follows
    reasoning: str = ""  # text of the model before its answer
    is_cut: bool = False  # the response ended at a limit of tokens


def delta(event: Event) -> Delta:
    """Read an event; one without data adds nothing.

    Raises:
        ServerError: it reports an error, or is malformed.
    """
    content = event.data.strip()
    if content == DONE:
        return Delta(finished=True, is_last=True)
    if event.name == "error":
        raise ServerError(_REFUSES, [("answer", _message(event.data))])
    if not content:
        return Delta()
    try:
        data = parse_json(event.data)
    except ValueError as error:
        raise _malformed(event, f"is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise _malformed(event, "is not a JSON object")
    refusal = data.get("error")
    if refusal:
        raise ServerError(_REFUSES, [("answer", _text_of(refusal))])
    choice = _first(data.get("choices"))
    piece = choice.get("delta")
    reason = choice.get("finish_reason")
    return Delta(
        text=_text(piece, "content"),
        finished=bool(reason),
        reasoning=_text(piece, *_REASONING),
        is_cut=reason == "length",
    )


def _text(piece: object, *names: str) -> str:
    """Return the first of these fields that is text."""
    if not isinstance(piece, dict):
        return ""
    texts = (piece.get(name) for name in names)
    return next((text for text in texts if text and isinstance(text, str)), "")


def _first(choices: object) -> dict[str, Any]:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def _message(data: str) -> str:
    """Return the text of an error event: JSON of several forms, or plain text."""
    try:
        value = parse_json(data)
    except ValueError:
        return data.strip()[:_SHOWN]
    if isinstance(value, dict) and value.get("error"):
        value = value["error"]
    return _text_of(value)


def _text_of(error: object) -> str:
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error)[:_SHOWN]


def _malformed(event: Event, why: str) -> ServerError:
    what = f"the server sent an event that {why}"
    return ServerError(what, [("event", ascii(event.data[:100]))])
