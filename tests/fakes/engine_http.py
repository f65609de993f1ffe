"""The fake engine's HTTP side: what llama.cpp's server says. Standard library only."""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from tests.fakes.engine_args import Refused, is_modern

if TYPE_CHECKING:
    from tests.fakes.behaviour import Behaviour

HOPS = 10  # ports that the old server tries
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


@dataclass
class State:
    """What the server's threads share."""

    flags: dict[str, str]
    model: str
    behaviour: Behaviour
    ready: threading.Event

    @property
    def modern(self) -> bool:
        return is_modern(self.behaviour["version"])

    def health(self) -> tuple[int, object]:
        if not self.ready.is_set():
            return 503, LOADING
        status = self.behaviour.get("health_status", 200)
        if status != 200:
            return status, {"status": "error"}
        slots = {} if self.modern else {"slots_idle": 1, "slots_processing": 0}
        return 200, {"status": "ok", **slots}


class Httpd(socketserver.ThreadingTCPServer):
    """The listening socket (http.server's own class asks DNS for the host's name)."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"

    def __init__(self, address: tuple[str, int], state: State) -> None:
        self.state = state
        super().__init__(address, Api)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that left is not worth a word
            super().handle_error(request, client_address)


class Api(BaseHTTPRequestHandler):
    """The routes of llama.cpp's server that clients of it use."""

    protocol_version = "HTTP/1.1"
    server: Httpd

    def do_GET(self) -> None:
        state, path = self.server.state, self.path.partition("?")[0]
        if path == "/health":
            self.reply(*state.health())
        elif path == "/v1/models":
            entry = {"id": state.model, "object": "model", "owned_by": "llamacpp"}
            self.reply(200, {"object": "list", "data": [{**entry, "created": int(time.time())}]})
        elif path == "/":
            self.reply(200, "<html>llama.cpp</html>")
        else:
            self.reply(404, {"error": {"code": 404, "message": "File Not Found"}})

    def do_POST(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = state.flags.get("--api-key")
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self.reply(401, "Unauthorized: Invalid API Key")
        elif self.path != "/v1/chat/completions":
            self.reply(404, {"error": {"code": 404, "message": "File Not Found"}})
        elif not state.ready.is_set():
            self.reply(503, LOADING)
        else:
            self.reply(*chat(body, state.model))

    def reply(self, status: int, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        kind = "text/html" if isinstance(content, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def chat(body: bytes, model: str) -> tuple[int, object]:
    """Answer a chat request with its last user message."""
    try:
        messages = json.loads(body)["messages"]
        echo = [m["content"] for m in messages if m["role"] == "user"][-1]
    except (ValueError, LookupError, TypeError) as error:
        return 400, {"error": {"code": 400, "message": repr(error)}}
    message = {"role": "assistant", "content": echo}
    return 200, {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def bind(state: State) -> Httpd:
    """Listen; an old engine silently takes one of the next ports when its own is busy."""
    host, port = state.flags.get("--host", "127.0.0.1"), int(state.flags.get("--port", "8080"))
    hops = HOPS if state.behaviour.get("hop", not state.modern) else 1
    for candidate in range(port, min(port + hops, 65536)):
        try:
            return Httpd((host, candidate), state)
        except OSError:
            pass
    what = "HTTP server socket" if state.modern else "to server socket"
    raise Refused(f"couldn't bind {what}: hostname={host} port={port}")
