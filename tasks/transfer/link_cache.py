"""The link that an origin redirects to, shared by all connections of a download."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class LinkCache:
    """Keep the redirect target of one origin.

    Both fields are guarded by `_lock`. `_requesting` is held for a whole request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link = ""
        self._redirects = False
        self._requesting = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[str]:
        """Yield the link to request, "" for the origin itself.

        Once the origin has redirected, only one connection at a time requests a new
        link from it; the others wait and use the link that it stores.
        """
        with self._lock:
            is_missing = self._redirects and not self._link
        if not is_missing:
            yield self._read()
            return
        with self._requesting:
            yield self._read()

    def _read(self) -> str:
        with self._lock:
            return self._link

    def store(self, link: str) -> None:
        """Keep the link that the origin has redirected to."""
        with self._lock:
            self._redirects = True
            self._link = link

    def discard(self, link: str) -> None:
        """Forget an expired link, unless another one was stored since."""
        with self._lock:
            if self._link == link:
                self._link = ""
