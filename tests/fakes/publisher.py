"""What publishers have in common: two servers, signed addresses that expire, limits in a fixed window."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from tests.fakes.faults import Reply, Request, Status, plain
from tests.fakes.server import FileServer, Tls

Site = TypeVar("Site", bound="Publisher")


class Links:
    """Serve files of `server` to those alone who have a signed address.

    An address is good for its own path, until expire() is called or `lifetime` is over, and for `uses`
    requests if that is given (so a reconnect finds it dead). Looked at when a request comes: a body that
    is on its way goes on.

    Args:
        form: the query, with {serial} and {expires} in it; any other query is refused.
        refusal: the answer for a dead or unsigned address.
        host: the name of `server` in the addresses.
    """

    def __init__(
        self,
        server: FileServer,
        form: str,
        refusal: Status,
        host: str = "127.0.0.1",
        uses: float = float("inf"),
    ) -> None:
        self.lifetime = 3600.0  # seconds
        self.uses = uses
        self._server, self._form, self._refusal, self._host = server, form, refusal, host
        self._serial = 0
        self._lock = threading.Lock()
        self._good: dict[tuple[str, str], tuple[float, float]] = {}  # path, query -> until when, uses left

    def put(self, path: str, data: bytes) -> None:
        """Have a file that can be linked to."""
        self._server.files[path] = data
        self._server.guard(path, self._check)

    def sign(self, path: str) -> str:
        """Return a fresh address."""
        with self._lock:
            self._serial += 1
            query = self._form.format(serial=self._serial, expires=int(time.time() + self.lifetime))
            self._good[path, query] = time.monotonic() + self.lifetime, self.uses
        return f"{self._server.url(path, self._host)}?{query}"

    def expire(self) -> None:
        """End every address given out so far."""
        with self._lock:
            self._good = {}

    def _check(self, request: Request) -> Reply | None:
        key = request.path, request.query
        with self._lock:
            until, left = self._good.get(key, (0.0, 0.0))
            self._good[key] = until, left - 1
        good = left >= 1 and time.monotonic() < until
        return None if good else self._refusal.answer(request, None)


class Count(NamedTuple):
    """What a budget says of one request."""

    allowed: bool
    left: int
    reset_s: int  # whole seconds until the next window, at least 1


class Budget:
    """So many requests in each window of so many seconds; the first request opens a window."""

    def __init__(self, quota: int, window_s: int) -> None:
        self.quota, self.window_s = quota, window_s
        self._lock = threading.Lock()
        self._end, self._used = 0.0, 0

    def take(self) -> Count:
        """Count a request, also one that is refused."""
        with self._lock:
            now = time.monotonic()
            if now >= self._end:
                self._end, self._used = now + self.window_s, 0
            self._used += 1
            left = max(0, self.quota - self._used)
            return Count(self._used <= self.quota, left, max(1, math.ceil(self._end - now)))


class Publisher:
    """A site at `endpoint` whose files are on another host; a subclass gives the answers.

    `origin` (127.0.0.1) and `cdn` (localhost) have all the faults of a FileServer to be scripted.
    """

    def __init__(self, form: str, refusal: Status, tls: Tls | None) -> None:
        self.origin, self.cdn = FileServer(tls), FileServer(tls)
        self.links = Links(self.cdn, form, refusal, host="localhost")
        self.origin.otherwise = self

    def __enter__(self: Site) -> Site:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both servers."""
        try:
            self.origin.close()
        finally:
            self.cdn.close()

    @property
    def endpoint(self) -> str:
        """What stands for the public address, e.g. https://huggingface.co."""
        return self.origin.url("")

    def answer(self, request: Request, data: bytes | None) -> Reply:
        """Answer a request to the origin."""
        raise NotImplementedError


def json_reply(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an API's answer."""
    return plain(status, json.dumps(value).encode(), headers or {}, "application/json; charset=utf-8")
