"""A whole Hub in this process: repositories, revisions, gates, tokens, rate limits, and its CDN.

The origin is 127.0.0.1, the CDN localhost: other host names, as in life. huggingface_hub itself is the proof
that it is faithful (test_fake_hub.py). Where that client does not look, answers of the real Hub count, as
others have recorded them in 2026: an anonymous question for what is missing or private gets a 401 without
X-Error-Code; model info and tree of a gated repository are public, its files are not; the two RateLimit
headers are on every answer. Records do not agree on which routes refuse a token that nobody has: here all do.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qs, quote, urlencode

from tests.fakes.faults import Redirect, Reply, Request, honest, plain
from tests.fakes.hub import FORM, REFUSAL, blob_path, linked
from tests.fakes.hub_repo import Commit, File, Repo
from tests.fakes.publisher import Budget, Count, Publisher, json_reply
from tests.fakes.server import Tls

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/(?P<what>resolve)/(?P<rest>.+)")
_CACHED = re.compile(r"/api/(?P<what>resolve-cache)/models/(?P<repo>[^/]+/[^/]+)/(?P<rest>.+)")
_MODELS = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<rest>.+))?")
_WINDOW_S = 300  # as the Hub's documentation says, like the quotas below (for an anonymous client)
_AUTH = {"WWW-Authenticate": 'Bearer realm="Authentication required"'}


class HubSite(Publisher):
    """The Hub; `endpoint` is the value for HF_ENDPOINT."""

    def __init__(self, tls: Tls | None = None) -> None:
        super().__init__(FORM, REFUSAL, tls)
        self.page_size = 2  # entries of the tree API's pages; the Hub has 1000
        self.resolve_cache = False  # small files by a 307 to a relative address, as the Hub often does
        self._repos: dict[str, Repo] = {}
        self._moved: dict[str, str] = {}
        self._granted: dict[str, set[Repo]] = {}  # token -> gated and private ones that it may read
        self._budgets = {"pages": Budget(100, _WINDOW_S)}
        self.limit("api", 500)
        self.limit("resolvers", 3000)

    def repo(
        self, name: str, licence: str | None = "apache-2.0", gated: str | bool = False, private: bool = False
    ) -> Repo:
        """Make a repository; nothing is in it before a push."""
        self._repos[name] = Repo(name, self._keep, licence, gated, private)
        return self._repos[name]

    def rename(self, old: str, new: str) -> None:
        """Move a repository; the old name redirects."""
        self._repos[new] = self._repos.pop(old)
        self._repos[new].name = new
        self._moved[old] = new

    def allow(self, token: str, *repos: Repo) -> None:
        """Make a token known, and let it into these repositories, be they gated or private."""
        self._granted.setdefault(token, set()).update(repos)

    def limit(self, bucket: str, quota: int, window_s: int = _WINDOW_S) -> None:
        """Set how many requests the "resolvers" or the "api" take in a window, which begins anew."""
        self._budgets[bucket] = Budget(quota, window_s)

    def url(self, repo: str, path: str, revision: str = "main") -> str:
        """Return the address of a file that a user knows."""
        return f"{self.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def _keep(self, file: File) -> None:
        if file.lfs:
            self.links.put(blob_path(file.sha256), file.data)

    def answer(self, request: Request, data: bytes | None) -> Reply:
        """Answer any request, within the limits."""
        bucket = _bucket(request.path)
        budget = self._budgets[bucket]
        count = budget.take()
        reply = self._route(request) if count.allowed else _error(429, "We had to rate limit your IP.")
        return replace(reply, headers={**reply.headers, **_limits(bucket, budget, count)})

    def _route(self, request: Request) -> Reply:
        patterns = (_RESOLVE, _CACHED, _MODELS)
        match = next(filter(None, (p.fullmatch(request.path) for p in patterns)), None)
        if match is None:
            return _error(404, "Sorry, we can't find the page you are looking for.")
        if match["repo"] in self._moved:
            return _moved(request, match["repo"], self._moved[match["repo"]])
        repo, token = self._repos.get(match["repo"]), _token(request)
        granted, files = self._granted.get(token), match["what"] in ("resolve", "resolve-cache")
        if token and granted is None and not (files and repo and repo.gated):
            return _error(401, "Invalid credentials in Authorization header", headers=_AUTH)
        let_in = repo is not None and repo in (granted or ())
        if repo is None or (repo.private and not let_in):
            return _hidden(granted is not None)
        if files and repo.gated and not let_in:
            return _gated(repo, granted is not None)
        return self._content(request, repo, match["what"], match["rest"] or "main")

    def _content(self, request: Request, repo: Repo, what: str | None, rest: str) -> Reply:
        files = what in ("resolve", "resolve-cache")
        revision, commit, path = repo.find(rest)
        if commit is None or (what == "revision" and path):
            return _error(404, f"Invalid rev id: {revision}", "RevisionNotFound", text=files)
        if files:
            return self._file(request, repo, commit, path, direct=what == "resolve-cache")
        return self._tree(request, commit, path) if what == "tree" else _info(request, repo, commit)

    def _file(self, request: Request, repo: Repo, commit: Commit, path: str, direct: bool) -> Reply:
        file, headers = commit.files.get(path), {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
        if file is None:
            return _error(404, "Entry not found", "EntryNotFound", headers=headers, text=True)
        if file.lfs:
            link = self.links.sign(blob_path(file.sha256))
            return Redirect(link, linked(commit.id, file.sha256, len(file.data))).answer(request, None)
        if self.resolve_cache and not direct:
            there = f"/api/resolve-cache/models/{repo.name}/{commit.id}/{quote(path)}"
            query = f"{quote(request.path, safe='')}=&etag=%22{file.oid}%22"
            return Redirect(f"{there}?{query}", headers, 307).answer(request, None)
        reply = honest(request, file.data)
        return replace(reply, headers={**reply.headers, **headers, "ETag": f'"{file.oid}"'})

    def _tree(self, request: Request, commit: Commit, path: str) -> Reply:
        asked = parse_qs(request.query)
        entries = commit.tree(path, _flag(asked, "recursive"), _flag(asked, "expand"))
        if path and not entries:
            return _error(404, f"{path} does not exist", "EntryNotFound")
        first = int(base64.b64decode(asked["cursor"][0])) if "cursor" in asked else 0
        stop = first + min(self.page_size, int(asked.get("limit", ["1000"])[0]))
        headers = {"X-Repo-Commit": commit.id}
        if stop < len(entries):
            more = {**asked, "cursor": [base64.b64encode(b"%d" % stop).decode()]}
            there = f"{self.origin.url(request.path)}?{urlencode(more, doseq=True)}"
            headers["Link"] = f'<{there}>; rel="next"'
        return json_reply(200, entries[first:stop], headers)


def _bucket(path: str) -> str:
    if _RESOLVE.fullmatch(path) or _CACHED.fullmatch(path):
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"


def _limits(bucket: str, budget: Budget, count: Count) -> dict[str, str]:
    return {
        "RateLimit": f'"{bucket}";r={count.left};t={count.reset_s}',
        "RateLimit-Policy": f'"fixed window";"{bucket}";q={budget.quota};w={budget.window_s}',
    }


def _token(request: Request) -> str:
    return (request.headers.get("Authorization") or "").removeprefix("Bearer ").strip()


def _flag(asked: Mapping[str, list[str]], name: str) -> bool:
    return asked.get(name, ["false"])[0].lower() in ("true", "1")


def _hidden(known: bool) -> Reply:
    if known:
        return _error(404, "Repository not found", "RepoNotFound")
    return _error(401, "Invalid username or password.", headers=_AUTH)


def _gated(repo: Repo, known: bool) -> Reply:
    why = f"Access to model {repo.name} is restricted"
    if known:
        return _error(403, f"{why} and you are not in the authorized list.", "GatedRepo", text=True)
    return _error(401, f"{why}. Please log in.", "GatedRepo", text=True)


def _moved(request: Request, old: str, new: str) -> Reply:
    there = quote(request.path.replace(old, new, 1)) + (f"?{request.query}" if request.query else "")
    return Redirect(there, code=307).answer(request, None)


def _info(request: Request, repo: Repo, commit: Commit) -> Reply:
    asked = parse_qs(request.query)
    known, wanted = repo.info(commit, _flag(asked, "blobs")), asked.get("expand", [])
    if wanted:
        known = {name: value for name, value in known.items() if name in ("_id", "id", *wanted)}
    return json_reply(200, known)


def _error(
    status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None, text: bool = False
) -> Reply:
    said = {**(headers or {}), "X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
    if text:
        return plain(status, message.encode(), said, "text/plain; charset=utf-8")
    return json_reply(status, {"error": message}, said)
