"""A file server in a thread, on 127.0.0.1 and a free port, that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from os import PathLike
from types import TracebackType
from typing import Any, final
from urllib.parse import quote, unquote, urlsplit

from tests.fakes.faults import (
    Changed,
    Drop,
    Fault,
    Gzip,
    Hangup,
    Honest,
    IgnoreRange,
    LoginPage,
    NoLength,
    NoLengthTruncated,
    Paused,
    Redirect,
    Reply,
    Request,
    Slow,
    Stall,
    Status,
    WrongLength,
    WrongOffset,
    WrongTotal,
    parse_range,
)

__all__ = [  # tests import the faults from here
    "Changed",
    "Drop",
    "Fault",
    "FileServer",
    "Gzip",
    "Hangup",
    "Honest",
    "IgnoreRange",
    "LoginPage",
    "NoLength",
    "NoLengthTruncated",
    "Paused",
    "Redirect",
    "Reply",
    "Request",
    "Slow",
    "Stall",
    "Status",
    "WrongLength",
    "WrongOffset",
    "WrongTotal",
]

CHUNK = 64 * 1024  # bytes per send: how finely `sent` counts
CLOSE_WAIT = 2.0  # seconds that close() waits for its connections
RESET = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)  # SO_LINGER 0: close sends RST

Guard = Callable[[Request], Reply | None]
Tls = tuple[str | PathLike[str], str | PathLike[str]]  # certificate file, key file


@final
class FileServer:
    """Serve `files` over HTTP/1.1, honestly unless told otherwise.

    For each request: the limit of answers at once, else a guard's veto, else the next scripted
    fault (GET only), else the path's permanent fault, else the whole server's, else honesty. A port of
    one's own is for a server that comes back.
    """

    def __init__(self, tls: Tls | None = None, port: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # bugs of this fake; close() raises the first
        self.closing = threading.Event()
        self._scripts: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self.otherwise: Fault = Honest()  # answers for each path that nothing else was told about
        self._guards: dict[str, Guard] = {}
        self._rates: dict[str, float] = {}
        self._shared: set[str] = set()  # paths whose rate is that of all their bodies together
        self._limits: dict[str, tuple[int, Fault]] = {}
        self._busy: defaultdict[str, int] = defaultdict(int)
        self.cuts: deque[int] = deque()  # bytes after which the body of a PATCH is cut, for each of the next
        self.most_at_once: defaultdict[str, int] = defaultdict(int)  # answers to one path side by side
        self._lock = threading.Lock()
        self._scheme = "https" if tls else "http"
        self._httpd = _Httpd(self, tls, port)
        self.port: int = self._httpd.server_address[1]
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FileServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Return the address of a path."""
        return f"{self._scheme}://{host}:{self.port}{quote(path)}"

    def script(self, path: str, *faults: Fault) -> None:
        """Answer the next GET requests for this path with these faults, one each."""
        with self._lock:
            self._scripts[path].extend(faults)

    def always(self, path: str, fault: Fault) -> None:
        """Answer every request for this path, HEAD too, with this fault."""
        self._always[path] = fault

    def guard(self, path: str, guard: Guard) -> None:
        """Ask `guard` before anything else; its Reply, if any, is the answer."""
        self._guards[path] = guard

    def limit(self, path: str, at_once: int, fault: Fault) -> None:
        """Answer with `fault` while so many requests for this path are being answered; it does not count."""
        self._limits[path] = (at_once, fault)

    def set_rate(self, path: str, bytes_per_second: float | None, shared: bool = False) -> None:
        """Slow each of this path's bodies down, running ones too, or all of them together; None lifts it."""
        if bytes_per_second is None:
            self._rates.pop(path, None)
        else:
            self._rates[path] = bytes_per_second
        (self._shared.add if shared else self._shared.discard)(path)

    def clear(self, path: str) -> None:
        """Forget everything told about this path; its file stays."""
        with self._lock:
            self._scripts.pop(path, None)
            self._always.pop(path, None)
        self._guards.pop(path, None)
        self._limits.pop(path, None)
        self._rates.pop(path, None)

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        """Return the requests for this path, in order."""
        return [r for r in list(self.requests) if (r.path, r.method) == (path, method)]

    def bytes_sent(self, path: str) -> int:
        """Return how many body bytes this path has cost so far."""
        return sum(r.sent for r in self.asked(path))

    def wait_sent(self, path: str, count: int, timeout_s: float = 90.0) -> None:
        """Return once `count` body bytes of this path are out; TimeoutError if they never are."""
        deadline = time.monotonic() + timeout_s
        while self.bytes_sent(path) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: {self.bytes_sent(path)} of {count} bytes were sent")
            time.sleep(0.005)

    def wait_asked(self, path: str, count: int, timeout_s: float = 90.0) -> list[Request]:
        """Return the requests once there are `count`; TimeoutError if there never are."""
        deadline = time.monotonic() + timeout_s
        while len(found := self.asked(path)) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: {len(found)} of {count} requests came")
            time.sleep(0.005)
        return found

    def answering(self, request: Request, change: int) -> None:
        """Count the answers to one path that are on their way."""
        with self._lock:
            self._busy[request.path] += change
            self.most_at_once[request.path] = max(self.most_at_once[request.path], self._busy[request.path])

    def decide(self, request: Request) -> Reply:
        """Return the answer to a request, and record the request."""
        self.requests.append(request)
        limit = self._limits.get(request.path)
        if limit and self._busy[request.path] >= limit[0]:
            return limit[1].answer(request, self.files.get(request.path))
        self.answering(request, 1)
        request.admitted = True
        guard = self._guards.get(request.path)
        refusal = guard(request) if guard else None
        if refusal:
            return refusal
        fault = self._fault(request)
        if isinstance(fault, Changed):
            self.files[request.path] = fault.data
        return fault.answer(request, self.files.get(request.path))

    def _fault(self, request: Request) -> Fault:
        with self._lock:
            script = self._scripts[request.path]
            if request.method == "GET" and script:
                return script.popleft()
            return self._always.get(request.path, self.otherwise)

    def rate(self, path: str) -> float | None:
        """Return the limit of one of this path's bodies, in bytes per second."""
        rate = self._rates.get(path)
        return rate / max(1, self._busy[path]) if rate and path in self._shared else rate

    def close(self) -> None:
        """Stop, cut every connection, and raise what went wrong inside."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._httpd.shutdown()
        self._httpd.server_close()
        self._httpd.cut_all(CLOSE_WAIT)
        self._thread.join(CLOSE_WAIT)
        if self.errors:
            raise self.errors[0]


class _Httpd(socketserver.ThreadingTCPServer):
    """The listening socket and its connections.

    Not http.server's own class: that one asks DNS for the name of 127.0.0.1.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    allow_reuse_address = True

    def __init__(self, owner: FileServer, tls: Tls | None, port: int) -> None:
        self.owner = owner
        self.open: set[socket.socket] = set()
        self.changed = threading.Condition()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self.context and tls:
            self.context.load_cert_chain(*tls)
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        connection = plain
        if self.context:  # the handshake is made by the connection's own thread
            connection = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self.changed:
            self.open.add(connection)
        return connection, address

    def close_request(self, request: Any) -> None:
        super().close_request(request)
        with self.changed:
            self.open.discard(request)
            self.changed.notify_all()

    def cut_all(self, timeout_s: float) -> None:
        with self.changed:
            for connection in self.open:
                _hush(connection)
            self.changed.wait_for(lambda: not self.open, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        gone = isinstance(error, OSError) or self.owner.closing.is_set()
        if error is not None and not gone:  # a client that left is no bug; all else is
            self.owner.errors.append(error)


def _hush(connection: socket.socket) -> None:
    # Past SSLSocket.shutdown, which swaps the TLS object under the thread that is reading.
    with contextlib.suppress(OSError):  # the client may have closed it first
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Httpd

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        span = parse_range(self.headers.get("Range"))
        request = Request(self.command, unquote(target.path), target.query, self.headers, span)
        request.peer = self.client_address[1]
        self._read_body(request)
        owner = self.server.owner
        try:
            self._send(request, owner.decide(request))
        finally:
            if request.admitted:
                owner.answering(request, -1)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_PATCH(self) -> None:
        self.do_GET()

    def _read_body(self, request: Request) -> None:
        """Read a body, or only its beginning, as `cuts` says."""
        count = int(self.headers.get("Content-Length") or 0)
        cuts = self.server.owner.cuts
        if request.method == "PATCH" and cuts:
            count = min(count, cuts.popleft())
            request.is_cut = True
        request.body = self.rfile.read(count)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _send(self, request: Request, reply: Reply) -> None:
        self.close_connection = reply.mute or reply.close or self.close_connection
        if reply.mute:
            self.server.owner.closing.wait(reply.hold)
            return
        self._send_head(request, reply)
        if self.command == "HEAD":
            return
        self._send_body(request, reply)
        if reply.cut is not None:
            self._break_off(reply)

    def _send_head(self, request: Request, reply: Reply) -> None:
        request.status = reply.status
        self.send_response_only(reply.status)
        for name, text in {"Date": self.date_time_string(), **reply.headers}.items():
            self.send_header(name, text)
        self.end_headers()

    def _send_body(self, request: Request, reply: Reply) -> None:
        owner, due, body = self.server.owner, time.monotonic(), memoryview(reply.body)[: reply.cut]
        silent_at, until = reply.pause or (None, None)
        while request.sent < len(body) and not owner.closing.is_set():
            rate = reply.rate or owner.rate(request.path)
            size = CHUNK if rate is None else max(1, min(CHUNK, int(rate / 50)))
            if until and silent_at is not None and silent_at <= request.sent:
                while not until.wait(0.02) and not owner.closing.is_set():
                    pass
                until = None
            elif silent_at is not None and until:
                size = min(size, silent_at - request.sent)
            chunk = body[request.sent : request.sent + size]
            request.sent += len(chunk)  # first: a client that has them may look at the count
            self.wfile.write(chunk)
            if rate is not None:
                due = max(due, time.monotonic() - 0.1) + len(chunk) / rate
                owner.closing.wait(max(0.0, due - time.monotonic()))

    def _break_off(self, reply: Reply) -> None:
        self.close_connection = True
        self.server.owner.closing.wait(reply.hold)
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()
