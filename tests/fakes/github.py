"""GitHub's releases in this process: the API, the downloads, and the host that has the bytes.

API and downloads are 127.0.0.1, the bytes localhost: other host names, as in life. The API is where GitHub
Enterprise has it, below /api/v3; on github.com it is a host of its own. Links are dead after five minutes,
which their host says with a status of its own, 618 (shared notes on what servers return).
Source: docs.github.com/rest: releases, repos, "Rate limits for the REST API".
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from tests.fakes.faults import Reply, Request, Status, plain
from tests.fakes.publisher import Budget, Publisher, json_reply
from tests.fakes.server import Tls

FORM = (
    "sp=r&sr=b&spr=https&se={expires}&rsct=application%2Foctet-stream&sig=sig{serial}%3D&jwt=e30.e30.{serial}"
)
REFUSAL = Status(618, {"Content-Type": "text/html"}, b"<title>618 jwt:expired</title>\n")
EPOCH = datetime(2026, 1, 1)
_API = re.compile(r"/api/v3/(?:repos/(?P<name>[^/]+/[^/]+)|repositories/(?P<id>\d+))(?P<rest>/.+)?")
_DOWNLOAD = re.compile(r"/(?P<name>[^/]+/[^/]+)/releases/download/(?P<tag>.+)/(?P<asset>[^/]+)")

Json = dict[str, Any]


def asset_path(data: bytes) -> str:
    """Return where the other host has these bytes."""
    return f"/github-production-release-asset/{hashlib.sha256(data).hexdigest()[:32]}"


@dataclass
class Release:
    tag: str
    assets: dict[str, bytes]
    digests: bool  # assets from before June 2025 have none
    prerelease: bool
    published: str


class Project:
    """A repository, as far as its releases go; `keep` is told each asset."""

    def __init__(self, name: str, number: int, licence: str | None, keep: Callable[[bytes], None]) -> None:
        self.name, self.id, self.licence, self._keep = name, number, licence, keep
        self.releases: dict[str, Release] = {}

    def release(
        self, tag: str, assets: Mapping[str, bytes], digests: bool = True, prerelease: bool = False
    ) -> None:
        """Publish a release; the newest that is no prerelease is the latest."""
        for data in assets.values():
            self._keep(data)
        published = f"{(EPOCH + timedelta(days=len(self.releases))).isoformat()}Z"
        self.releases[tag] = Release(tag, dict(assets), digests, prerelease, published)

    def find(self, rest: str) -> Release | None:
        """Return the release that "latest" or "tags/TAG" means."""
        if rest.startswith("tags/"):
            return self.releases.get(rest.removeprefix("tags/"))
        final = [release for release in self.releases.values() if not release.prerelease]
        return final[-1] if rest == "latest" and final else None

    def about(self) -> Json:
        """Return the API's description."""
        licence = {"key": self.licence.lower(), "spdx_id": self.licence} if self.licence else None
        short = self.name.partition("/")[2]
        return {"id": self.id, "name": short, "full_name": self.name, "private": False, "license": licence}


class GitHub(Publisher):
    """GitHub; `endpoint` stands for https://github.com, and the API is below its /api/v3."""

    def __init__(self, tls: Tls | None = None) -> None:
        super().__init__(FORM, REFUSAL, tls)
        self.links.lifetime = 300.0
        self.projects: dict[str, Project] = {}
        self._moved: dict[str, Project] = {}
        self.limit(60)

    def repo(self, name: str, licence: str | None = "Apache-2.0") -> Project:
        """Make a repository; the licence is an SPDX identifier, or NOASSERTION, which is GitHub's "other"."""
        number = 1000 + len(self.projects)
        self.projects[name] = Project(name, number, licence, lambda d: self.links.put(asset_path(d), d))
        return self.projects[name]

    def rename(self, old: str, new: str) -> None:
        """Move a repository; the old name redirects."""
        self.projects[new] = self._moved[old] = self.projects.pop(old)
        self.projects[new].name = new

    def limit(self, quota: int, window_s: int = 3600, status: int = 403) -> None:
        """Set how many questions the API takes in a window, and how it refuses more (403 or 429)."""
        self._budget, self._refusal = Budget(quota, window_s), status

    def url(self, name: str, tag: str, asset: str) -> str:
        """Return the address of an asset that a user knows."""
        return f"{self.endpoint}/{name}/releases/download/{quote(tag)}/{quote(asset)}"

    def answer(self, request: Request, data: bytes | None) -> Reply:
        """Answer any request; the API within its limit."""
        if not request.path.startswith("/api/v3/"):
            return self._download(request)
        count, budget = self._budget.take(), self._budget
        reply = self._ask(request) if count.allowed else _error(self._refusal, "API rate limit exceeded")
        limits = {
            "X-RateLimit-Limit": str(budget.quota),
            "X-RateLimit-Remaining": str(count.left),
            "X-RateLimit-Used": str(budget.quota - count.left),
            "X-RateLimit-Reset": str(int(time.time()) + count.reset_s),  # seconds since 1970
            "X-RateLimit-Resource": "core",
        }
        return replace(reply, headers={**reply.headers, **limits})

    def _ask(self, request: Request) -> Reply:
        match = _API.fullmatch(request.path)
        if match is None:
            return _error(404, "Not Found")
        name, rest = match["name"], match["rest"] or ""
        if name in self._moved:
            there = f"{self.endpoint}/api/v3/repositories/{self._moved[name].id}{quote(rest)}"
            return json_reply(301, {"message": "Moved Permanently", "url": there}, {"Location": there})
        project = self.projects.get(name) if name else self._numbered(int(match["id"]))
        if project and not rest:
            return json_reply(200, project.about())
        release = project.find(rest.removeprefix("/releases/")) if project else None
        if project is None or release is None:
            return _error(404, "Not Found")
        return json_reply(200, self._release(project, release))

    def _numbered(self, number: int) -> Project | None:
        return next((p for p in self.projects.values() if p.id == number), None)

    def _release(self, project: Project, release: Release) -> Json:
        return {
            "tag_name": release.tag,
            "name": release.tag,
            "html_url": f"{self.endpoint}/{project.name}/releases/tag/{quote(release.tag)}",
            "draft": False,
            "prerelease": release.prerelease,
            "created_at": release.published,
            "published_at": release.published,
            "assets": [self._asset(project, release, name) for name in release.assets],
        }

    def _asset(self, project: Project, release: Release, name: str) -> Json:
        data = release.assets[name]
        return {
            "name": name,
            "content_type": "application/octet-stream",
            "state": "uploaded",
            "size": len(data),
            "digest": f"sha256:{hashlib.sha256(data).hexdigest()}" if release.digests else None,
            "browser_download_url": self.url(project.name, release.tag, name),
        }

    def _download(self, request: Request) -> Reply:
        match = _DOWNLOAD.fullmatch(request.path)
        if match and match["name"] in self._moved:
            new = self._moved[match["name"]].name
            there = self.origin.url(request.path.replace(match["name"], new, 1))
            return plain(301, b"", {"Location": there}, "text/html; charset=utf-8")
        project = self.projects.get(match["name"]) if match else None
        release = project.releases.get(match["tag"]) if match and project else None
        if match is None or project is None or release is None or match["asset"] not in release.assets:
            return plain(404, b"Not Found", {})
        link = self.links.sign(asset_path(release.assets[match["asset"]]))
        return plain(302, b"", {"Location": link}, "text/html; charset=utf-8")


def _error(status: int, message: str) -> Reply:
    about = "https://docs.github.com/rest"
    return json_reply(status, {"message": message, "documentation_url": about, "status": str(status)})
