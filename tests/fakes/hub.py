"""The Hub's two servers for one file: the origin that redirects, the CDN that checks signatures.

Source: huggingface_hub constants.py:94-96 for the headers; shared notes on what servers return.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from urllib.parse import parse_qs

from tests.fakes.faults import Redirect, Reply, Request, Status
from tests.fakes.server import FileServer

COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>\n"


class Hub:
    """Let `server` answer for `path` as the Hub does, with the bytes on `cdn`.

    Every request at the origin gets a link with a new signature. A link works until expire()
    is called, or for `uses` requests if that is given (so a reconnect finds it dead).
    """

    def __init__(
        self,
        server: FileServer,
        cdn: FileServer,
        path: str,
        data: bytes,
        *,
        commit: str = COMMIT,
        uses: int | None = None,
    ) -> None:
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size = len(data)
        self.commit = commit
        self.path = path
        self.cdn_path = f"/xet-bridge-us/{self.sha256}"
        self.uses = uses
        self._server, self._cdn = server, cdn
        self._serial = 0
        self._lock = threading.Lock()
        self._left: dict[str, float] = {}  # signature -> requests it is still good for
        cdn.files[self.cdn_path] = data
        cdn.guard(self.cdn_path, self._check)
        server.always(path, _Origin(self))

    @property
    def url(self) -> str:
        """The address that a user knows."""
        return self._server.url(self.path)

    def expire(self) -> None:
        """Make every link given out so far answer 403."""
        with self._lock:
            self._left = {}

    def link(self) -> str:
        """Return a freshly signed address on the CDN."""
        with self._lock:
            self._serial += 1
            signature = f"sig{self._serial}"
            self._left[signature] = float("inf") if self.uses is None else self.uses
        query = f"Expires=4102444800&Policy=e30_&Signature={signature}&Key-Pair-Id=KFAKE"
        return f"{self._cdn.url(self.cdn_path)}?{query}"

    def headers(self) -> dict[str, str]:
        """Return what the origin says about the file."""
        return {
            "X-Repo-Commit": self.commit,
            "X-Linked-Etag": f'"{self.sha256}"',
            "X-Linked-Size": str(self.size),
            "Accept-Ranges": "bytes",
        }

    def _check(self, request: Request) -> Reply | None:
        signature = parse_qs(request.query).get("Signature", [""])[0]
        with self._lock:
            left = self._left.get(signature, 0)
            self._left[signature] = left - 1
        if left >= 1:
            return None
        return Status(403, {"Content-Type": "application/xml"}, DENIED).answer(request, None)


@dataclass(frozen=True)
class _Origin:
    hub: Hub

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return Redirect(self.hub.link(), self.hub.headers()).answer(request, data)
