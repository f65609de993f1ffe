"""The fake engine's HTTP side: what llama.cpp's server says. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import socketserver
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.fakes.engine_args import Refused, is_modern
from tests.fakes.engine_chat import CHAT, COMPLETION, ILL, ODD, Task, failure, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.behaviour import Behaviour

HOPS = 10  # times that the old server tries the next port (server.cpp:3141)
SLOTS_OLD, SLOTS_NEW = 1, 4  # --parallel's default; 4 is upstream's since the end of 2025
POLL = 0.02  # seconds between two looks at the client
LOADING = failure(True, 503, "Loading model")
LOADING_OPEN = ("/health", "/v1/models")  # of the new server: have answers of their own while it loads
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}
KEY_OPEN = ("/", "/health", "/v1/health", "/v1/models")  # of the new server: need no key


class State:
    """What the server's threads share."""

    def __init__(
        self, flags: dict[str, str], model: str, behaviour: Behaviour, ready: threading.Event, keys: list[str]
    ) -> None:
        self.flags = flags
        self.model = model
        self.behaviour = behaviour
        self.ready = ready
        self.keys = keys
        self.lock = threading.Lock()
        count = int(self.flags.get("--parallel", "-1"))  # one for each slot
        self.busy = [False] * (count if count > 0 else SLOTS_NEW if self.modern else SLOTS_OLD)

    @property
    def modern(self) -> bool:
        return is_modern(self.behaviour["version"])

    def health(self) -> tuple[int, object]:
        if not self.ready.is_set():
            return LOADING
        status = self.behaviour.get("health_status", 200)
        if status != 200:
            return status, {"status": "error"}
        if self.modern:
            return 200, {"status": "ok"}
        working = sum(self.busy)
        idle = len(self.busy) - working
        word = "ok" if idle else "no slot available"
        return 200, {"status": word, "slots_idle": idle, "slots_processing": working}

    def slots(self) -> list[object]:
        size = int(self.flags.get("--ctx-size", "8192"))
        return [self.slot(number, size, busy) for number, busy in enumerate(self.busy)]

    def slot(self, number: int, size: int, busy: bool) -> object:
        if self.modern:
            return {"id": number, "n_ctx": size, "speculative": False, "is_processing": busy}
        return {"id": number, "n_ctx": size, "task_id": -1, "model": self.model, "state": int(busy)}

    def take(self) -> int | None:
        """Return the number of a slot that is now the caller's, None if all are busy."""
        with self.lock:
            if all(self.busy):
                return None
            number = self.busy.index(False)
            self.busy[number] = True
            return number

    def task(self, path: str, body: bytes) -> Task:
        most = int(self.flags.get("--n-predict", "-1"))
        mood = self.behaviour
        reasoning = mood.get("reasoning", "")
        task = read(path, body, self.modern, self.model, mood.get("answer"), most, reasoning)
        task.reasoning_field = mood.get("reasoning_field", task.reasoning_field)
        return task


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


class Headers(dict[str, str]):
    """The header fields of a request; the case of their names does not matter."""

    def get(self, name: str, otherwise: Any = None) -> Any:
        return super().get(name.lower(), otherwise)


class Handler(socketserver.StreamRequestHandler):
    """HTTP/1.1, as much as clients of an engine use: to import `http.server` takes longer than the rest."""

    server: Httpd
    command = path = ""
    headers: Headers

    def handle(self) -> None:
        while self.read_head():
            methods = {"GET": self.do_GET, "POST": self.do_POST}
            if self.command not in methods:
                self.reply(501, f"Unsupported method ({self.command!r})")
                return
            methods[self.command]()
            self.wfile.flush()
            if self.headers.get("Connection", "").lower() == "close":
                return

    def read_head(self) -> bool:
        """Read the request line and the header fields; say whether there are any."""
        words = self.rfile.readline(65_537).decode("latin-1").split()
        if len(words) != 3:
            return False
        self.command, self.path, version = words
        self.headers = Headers()
        while line := self.rfile.readline(65_537).decode("latin-1").strip():
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        if version == "HTTP/1.0":
            self.headers.setdefault("connection", "close")
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def do_GET(self) -> None:
        raise NotImplementedError

    def do_POST(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, content: object) -> None:
        raise NotImplementedError

    def send_head(self, status: int, **fields: object) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


