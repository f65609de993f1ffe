"""Skip interim HTTP responses, and keep one deadline for a whole response.

A socket's timeout starts again with every byte: a server that sends one byte per second
would never exceed it.
"""

from __future__ import annotations

import http.client
import io
import time
from functools import partial
from typing import Any


class Deadline:
    """The time by which a response must be complete."""

    def __init__(self, seconds: float) -> None:
        self._end = 0.0
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        """Allow this many seconds from now on."""
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError: none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class FinalResponse(http.client.HTTPResponse):
    """A response that is not an interim one, such as 103 (RFC 9110 §15.2)."""

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips 100 only, and takes 102 and 103 for the response itself
        version, status, reason = super()._read_status()  # type: ignore[misc]
        is_interim = 100 < status < 200 and status != http.client.SWITCHING_PROTOCOLS
        if is_interim:
            status = http.client.CONTINUE
        return version, status, reason


class _Reader(io.RawIOBase):
    """Read from a socket; no read lasts past the deadline."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left())
        count: int | None = self._file.readinto(buffer)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Socket:
    """The one method of a socket that http.client uses to read a response."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))


def timed_response(
    deadline: Deadline, sock: Any, *args: Any, **options: Any
) -> FinalResponse:
    """Return a response with a deadline; a `response_class` for http.client."""
    timed: Any = _Socket(sock, deadline)
    return FinalResponse(timed, *args, **options)


def connection(host: str, port: int, deadline: Deadline) -> http.client.HTTPConnection:
    """Return a connection, not open yet, whose response has a deadline; no proxy."""
    timeout_s = deadline.left()
    made: Any = http.client.HTTPConnection(host, port, timeout=timeout_s)
    made.response_class = partial(timed_response, deadline)
    return made  # type: ignore[no-any-return]
