"""The Hub's two servers for one file, anywhere: the origin that redirects, the CDN that checks signatures.

For a Hub with repositories, revisions and rules of access see hub_site.py, which shares what is said here.
Source: huggingface_hub constants.py:94-96 for the headers; shared notes on what servers return.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tests.fakes.faults import Redirect, Reply, Request, Status
from tests.fakes.publisher import Links
from tests.fakes.server import FileServer

COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
FORM = "Expires={expires}&Policy=e30_&Signature=sig{serial}&Key-Pair-Id=KFAKE"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>\n"
REFUSAL = Status(403, {"Content-Type": "application/xml"}, DENIED)


def blob_path(sha256: str) -> str:
    """Return where the CDN has these bytes."""
    return f"/xet-bridge-us/{sha256}"


def linked(commit: str, sha256: str, size: int) -> dict[str, str]:
    """Return what the origin says about a file that is elsewhere."""
    return {
        "X-Repo-Commit": commit,
        "X-Linked-Etag": f'"{sha256}"',
        "X-Linked-Size": str(size),
        "Accept-Ranges": "bytes",
    }


class Hub:
    """Let `server` answer for `path` as the Hub does, with the bytes on `cdn`.

    Every request at the origin gets a link with a new signature; see Links for how it dies.
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
        self.cdn_path = blob_path(self.sha256)
        self._server, self._cdn = server, cdn
        self._links = Links(cdn, FORM, REFUSAL, uses=float("inf") if uses is None else uses)
        self._links.put(self.cdn_path, data)
        server.always(path, _Origin(self))

    @property
    def url(self) -> str:
        """The address that a user knows."""
        return self._server.url(self.path)

    def expire(self) -> None:
        """Make every link given out so far answer 403."""
        self._links.expire()

    def link(self) -> str:
        """Return a freshly signed address on the CDN."""
        return self._links.sign(self.cdn_path)

    def headers(self) -> dict[str, str]:
        """Return what the origin says about the file."""
        return linked(self.commit, self.sha256, self.size)


@dataclass(frozen=True)
class _Origin:
    hub: Hub

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return Redirect(self.hub.link(), self.hub.headers()).answer(request, data)
