"""A registry in this process: manifests, blobs and Bearer tokens, with faults.

The API is 127.0.0.1, redirects of blobs lead to localhost: another host name, as in life.
Source: OCI distribution-spec 1.1; distribution's docs/spec/auth/token.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict, deque
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

from tests.fakes.faults import Reply, Request, honest, plain
from tests.fakes.publisher import json_reply
from tests.fakes.server import FileServer

OCI = "application/vnd.oci.image.manifest.v1+json"
RAW = "application/vnd.cncf.model.weight.v1.raw"
PATH = "org.cncf.model.filepath"
_API = re.compile(r"/v2/(?P<repo>.+?)/(?P<kind>manifests|blobs/uploads|blobs)/(?P<name>[^/]*)")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """A registry on loopback; use `with`.

    Attributes:
        realm: where tokens come from, if `locked`; its own host unless told otherwise.
        login: `user:password` in base64 that the realm wants; empty: tokens for all.
        locked: whether a token is needed.
        redirects: whether blobs are on the other host.
        basic: `user:password` in base64 that every request needs; empty: none.
        uses: requests that one token is good for.
        scripted: answers to the next writes, by `POST`, `PATCH`, `PUT`, `GET` of an upload, or `MANIFEST`.
        upload_host: where uploads continue; its own host unless told otherwise.
        keeps_cut: whether an upload survives a connection that ends within a body.
    """

    def __init__(self) -> None:
        self.origin = FileServer()
        self.origin.otherwise = self
        self.cdn = FileServer()
        self.host = f"127.0.0.1:{self.origin.port}"
        self.realm = f"http://{self.host}/token"
        self.login = self.basic = ""
        self.locked = self.redirects = False
        self.uses = 1000
        self.token_reply: Reply | None = None
        self.scopes: list[str] = []
        self.tokens: dict[str, int] = {}  # token → requests that it is still good for
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self._started = 0
        self.received = 0  # bytes of uploads
        self.scripted: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self.upload_host = ""
        self.keeps_cut = True

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.origin.close()
        self.cdn.close()

    def push(self, repo: str, tag: str, data: bytes, name: str = "", kind: str = RAW, **layer: Any) -> str:
        """Publish a model of one file; return the reference by the manifest's digest."""
        digest = sha256(data)
        row: dict[str, Any] = {"mediaType": kind, "digest": digest, "size": len(data)}
        if name:
            row["annotations"] = {PATH: name}
        self.blobs[digest] = self.cdn.files[f"/{digest}"] = data
        manifest = {"schemaVersion": 2, "mediaType": OCI, "layers": [{**row, **layer}]}
        return self.put(repo, tag, json.dumps(manifest).encode())

    def put(self, repo: str, tag: str, manifest: bytes) -> str:
        """Store a manifest as it is; return the reference by its digest."""
        self.manifests[repo, tag] = self.manifests[repo, sha256(manifest)] = manifest
        return f"oci://{self.host}/{repo}@{sha256(manifest)}"

    def answer(self, request: Request, data: bytes | None) -> Reply:
        """Answer a request to the API or to the realm."""
        if request.path == "/token":
            return self._token(request)
        match = _API.fullmatch(request.path)
        if match is None:
            return plain(404, b"", {})
        if self.locked and request.headers["Host"] == self.host and not self._is_known(request):
            bearer = f'Bearer realm="{self.realm}",service="r",scope="repository:{match["repo"]}:pull,push"'
            return plain(401, b"{}", {"WWW-Authenticate": bearer})
        if self.basic and request.headers.get("Authorization") != f"Basic {self.basic}":
            return plain(401, b"{}", {"WWW-Authenticate": 'Basic realm="r"'})
        if match["kind"] == "blobs/uploads":
            return self._upload(request, match["repo"], match["name"])
        if match["kind"] == "blobs":
            return self._blob(request, match["name"])
        if request.method == "PUT":
            return self._put_manifest(request, match["repo"], match["name"])
        found = self.manifests.get((match["repo"], match["name"]))
        if found is None or OCI not in (request.headers.get("Accept") or ""):
            return json_reply(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        return plain(200, found, {"Docker-Content-Digest": sha256(found)}, OCI)

    def _blob(self, request: Request, digest: str) -> Reply:
        if self.redirects and digest in self.blobs:
            return plain(307, b"", {"Location": self.cdn.url(f"/{digest}", "localhost")})
        return honest(request, self.blobs.get(digest))

    def _put_manifest(self, request: Request, repo: str, name: str) -> Reply:
        if self.scripted["MANIFEST"]:
            return self.scripted["MANIFEST"].popleft()
        self.put(repo, name, request.body)
        return plain(201, b"", {"Docker-Content-Digest": sha256(request.body)})

    def _upload(self, request: Request, repo: str, name: str) -> Reply:
        """Answer a request about an upload, or for a new one."""
        upload = self.uploads.get(name)
        is_taken = request.method == "PATCH" and (request.is_cut or not self.scripted["PATCH"])
        if upload is not None and is_taken:
            stated = re.match(r"(\d+)-", request.headers.get("Content-Range") or "")
            if int(stated[1] if stated else 0) != len(upload):
                return self._state(416, repo, name)
            upload += request.body
            self.received += len(request.body)
        if request.is_cut:
            if not self.keeps_cut:
                self.uploads.pop(name, None)
            return Reply(0, {}, mute=True)
        if self.scripted[request.method]:
            return self.scripted[request.method].popleft()
        if request.method == "POST":
            return self._new_upload(repo)
        if upload is None:
            return json_reply(404, {"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]})
        if request.method != "PUT":
            return self._state({"PATCH": 202}.get(request.method, 204), repo, name)
        digest = parse_qs(request.query)["digest"][0]
        del self.uploads[name]
        if digest != sha256(bytes(upload)):
            return json_reply(400, {"errors": [{"code": "DIGEST_INVALID"}]})
        self.blobs[digest] = bytes(upload)
        return plain(201, b"", {"Docker-Content-Digest": digest})

    def _new_upload(self, repo: str) -> Reply:
        self._started += 1
        name = f"upload-{self._started}"
        self.uploads[name] = bytearray()
        return self._state(202, repo, name)

    def _state(self, status: int, repo: str, name: str) -> Reply:
        size = len(self.uploads[name])
        place = f"{self.upload_host}/v2/{repo}/blobs/uploads/{name}?size={size}"
        return plain(status, b"", {"Location": place, "Range": f"0-{max(0, size - 1)}"})

    def _token(self, request: Request) -> Reply:
        if self.token_reply:
            return self.token_reply
        if self.login and request.headers.get("Authorization") != f"Basic {self.login}":
            return json_reply(401, {"errors": [{"code": "UNAUTHORIZED"}]})
        self.scopes += parse_qs(request.query)["scope"]
        token = f"token-{len(self.scopes)}"
        self.tokens[token] = self.uses
        return json_reply(200, {"token": token, "expires_in": 300})

    def _is_known(self, request: Request) -> bool:
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        left = self.tokens.get(token, 0)
        self.tokens[token] = left - 1
        return left > 0
