"""One deadline for an HTTP answer: status line, headers and body together, however slowly they arrive.

A timeout of a socket starts again with every byte; a server that sends a byte a second would never hit it.
"""

from __future__ import annotations

import http.client
import io
import time
from functools import partial
from typing import Any


class Deadline:
    """The moment by which an answer must be complete."""

    def __init__(self, seconds: float) -> None:
        self._end = 0.0
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        """Allow so many seconds from now on."""
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises TimeoutError: none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _Reader(io.RawIOBase):
    """Read from a socket; each read waits no longer than until the deadline."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
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
    """The one method of a socket that http.client uses to read an answer."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))


def timed_response(deadline: Deadline, sock: Any, *args: Any, **options: Any) -> http.client.HTTPResponse:
    """Make a response that holds to a deadline; for `response_class` of http.client's connections."""
    return http.client.HTTPResponse(_Socket(sock, deadline), *args, **options)  # type: ignore[arg-type]


def connection(host: str, port: int, deadline: Deadline) -> http.client.HTTPConnection:
    """Return a connection, not yet open, whose answer holds to a deadline; proxies are not used."""
    made: Any = http.client.HTTPConnection(host, port, timeout=deadline.left())
    made.response_class = partial(timed_response, deadline)
    return made  # type: ignore[no-any-return]
