"""The request that a server of each kind of model answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.errors import ServerError
from tasks.server.server_record import ServerRecord


class Example(NamedTuple):
    """A request: its path and its JSON."""

    path: str
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        """Return the JSON as users type it."""
        return json.dumps(self.body, separators=(",", ":"))


_HELLO = [{"role": "user", "content": "Hello"}]
_RANKED = {"query": "Hello", "documents": ["Good morning", "A file"]}
EXAMPLES: Mapping[str, Example] = {
    "chat": Example("/v1/chat/completions", {"messages": _HELLO}),
    "embedding": Example("/v1/embeddings", {"input": "Hello"}),
    "rerank": Example("/v1/rerank", _RANKED),
}


def probe(kind: str, name: str) -> Example:
    """Return a small request that proves that a model can answer."""
    example = EXAMPLES[kind]
    body = {"model": name, **example.body}
    if kind == "chat":
        body["max_tokens"] = 1
    return Example(example.path, body)


def check_chats(name: str, kind: str) -> None:
    """Check that a model can hold a conversation.

    Raises:
        ServerError: it is of another kind.
    """
    if kind == "chat":
        return
    example = EXAMPLES[kind]
    what = f"{name} does not chat: it is of kind: {kind}"
    request = f"POST {example.text} to URL{example.path}"
    raise ServerError(what, fix=f"doit start --model {name}, then {request}")


def kind_of(record: ServerRecord) -> str:
    """Return the kind of the model of a running server."""
    kind = record.spec.get("kind", "")
    if kind in EXAMPLES:
        return kind
    return "chat"
