"""What one HTTP request may get as an answer: honest, or wrong in one named way.

Pure: from a request and a file's bytes to a Reply. Sending it is server.py's work.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import lru_cache
from typing import Protocol

Span = tuple[int, int | None]  # first and last byte; (-n, None) is the last n bytes


@dataclass
class Request:
    """One request as it came; `status` and `sent` grow while it is answered."""

    method: str
    path: str  # percent-decoded, without the query
    query: str
    headers: Message[str, str]  # case-insensitive; a missing name gives None
    range: Span | None
    status: int = 0  # 0: no status line was sent
    sent: int = 0  # body bytes given to the kernel; the client may have read fewer
    peer: int = 0  # the client's port: equal for requests over one connection
    admitted: bool = False  # it counts among those that are answered at once
    body: bytes = b""
    is_cut: bool = False  # the connection ends within its body: there is no answer


@dataclass(frozen=True)
class Reply:
    """A response, and how its sending goes wrong."""

    status: int
    headers: Mapping[str, str]
    body: bytes | memoryview = b""
    cut: int | None = None  # close the connection after so many body bytes
    hold: float = 0.0  # seconds of silence before that close
    close: bool = False  # close the connection after the whole body
    reset: bool = False  # close with RST instead of FIN
    mute: bool = False  # close before the status line
    rate: float | None = None  # bytes per second of this answer alone
    pause: tuple[int, threading.Event] | None = None  # after so many body bytes, wait for that


class Fault(Protocol):
    """Anything that can answer a request; `data` is None for an unknown path."""

    def answer(self, request: Request, data: bytes | None) -> Reply: ...


@lru_cache(maxsize=8)
def etag(data: bytes) -> str:
    """Return the strong entity tag of these bytes."""
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def parse_range(header: str | None) -> Span | None:
    """Return the one byte range asked for; what is malformed or multiple counts as none."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").replace(" ", ""))
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return (-int(last), None) if int(last) else None
    if last and int(last) < int(first):
        return None
    return int(first), int(last) if last else None


def locate(span: Span, size: int) -> tuple[int, int] | None:
    """Return the slice that a range means in a file of `size` bytes, None if it has none."""
    first, last = span
    if first < 0:
        first = max(0, size + first)
    stop = size if last is None else min(last + 1, size)
    return (first, stop) if first < stop else None


def plain(
    status: int, body: bytes | memoryview, headers: Mapping[str, str], kind: str = "text/plain"
) -> Reply:
    """Return a reply with the right Content-Length."""
    base = {"Content-Type": kind, "Content-Length": str(len(body))}
    return Reply(status, {**base, **headers}, body)


def whole(data: bytes) -> Reply:
    """Return the 200 for a file."""
    headers = {"ETag": etag(data), "Accept-Ranges": "bytes"}
    return plain(200, memoryview(data), headers, "application/octet-stream")


def part(data: bytes, start: int, stop: int) -> Reply:
    """Return the 206 for one slice of a file."""
    headers = {
        "ETag": etag(data),
        "Accept-Ranges": "bytes",
        "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}",
    }
    return plain(206, memoryview(data)[start:stop], headers, "application/octet-stream")


def wanted(request: Request, data: bytes) -> Span | None:
    """Return the range that counts. Source: RFC 9110 14.2 (GET only) and 13.1.5 (If-Range)."""
    condition = request.headers.get("If-Range")
    if request.method != "GET" or (condition is not None and condition != etag(data)):
        return None
    return request.range


def honest(request: Request, data: bytes | None) -> Reply:
    """Return what a correct server says."""
    if data is None:
        return plain(404, b"Not Found\n", {})
    span = wanted(request, data)
    if span is None:
        return whole(data)
    slice_ = locate(span, len(data))
    if slice_ is None:
        return plain(416, b"Range Not Satisfiable\n", {"Content-Range": f"bytes */{len(data)}"})
    return part(data, *slice_)


