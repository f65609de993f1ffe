"""A server whose answers are wrong in every way that a client may meet, and the table of them.

Standard library only. An answer is what is written to the socket, byte by byte: nothing here knows HTTP.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import threading
from types import TracebackType
from typing import NamedTuple

ENDLESS_PIECE = 64 * 1024
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Row(NamedTuple):
    """One hostile answer."""

    name: str
    answer: bytes  # sent at once
    then: bytes = b""  # sent after it, again and again, until the client is gone
    pause_s: float = 0.0  # before each of these
    hold: bool = False  # say nothing more, and do not close


class HostileServer:
    """Give rows as the answers to the requests, one each, the last one for ever.

    On 127.0.0.1 and a free port. A connection ends with its first answer.

    Attributes:
        sent: bytes given to the kernel for each connection.
        requests: what was asked, heads only.
    """

    def __init__(self, *rows: Row) -> None:
        self.sent: list[int] = []
        self.requests: list[bytes] = []
        self._rows = rows
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def url(self, path: str = "") -> str:
        """Return the address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.sent.append(0)
            number = len(self.sent) - 1
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ENDLESS_PIECE)
            request = _read_request(connection)
            if not request:
                return
            row = self._rows[min(len(self.requests), len(self._rows) - 1)]
            self.requests.append(request)
            self._send(connection, number, row.answer)
            while row.then and not self._closing.wait(row.pause_s):
                self._send(connection, number, row.then)
            if row.hold:
                self._closing.wait(60)

    def _send(self, connection: socket.socket, number: int, data: bytes) -> None:
        connection.sendall(data)
        self.sent[number] += len(data)


