"""The real docker-registry on 127.0.0.1 and a free port, with its own storage, also with Bearer tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.fakes.faults import Reply, Request
from tests.fakes.publisher import json_reply
from tests.fakes.server import FileServer
from tests.support.ports import free_port

PROGRAM = shutil.which("docker-registry")
needs_docker_registry = pytest.mark.skipif(PROGRAM is None, reason="docker-registry is not installed (apt)")

OCI = "application/vnd.oci.image.manifest.v1+json"


class DockerRegistry:
    """The registry. Use `with`.

    Args:
        folder: its storage; a second one may go on with it.
        tokens: who gives the tokens that it wants.
    """

    def __init__(self, folder: Path, tokens: Tokens | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        self.host = f"127.0.0.1:{free_port()}"
        conf: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": self.host, "secret": "none"},
        }
        if tokens:
            conf["auth"] = {"token": tokens.conf}
        (folder / "config.yml").write_text(json.dumps(conf), "utf-8")
        with self._log.open("wb") as log:
            command = [str(PROGRAM), "serve", str(folder / "config.yml")]
            self._popen = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> DockerRegistry:
        name, _, port = self.host.partition(":")
        deadline = time.monotonic() + 90
        while True:
            with suppress(OSError), socket.create_connection((name, int(port)), 1):
                return self
            if self._popen.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise AssertionError(self._log.read_text())
            time.sleep(0.01)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once; its storage stays as it is."""
        self._popen.kill()
        self._popen.wait(60)

    def push(self, repo: str, tag: str, data: bytes, layer: dict[str, Any], config: str) -> str:
        """Publish a model of one file; return the digest of the manifest."""
        empty = b"{}"
        rows = [self._blob(repo, empty, {"mediaType": config}), self._blob(repo, data, layer)]
        manifest = {"schemaVersion": 2, "mediaType": OCI, "config": rows[0], "layers": rows[1:]}
        body = json.dumps(manifest).encode()
        put = urllib.request.Request(f"http://{self.host}/v2/{repo}/manifests/{tag}", body, method="PUT")
        put.add_header("Content-Type", OCI)
        with urllib.request.urlopen(put, timeout=60) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def _blob(self, repo: str, data: bytes, row: dict[str, Any]) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        start = urllib.request.Request(f"http://{self.host}/v2/{repo}/blobs/uploads/", b"", method="POST")
        with urllib.request.urlopen(start, timeout=60) as answer:
            place = answer.headers["Location"]
        put = urllib.request.Request(f"{place}&digest={digest}", data, method="PUT")
        put.add_header("Content-Type", "application/octet-stream")
        urllib.request.urlopen(put, timeout=60).close()
        return {**row, "digest": digest, "size": len(data)}


class Tokens:
    """An issuer of Bearer tokens, whose key the registry trusts; needs `openssl`. Use `with`.

    Source: distribution's docs/spec/auth/jwt.md. `asked` has each request. A token is for those who present
    `login` (user:password in base64), and for all if it is empty.
    """

    def __init__(self, folder: Path) -> None:
        self._key, self._cert = folder / "key.pem", folder / "cert.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        files = ["-subj", "/CN=issuer", "-keyout", str(self._key), "-out", str(self._cert)]
        subprocess.run(["openssl", "req", "-x509", *curve, *files], check=True, capture_output=True)
        self._site = FileServer()
        self._site.guard("/token", self._answer)
        self.asked: list[Request] = []
        self.login = ""

    def __enter__(self) -> Tokens:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._site.close()

    @property
    def conf(self) -> dict[str, Any]:
        """What the registry's configuration says about it."""
        realm = self._site.url("/token")
        return {"realm": realm, "service": "r", "issuer": "i", "rootcertbundle": str(self._cert)}

    def _answer(self, request: Request) -> Reply:
        self.asked.append(request)
        if self.login and request.headers.get("Authorization") != f"Basic {self.login}":
            return json_reply(401, {"errors": [{"code": "UNAUTHORIZED"}]})
        scopes = [scope.split(":") for scope in parse_qs(request.query)["scope"]]
        access = [{"type": kind, "name": name, "actions": may.split(",")} for kind, name, may in scopes]
        now = int(time.time())
        claims = {"iss": "i", "aud": "r", "sub": "", "jti": "1", "access": access}
        times = {"iat": now, "nbf": now - 10, "exp": now + 300}
        return json_reply(200, {"token": self._signed({**claims, **times}), "expires_in": 300})

    def _signed(self, claims: dict[str, Any]) -> str:
        certificate = "".join(self._cert.read_text().splitlines()[1:-1])
        head = {"alg": "ES256", "typ": "JWT", "x5c": [certificate]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        der = subprocess.run(command, input=text.encode(), check=True, capture_output=True).stdout
        first = 4 + der[3]  # SEQUENCE { INTEGER r, INTEGER s }: RFC 7518 wants both with 32 bytes
        numbers = [int.from_bytes(part, "big") for part in (der[4:first], der[first + 2 :])]
        return f"{text}.{_encoded(b''.join(n.to_bytes(32, 'big') for n in numbers))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