@dataclass(frozen=True)
class Honest:
    """No fault."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return honest(request, data)


@dataclass(frozen=True)
class Drop:
    """Close the connection after so many body bytes of this answer; `reset` does it by RST."""

    after: int
    reset: bool = False

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return replace(honest(request, data), cut=self.after, reset=self.reset)


@dataclass(frozen=True)
class Hangup:
    """Close the connection instead of answering, after so many seconds of silence."""

    seconds: float = 0.0

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return Reply(0, {}, mute=True, hold=self.seconds)


@dataclass(frozen=True)
class Stall:
    """Fall silent after so many body bytes; close once `seconds` have passed."""

    after: int
    seconds: float

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return replace(honest(request, data), cut=self.after, hold=self.seconds)


@dataclass(frozen=True)
class Slow:
    """The right bytes, few a second."""

    rate: float

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return replace(honest(request, data), rate=self.rate)


@dataclass(frozen=True)
class Paused:
    """Fall silent after so many body bytes, and go on once `until` is set.

    With `then`, what follows comes from that file instead: an edge that has another one.
    """

    after: int
    until: threading.Event
    then: bytes | None = None

    def answer(self, request: Request, data: bytes | None) -> Reply:
        right = honest(request, data)
        body = bytes(right.body[: self.after]) + bytes(honest(request, self.then).body[self.after :])
        kept = right.body if self.then is None else body
        return replace(right, body=kept, pause=(self.after, self.until))


@dataclass(frozen=True)
class WrongTotal:
    """206 whose Content-Range states another size of the whole; 200 with that many bytes announced."""

    delta: int

    def answer(self, request: Request, data: bytes | None) -> Reply:
        right = honest(request, data)
        if data is None or right.status != 206:
            return WrongLength(self.delta).answer(request, data)
        span = right.headers["Content-Range"].partition("/")[0]
        return replace(right, headers={**right.headers, "Content-Range": f"{span}/{len(data) + self.delta}"})


@dataclass(frozen=True)
class Status:
    """Any status. The body is never empty by default: a client may not keep it as file bytes."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"<html>this is an error page, not the file</html>\n"

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return plain(self.code, self.body, self.headers, "text/html")


@dataclass(frozen=True)
class IgnoreRange:
    """200 and the whole body, whatever range was asked for."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return honest(replace(request, range=None), data)


@dataclass(frozen=True)
class WrongOffset:
    """206 whose Content-Range and bytes lie `shift` off; honest where no range was asked for."""

    shift: int

    def answer(self, request: Request, data: bytes | None) -> Reply:
        right = honest(request, data)
        if data is None or right.status != 206:
            return right
        first = int(right.headers["Content-Range"].split()[1].split("-")[0])
        start = min(max(first + self.shift, 0), len(data) - 1)
        return part(data, start, min(start + len(right.body), len(data)))


@dataclass(frozen=True)
class Changed:
    """The file becomes `data`, now and from then on (the server also stores it)."""

    data: bytes

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return honest(request, self.data)


@dataclass(frozen=True)
class LoginPage:
    """200, and a page of a captive portal."""

    body: bytes = b"<!DOCTYPE html><html><title>Sign in</title><form></form></html>\n"

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return plain(200, self.body, {}, "text/html; charset=utf-8")


@dataclass(frozen=True)
class Gzip:
    """200 and a gzip body, though the client asked for identity or a range (hub#3778)."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        if data is None:
            return honest(request, data)
        headers = {"Content-Encoding": "gzip", "ETag": f"W/{etag(data)}", "Vary": "Accept-Encoding"}
        body = gzip.compress(data, compresslevel=1, mtime=0)
        return plain(200, body, headers, "application/octet-stream")


@dataclass(frozen=True)
class NoLength:
    """The right body, ended by the close of the connection only."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        right = honest(request, data)
        kept = {name: text for name, text in right.headers.items() if name != "Content-Length"}
        return replace(right, headers={**kept, "Connection": "close"}, close=True)


@dataclass(frozen=True)
class NoLengthTruncated:
    """As NoLength, but the end comes early: nothing in HTTP tells."""

    after: int

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return replace(NoLength().answer(request, data), cut=self.after)


@dataclass(frozen=True)
class WrongLength:
    """The right body under a Content-Length that is `delta` off; then the connection closes."""

    delta: int

    def answer(self, request: Request, data: bytes | None) -> Reply:
        right = honest(request, data)
        length = str(max(0, len(right.body) + self.delta))
        return replace(right, headers={**right.headers, "Content-Length": length}, close=True)


@dataclass(frozen=True)
class Redirect:
    """A redirect with a body of its own, so that its Content-Length is not the file's."""

    location: str
    headers: Mapping[str, str] = field(default_factory=dict)
    code: int = 302

    def answer(self, request: Request, data: bytes | None) -> Reply:
        body = f"Found. Redirecting to {self.location}\n".encode()
        return plain(self.code, body, {**self.headers, "Location": self.location})
