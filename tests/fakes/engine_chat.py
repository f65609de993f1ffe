"""What the fake engine generates, and in which JSON. Standard library only.

Sources: server.cpp and oai.h (0.9.3) for the old shapes, llama.cpp's server-task.cpp for the new.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CHAT, COMPLETION = "/v1/chat/completions", "/completion"
DONE = "[DONE]"  # ends a chat's stream; the old server just stops
KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
KINDS |= {501: "not_supported_error", 503: "unavailable_error"}
# The old server's error handler replaces what its routes say.
OLD_TEXTS = {400: "Invalid request", 401: "Unauthorized", 404: "File Not Found"}

# How a stream may be written: the bytes of the first event with text, given its JSON.
# WHATWG allows those in WELL; those in ILL end the stream.
WELL: dict[str, Callable[[str], str]] = {
    "emptydata": lambda text: f"data:\n\ndata: {text}\n\n",
    "comments": lambda text: f": ping\n\n:\ndata: {text}\n: more\n\n",
    "fields": lambda text: f"event: message\nid: 7\nretry: 10\nother\ndata:{text}\n\n",
    "multidata": lambda text: "".join(f"data: {line}\n" for line in indented(text)) + "\n",
    "cr": lambda text: f"data: {text}\r\r",
    "bigline": lambda text: f'data: {text[:-1]}, "pad": "{"x" * 200_000}"}}\n\n',
    "crlf": lambda text: f"data: {text}\r\n\r\n",
}
ILL: dict[str, Callable[[str], str]] = {
    "cuthalf": lambda text: f"data: {text[: len(text) // 2]}",
    "noblank": lambda text: f"data: {text}\n",
    "notjson": lambda _: "data: nope\n\n",
    "list": lambda _: "data: [1]\n\n",
    "null": lambda _: "data: null\n\n",
    "errstr": lambda _: 'data: {"error": "the test wants an error"}\n\n',
    "errevent": lambda _: "event: error\ndata: the test wants an error\n\n",
}
ODD = {**WELL, **ILL}


def indented(text: str) -> list[str]:
    """Return the lines of JSON that is written for people."""
    return json.dumps(json.loads(text), indent=1).splitlines()


def failure(modern: bool, status: int, message: str) -> tuple[int, object]:
    """Return an error as the server words it: JSON since 0.10, plain text before."""
    if modern:
        kind = KINDS.get(status, "server_error")
        return status, {"error": {"code": status, "message": message, "type": kind}}
    return status, OLD_TEXTS.get(status, f"{status} Internal Server Error\n{message}")


class Task:
    """One request, and the words that answer it.

    Args:
        words: with their spaces: what they join to is the answer.
        limited: the request's limit ends it, not the answer's end.
        thoughts: how many of the words are reasoning.
    """

    def __init__(
        self, *, chat: bool, modern: bool, stream: bool, usage_asked: bool, model: str, prompt: str,
        words: list[str], limited: bool, thoughts: int = 0,
    ) -> None:  # fmt: skip
        self.chat, self.modern, self.stream, self.usage_asked = chat, modern, stream, usage_asked
        self.model, self.prompt, self.words, self.limited = model, prompt, words, limited
        self.thoughts, self.slot, self.reasoning_field = thoughts, 0, "reasoning_content"

    @property
    def reason(self) -> str:
        return "length" if self.limited else "stop"

    def usage(self) -> dict[str, int]:
        asked, given = len(tokens(self.prompt)), len(self.words)
        return {"prompt_tokens": asked, "completion_tokens": given, "total_tokens": asked + given}

    def begin(self) -> list[object]:
        """Return the events before the first word."""
        role = {"role": "assistant", **({"content": None} if self.modern else {})}
        return [self.chunk(role)] if self.chat else []

    def partial(self, count: int) -> object:
        """Return the event that brings the word number `count`, from 1."""
        word = self.words[count - 1]
        if self.chat and count <= self.thoughts:
            return self.chunk({self.reasoning_field: word})
        if self.chat:
            return self.chunk({"content": word})
        if not self.modern:
            return {"content": word, "stop": False, "slot_id": self.slot, "multimodal": False}
        event = {"index": 0, "content": word, "tokens": [count], "stop": False, "id_slot": self.slot}
        return {**event, "tokens_predicted": count, "tokens_evaluated": len(tokens(self.prompt))}

    def end(self) -> list[object]:
        """Return the events after the last word."""
        if not self.chat:
            return [self.completion("")]
        last: list[object] = [self.chunk({}, self.reason)]
        if self.modern and self.usage_asked:
            last.append({**self.head("chat.completion.chunk"), "choices": [], "usage": self.usage()})
        return [*last, DONE] if self.modern else last

    def whole(self) -> object:
        """Return the answer to a request that wants no stream."""
        text = "".join(self.words)
        if not self.chat:
            return self.completion(text)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": self.reason, "message": message}
        return {**self.head("chat.completion"), "choices": [choice], "usage": self.usage()}

    def head(self, kind: str) -> dict[str, Any]:
        head = {"id": "chatcmpl-fake", "object": kind, "created": int(time.time()), "model": self.model}
        return {**head, "system_fingerprint": "b1-fake"} if self.modern else head

    def chunk(self, delta: object, reason: str | None = None) -> object:
        choice = {"index": 0, "finish_reason": reason, "delta": delta}
        return {**self.head("chat.completion.chunk"), "choices": [choice]}

    def completion(self, text: str) -> object:
        """Return what ends a /completion."""
        counts = {"tokens_predicted": len(self.words), "tokens_evaluated": len(tokens(self.prompt))}
        told = {"content": text, "stop": True, "model": self.model, "prompt": self.prompt, **counts}
        told |= {"truncated": False, "stopping_word": ""}
        if self.modern:
            return {"index": 0, **told, "id_slot": self.slot, "stop_type": "limit" if self.limited else "eos"}
        stops = {"stopped_eos": not self.limited, "stopped_word": False, "stopped_limit": self.limited}
        return {**told, "slot_id": self.slot, **stops}


def read(
    path: str, body: bytes, modern: bool, model: str, answer: str | None, most: int, reasoning: str = ""
) -> Task:
    """Understand a request; ValueError, LookupError or TypeError if it is none.

    The answer is the last user message, or the prompt, unless the test gives another.
    `most` is --n-predict: a cap before 0.10, then what a request without a limit gets; -1 for none.
    """
    asked = json.loads(body)
    chat = path == CHAT
    prompt = user_text(asked["messages"]) if chat else str(asked["prompt"])
    names = ["max_completion_tokens", "max_tokens"] if modern else ["max_tokens"]
    limits = [asked[name] for name in (names if chat else ["n_predict"]) if asked.get(name) is not None]
    limit = int(limits[0]) if limits else -1
    if limit < 0 or (not modern and 0 < most < limit):
        limit = most
    thoughts = tokens(reasoning)
    words = thoughts + tokens(prompt if answer is None else answer)
    return Task(
        chat=chat,
        modern=modern,
        stream=bool(asked.get("stream")),
        usage_asked=bool((asked.get("stream_options") or {}).get("include_usage")),
        model=model if modern or not chat else str(asked.get("model", "unknown")),
        prompt=prompt,
        words=words[:limit] if limit >= 0 else words,
        limited=0 <= limit <= len(words),
        thoughts=len(thoughts),
    )


def user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last message of the user."""
    content = [message["content"] for message in messages if message["role"] == "user"][-1]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def tokens(text: str) -> list[str]:
    """Split a text into words that keep the space before them."""
    return re.findall(r"\s*\S+|\s+", text)