def _read_request(connection: socket.socket) -> bytes:
    """Read a request and return its head; a server that leaves bytes unread closes with a reset."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(65536)
        if not piece:
            return b""
        text += piece
    head, _, body = text.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    missing = int(found[1]) - len(body) if found else 0
    while missing > 0:
        piece = connection.recv(65536)
        if not piece:
            return b""
        missing -= len(piece)
    return head


def head(*lines: str | bytes, status: str | bytes = "HTTP/1.1 200 OK") -> bytes:
    """A status line and headers."""
    text = (line.encode("latin-1") if isinstance(line, str) else line for line in (status, *lines))
    return b"".join(line + b"\r\n" for line in text) + b"\r\n"


def body(data: bytes, *lines: str) -> bytes:
    """An answer that is complete."""
    return head(f"Content-Length: {len(data)}", *lines) + data


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


CHUNKED = "Transfer-Encoding: chunked"
_PIECE = chunks(b"x" * ENDLESS_PIECE)
_LONG = "x" * 70_000  # more than a line may have

STATUS_LINES = [
    Row("no answer", b""),
    Row("silence", b"", hold=True),
    Row("blank lines", b"\r\n\r\n"),
    Row("endless blank lines", b"", then=b"\r\n" * 1000),
    Row("a drip before the status", b"", then=b"H", pause_s=0.02),
    Row("a status line without an end", b"HTTP/1.1 200 ", then=b"x" * ENDLESS_PIECE),
    Row("a status line of 70 kB", head(status=f"HTTP/1.1 200 {_LONG}")),
    *(
        Row(f"status {line[:30]!r}", head("Content-Length: 0", status=line))
        for line in (
            "HTTP/1.1",
            "HTTP/1.1 abc OK",
            "HTTP/1.1 99 x",
            "HTTP/1.1 1000 x",
            "HTTP/1.1 -200 x",
            "HTTP/9.9 200 OK",
            b"HTTP/1.1 \xb200 OK",
            "ICY 200 OK",
            "HTTP/1.1 200 \x1b[2J\x07",
            "HTTP/1.1 200",
            "HTTP/1.1 \0",
            "HTTP/1.1 999 x",
            "HTTP/1.1 204 x",
            "HTTP/1.1 205 x",
            "HTTP/1.1 304 x",
            "HTTP/0.9 200 x",
            "HTTP/1.1 103 x",
            "HTTP/1.1 101 x",
            "HTTP/1.1 206 x",
            "HTTP/1.1 416 x",
            "HTTP/1.1 407 x",
        )
    ),
    Row("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", hold=True),
    Row("SMTP", b"220 mail ESMTP\r\n", hold=True),
    Row("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    Row("noise", bytes(range(256)) * 40),
    Row("endless 100 Continue", b"", then=b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    Row("a drip of 100 Continue", b"", then=b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.02),
    Row("a 100 with a header that never ends", b"HTTP/1.1 100 x\r\nA: ", then=b"x" * 1000, pause_s=0.01),
]

HEADERS = [
    Row("endless headers", b"HTTP/1.1 200 OK\r\n", then=b"A: b\r\n" * 1000),
    Row("a header without an end", b"HTTP/1.1 200 OK\r\nA: ", then=b"x" * ENDLESS_PIECE),
    Row("a drip in a header", b"HTTP/1.1 200 OK\r\nA: ", then=b"x", pause_s=0.02),
    Row("a drip of headers", b"HTTP/1.1 200 OK\r\n", then=b"A: b\r\n", pause_s=0.02),
    Row("101 headers", head(*["A: b"] * 101)),
    Row("a header of 70 kB", head(f"A: {_LONG}")),
    *(
        Row(f"header {line[:40]!r}", head(line, "Content-Length: 1") + b"x")
        for line in (
            "no colon",
            ": no name",
            "A\0: b",
            "A: \0",
            b"A: \xff\xfe",
            " continued",
            "A : b",
            "A: \x1b[2J",
            "Content-Type: text/html",
            "Content-Type: \x1b[2J",
            "Content-Encoding: gzip",
            "Content-Encoding: br",
            "Content-Encoding: \x1b[2J",
            "Content-Encoding: aws-chunked",
            "Transfer-Encoding: gzip",
            "Retry-After: 9e18",
            "Date: Mon, 99 Xxx 99999 99:99:99 GMT",
            "Date: \xff",
            "Age: \xb2",
            "X-Repo-Commit: \x1b[2J",
            "X-Repo-Commit: ../../x",
            "X-Linked-Size: \xb2",
            "X-Linked-Size: 1e999",
            "X-Linked-Size: -5",
            "X-Linked-Etag: x",
            f"X-Linked-Etag: {'a' * 64}",
            "ETag: \x1b[2J",
            "Set-Cookie: a=b; expires=99999; Version=\xb2",
            "Set-Cookie: ;;;;=",
            "X-Error-Code: {repo.__class__}",
            "Location: /elsewhere",
            "Content-Range: bytes 0-0/1",
            "Connection: \0",
            "Content-Length: 1",
        )
    ),
    *(
        Row(f"length {text[:30]}", head(f"Content-Length: {text}") + b"x" * 4096)
        for text in (
            "-5",
            "abc",
            "\xb2",
            "0",
            "1",
            "4096, 4096",
            "1e3",
            "10000000000000",
            "9000000000000000000",
            "9" * 20,
            "9" * 5000,
            "4095",
            "4097",
            "0x1000",
            " ",
        )
    ),
    Row("two lengths", head("Content-Length: 5", "Content-Length: 9") + b"x" * 9),
    Row("a length and chunks", head("Content-Length: 5", CHUNKED) + chunks(b"x") + b"0\r\n\r\n"),
]

REDIRECTS = [
    *(
        Row(
            f"{status} with an endless body",
            head("Location: /y", CHUNKED, status=f"HTTP/1.1 {status} x"),
            then=_PIECE,
        )
        for status in (301, 302, 303, 307, 308)
    ),
    Row("300 with an endless body", head(CHUNKED, status="HTTP/1.1 300 x"), then=_PIECE),
    Row("302 that drips", head("Location: /y", status="HTTP/1.1 302 x"), then=b"x", pause_s=0.02),
    Row(
        "302 with a large length",
        head("Location: /y", "Content-Length: 9000000000000000000", status="HTTP/1.1 302 x"),
        then=b"x" * ENDLESS_PIECE,
    ),
    Row("302 without a place", head("Content-Length: 0", status="HTTP/1.1 302 x")),
    *(
        Row(f"to {place[:30]!r}", head(f"Location: {place}", "Content-Length: 0", status="HTTP/1.1 302 x"))
        for place in (
            "/self",
            "",
            " ",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "/etc/passwd",
            "ftp://127.0.0.1/x",
            "http://[::1/x",
            "http://127.0.0.2:1/x",
            "//",
            "///",
            "http://",
            "http://user:pw@127.0.0.1:1/x",
            "http://127.0.0.1:99999/x",
            "http://127.0.0.1:1/\x1b[2J",
            "\xff\xfe",
            "x" * 60_000,
            "http://\xe9/",
            "?",
            "data:text/plain,x",
            "http://127.0.0.1:1/ x",
            "http://%00/",
            "http://.../",
            f"http://{'a' * 64}.x/",
        )
    ),
]

BODIES = [
    Row("nothing", body(b"")),
    Row("one byte", body(b"x")),
    Row("cut", head("Content-Length: 9999") + b"x" * 10),
    Row("a drip", head("Content-Length: 999999"), then=b"x", pause_s=0.02),
    Row("a drip without a length", head(), then=b"x", pause_s=0.02),
    Row("a drip of chunks", head(CHUNKED), then=chunks(b"x"), pause_s=0.02),
    Row("silence after the headers", head("Content-Length: 9999"), hold=True),
    Row("endless", head(), then=b"x" * ENDLESS_PIECE),
    Row("endless chunks", head(CHUNKED), then=_PIECE),
    Row("a chunk without an end", head(CHUNKED) + b"FFFFFFFFFFFFFFFF\r\n", then=b"x" * ENDLESS_PIECE),
    Row("a chunk's length without an end", head(CHUNKED), then=b"0" * ENDLESS_PIECE),
    Row("a chunk of 70 kB of extension", head(CHUNKED) + f"1;{_LONG}\r\nx\r\n".encode()),
    *(
        Row(f"chunk length {text!r}", head(CHUNKED) + text.encode("latin-1") + b"\r\nx\r\n0\r\n\r\n")
        for text in ("zz", "-5", "", " 1", "0x1", "1e3", "\xb2", "1_0", "+1")
    ),
    Row("cut in a chunk", head(CHUNKED) + b"ff\r\nx"),
    Row("no last chunk", head(CHUNKED) + chunks(b"x")),
    Row("endless trailers", head(CHUNKED) + b"1\r\nx\r\n0\r\n", then=b"A: b\r\n" * 1000),
    Row("a drip of trailers", head(CHUNKED) + b"1\r\nx\r\n0\r\n", then=b"A: b\r\n", pause_s=0.02),
    Row("a bomb of gzip", body(gzip.compress(b"x" * 50_000_000, 1), "Content-Encoding: gzip")),
    Row("a web page", body(b"<html>Please log in</html>", "Content-Type: text/html")),
    Row("more than one answer", body(b"x") + body(b"y")),
]

_ASSET = b'{"name": "m.gguf", "size": %b, "digest": %b, "browser_download_url": %b}'


def _release(size: bytes = b"5", digest: bytes = b"null", url: bytes = b'"https://h/m.gguf"') -> bytes:
    asset = _ASSET % (size, digest, url)
    return b'{"tag_name": "1", "assets": [%b], "license": {"spdx_id": "MIT"}}' % asset


JSON = [
    Row(f"JSON {data[:40].decode('latin-1')!r}", body(data, "Content-Type: application/json"))
    for data in (
        b"[",
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b"null",
        b"[]",
        b"{}",
        b"5",
        b'"x"',
        b"\xff\xfe",
        b"9" * 5000,
        b"NaN",
        b"1e999",
        b"[" + b"1," * 300_000 + b"1]",
        b'{"tags": 5}',
        b'{"cardData": []}',
        b'{"cardData": ' + b"[" * 500_000,
        b'{"tag_name": 5, "assets": 5}',
        b'{"tag_name": "1", "assets": [5]}',
        b'{"license": {"spdx_id": "\\ud800"}}',
        b'{"tags": ["license:a\\n::error::b"]}',
        b"x" * 5_000_000,
        _release(),
        _release(size=b"-5"),
        _release(size=b"1e999"),
        _release(size=b"true"),
        _release(size=b"9" * 400),
        _release(digest=b"5"),
        _release(digest=b'"sha256:zz"'),
        _release(url=b'""'),
        _release(url=b"null"),
        _release(url=b'"javascript:alert(1)"'),
        _release(url=b'"/etc/shadow"'),
        _release(url=b'"https://h/\\ud800"'),
        _release(url=b'"file:///etc/shadow"'),
        _release(digest=b'"sha256:' + b"a" * 64 + b'"'),
        b'[{"is_processing": []}]',
        b'{"slots_processing": 1e999}',
        b'{"slots_processing": true}',
    )
]

_TYPE = "Content-Type: text/event-stream"
_WORD = b'data: {"choices": [{"delta": {"content": "word"}}]}\n\n'
EVENTS = [
    *(
        Row(f"event {data[:40].decode('latin-1')!r}", body(_WORD + data, _TYPE))
        for data in (
            b"data: nope\n\n",
            b"data: [1]\n\n",
            b"data: null\n\n",
            b"data: 5\n\n",
            b"data: {}\n\n",
            b"data:\n\n",
            b"data\n\n",
            b'data: {"error": "text"}\n\n',
            b'data: {"error": {"message": 5}}\n\n',
            b"error: text\n\n",
            b"event: error\ndata: text\n\n",
            b'data: {"choices": 5}\n\n',
            b'data: {"choices": [null]}\n\n',
            b'data: {"choices": [{"delta": 5}]}\n\n',
            b"data: " + b"[" * 500_000 + b"\n\n",
            b"data: \xff\n\n",
            b'data: {"choices": [{"delta": {"content": "\\ud800"}}]}\n\n',
            b"data: {\ndata: }\n\n",
            b": ping\n\n",
            b'data: {"choices": [{"delta": {"content": "' + b"x" * 500_000 + b'"}}]}\n\n',
            b'data: {"cho',
            b"data: [DONE]\n\n",
        )
    ),
    Row("an event without an end", head(_TYPE) + b"data: ", then=b"x" * ENDLESS_PIECE),
    Row("data lines without an end", head(_TYPE), then=b"data: x\n" * 8000),
    Row("a drip in an event", head(_TYPE) + _WORD, then=b"d", pause_s=0.02),
    Row("a drip of comments", head(_TYPE) + _WORD, then=b": ping\n\n", pause_s=0.02),
]

ROWS = [*STATUS_LINES, *HEADERS, *REDIRECTS, *BODIES, *JSON, *EVENTS]
IDS = [f"{number} {row.name}" for number, row in enumerate(ROWS)]