class Api(Handler):
    """The routes of llama.cpp's server that clients of it use."""

    def do_GET(self) -> None:
        state, path = self.server.state, self.path.partition("?")[0]
        refusal = self.refusal(path)
        if refusal:
            self.reply(*refusal)
        elif path == "/health" or (path == "/v1/health" and state.modern):
            self.reply(*state.health())
        elif path == "/v1/models":
            entry = {"id": state.flags.get("--alias", state.model), "object": "model", "owned_by": "llamacpp"}
            self.reply(200, {"object": "list", "data": [{**entry, "created": int(time.time())}]})
        elif path == "/slots" and state.behaviour.get("no_slots"):
            self.reply(*failure(state.modern, 501, "This server does not support slots endpoint."))
        elif path == "/slots":
            self.reply(200, state.slots())
        elif path == "/":
            self.reply(200, "<html>llama.cpp</html>")
        else:
            self.reply(*failure(state.modern, 404, "File Not Found"))

    def do_POST(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        refusal = self.refusal(self.path)
        if refusal:
            self.reply(*refusal)
        elif self.path == "/tokenize":
            self.reply(200, {"tokens": list(json.loads(body)["content"].encode())})
        elif self.path == "/detokenize":
            self.reply(200, {"content": bytes(json.loads(body)["tokens"]).decode()})
        elif self.path not in (CHAT, COMPLETION):
            self.reply(*failure(state.modern, 404, "File Not Found"))
        elif "chat_status" in state.behaviour:
            self.reply(*failure(state.modern, state.behaviour["chat_status"], "the test wants an error"))
        else:
            try:
                task = state.task(self.path, body)
            except (ValueError, LookupError, TypeError) as error:
                self.reply(*failure(state.modern, 400 if state.modern else 500, repr(error)))
            else:
                self.answer(task)

    def refusal(self, path: str) -> tuple[int, object] | None:
        """Return what comes before any answer: it loads, or the key is missing."""
        state = self.server.state
        if not state.ready.is_set() and path not in LOADING_OPEN:
            return LOADING
        is_open = path in KEY_OPEN if state.modern else self.command == "GET"
        if not state.keys or is_open or self.key() in state.keys:
            return None
        return failure(state.modern, 401, "Invalid API Key")

    def key(self) -> str:
        """Return the key that the client sent, empty if none."""
        sent: str = self.headers.get("Authorization", "")
        if self.server.state.modern:
            return (sent or str(self.headers.get("X-Api-Key", ""))).removeprefix("Bearer ")
        return sent.removeprefix("Bearer ") if sent.startswith("Bearer ") else ""

    def answer(self, task: Task) -> None:
        """Generate; it ends with the client, though the old server looks only where it streams."""
        if task.stream and not task.modern:  # before there is a word, or a slot
            self.open_stream()
        with self.slot(task):
            self.generate(task)
        if task.stream:
            self.send(*task.end())
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.reply(200, task.whole())

    def generate(self, task: Task) -> None:
        mood = self.server.state.behaviour
        while mood.get("chat_hang"):
            self.rest(3600, task)
        for count in range(1, len(task.words) + 1):
            self.rest(mood.get("token_seconds", 0), task)
            if count == 1:
                self.begin(task)
            if task.stream and count == 1 and "stream" in mood:
                self.send_odd(mood["stream"], task.partial(count))
            elif task.stream:
                self.send(task.partial(count))
        if not task.words:
            self.begin(task)

    def begin(self, task: Task) -> None:
        if task.stream and task.modern:
            self.open_stream()
        if task.stream:
            self.send(*task.begin())

    @contextlib.contextmanager
    def slot(self, task: Task) -> Iterator[None]:
        """Hold a slot, once there is one."""
        state = self.server.state
        while (number := state.take()) is None:
            self.rest(POLL, task)
        task.slot = number
        try:
            yield
        finally:
            state.busy[number] = False

    def rest(self, seconds: float, task: Task) -> None:
        """Pause; ConnectionAbortedError as soon as the new server sees that the client left."""
        end = time.monotonic() + seconds
        while True:
            if task.modern:
                self.check_client()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, POLL))

    def check_client(self) -> None:
        """Raise ConnectionAbortedError if the client left."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionAbortedError("the client left")

    def open_stream(self) -> None:
        if self.is_ill():
            self.send_head(200, Content_Type="text/event-stream", Connection="close")
        else:
            self.send_head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")

    def send_odd(self, name: str, event: object) -> None:
        """Send an event in another way; one that is ill ends the stream."""
        self.write_chunk(ODD[name](json.dumps(event)).encode())
        if name in ILL:
            raise ConnectionAbortedError("the test wants the stream to end here")

    def write_chunk(self, data: bytes) -> None:
        if not self.is_ill():
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self.wfile.write(data)

    def is_ill(self) -> bool:
        """Whether the stream is one that breaks off: its connection ends it."""
        return self.server.state.behaviour.get("stream") in ILL

    def send(self, *events: object) -> None:
        """Send server-sent events, each a chunk of its own."""
        for event in events:
            self.check_client()
            text = event if isinstance(event, str) else json.dumps(event)
            self.write_chunk(f"data: {text}\n\n".encode())

    def reply(self, status: int, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        kind = "text/html" if status == 200 else "text/plain"
        kind = kind if isinstance(content, str) else "application/json"
        self.send_head(status, Content_Type=f"{kind}; charset=utf-8", Content_Length=len(text.encode()))
        self.wfile.write(text.encode())


def bind(state: State) -> Httpd:
    """Listen; an old engine silently takes one of the next ports when its own is busy."""
    host, port = state.flags.get("--host", "127.0.0.1"), int(state.flags.get("--port", "8080"))
    last = min(port + (HOPS if state.behaviour.get("hop", not state.modern) else 0), 65535)
    for candidate in range(port, last + 1):
        try:
            return Httpd((host, candidate), state)
        except OSError:
            pass
    if state.modern:
        raise Refused(f"srv  start: couldn't bind HTTP server socket, hostname: {host}, port: {port}")
    raise Refused(f"couldn't bind to server socket: hostname={host} port={last}")
