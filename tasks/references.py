"""References to files of registries: `oci:`, `ollama:` and `ms:`. Pure.

Source: OCI distribution-spec 1.1, "Pulling manifests" (names, tags, digests); Ollama
types/model/name.go (defaults of host, namespace and tag); ModelScope's resolve URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

SCHEMES = ("oci", "ollama", "ms")
OLLAMA = "registry.ollama.ai"
MODELSCOPE = "modelscope.cn"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_DOCKER_HUB = "docker.io"
# texts: every run loads this module, and few need one of them compiled
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPO = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?"
_FILE = r"[^/?#\\\x00-\x20]+\.(?i:gguf|llamafile|jinja)"
_OCI = (
    rf"oci://(?P<host>{_HOST})/(?P<repo>{_REPO})"
    rf"(?::(?P<tag>{_TAG})|@(?P<digest>sha256:[0-9a-f]{{64}}))(?:/(?P<file>{_FILE}))?"
)
_OLLAMA = rf"ollama:(?P<repo>{_PART}(?:/{_PART})?)(?::(?P<tag>{_TAG}))?"
_MS = (
    r"ms:(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)"
    r"(?:@(?P<revision>[A-Za-z0-9_][\w.-]*))?/(?P<file>[^?#\\\x00-\x20]+)"
)
_EXPECTED = {
    "oci": "oci://HOST/REPO:TAG or oci://HOST/REPO@sha256:DIGEST, then /FILE.gguf if "
    "it has several files",
    "ollama": "ollama:NAME:TAG or ollama:NAMESPACE/NAME:TAG",
    "ms": "ms:OWNER/REPO/FILE or ms:OWNER/REPO@REVISION/FILE",
}
MAX_REPO = 255  # characters of host and repository; Source: distribution-spec


class OciReference(NamedTuple):
    """A file of a manifest in a registry."""

    host: str  # with its port
    repo: str
    tag: str = ""
    digest: str = ""  # of the manifest, `sha256:…`; empty with a tag
    file: str = ""  # empty: the only one, or the name follows from the tag

    @property
    def version(self) -> str:
        """Tag or digest, as the registry's API takes it."""
        return self.digest or self.tag

    @property
    def filename(self) -> str:
        """The file's name; derived from repository and tag if it has none."""
        if self.file:
            return self.file
        name = self.repo.rpartition("/")[2]
        version = self.tag or self.digest.removeprefix("sha256:")[:12]
        return f"{name}-{version}.gguf"

    @property
    def base(self) -> str:
        """URL of the repository in the registry's API; http only on this machine."""
        host = api_host(self.host)
        scheme = "https"
        if host.rpartition(":")[0] in _LOOPBACK or host in _LOOPBACK:
            scheme = "http"
        return f"{scheme}://{host}/v2/{self.repo}"

    def __str__(self) -> str:
        version = f":{self.tag}"
        if self.digest:
            version = f"@{self.digest}"
        end = self.file and f"/{self.file}"
        return f"oci://{self.host}/{self.repo}{version}{end}"


class ModelScopeFile(NamedTuple):
    """A file in a repository of ModelScope."""

    repo: str
    revision: str
    path: str

    def url(self, env: Mapping[str, str]) -> str:
        """Return the URL of the file's bytes."""
        revision = quote(self.revision, safe="")
        return f"{_modelscope(env)}/{self.repo}/resolve/{revision}/{quote(self.path)}"

    def api(self, env: Mapping[str, str]) -> str:
        """Return the URL of what ModelScope states about the file."""
        revision = quote(self.revision, safe="")
        path = quote(self.path, safe="")
        query = f"Revision={revision}&FilePath={path}&Needmeta=true"
        return f"{_modelscope(env)}/api/v1/models/{self.repo}/repo/raw?{query}"


def _modelscope(env: Mapping[str, str]) -> str:
    """Return ModelScope's address; MODELSCOPE_DOMAIN replaces its host."""
    host = env.get("MODELSCOPE_DOMAIN") or MODELSCOPE
    if not re.fullmatch(_HOST, host):
        host = MODELSCOPE
    if host.rpartition(":")[0] in _LOOPBACK:
        return f"http://{host}"
    return f"https://{host}"


def api_host(host: str) -> str:
    """Return the host of a registry's API: Docker Hub has another one."""
    if host == _DOCKER_HUB:
        return "registry-1.docker.io"
    return host


def scheme_of(text: str) -> str:
    """Return `oci`, `ollama` or `ms`; "" for any other text."""
    scheme, colon, _ = text.partition(":")
    if colon and scheme in SCHEMES:
        return scheme
    return ""


def parse_oci(text: str) -> OciReference | None:
    """Parse a reference with `oci:` or `ollama:`; None for any other text."""
    match = re.fullmatch(_OLLAMA, text)
    if match:
        repo = match["repo"]
        if "/" not in repo:
            repo = f"library/{repo}"
        return OciReference(OLLAMA, repo, match["tag"] or "latest")
    match = re.fullmatch(_OCI, text)
    if not match or len(match["host"] + match["repo"]) > MAX_REPO:
        return None
    return OciReference(**match.groupdict(""))


def parse_modelscope(text: str) -> ModelScopeFile | None:
    """Parse a reference with `ms:`; None for any other text."""
    match = re.fullmatch(_MS, text, re.ASCII)
    if not match or {"", ".", ".."} & set(match["file"].split("/")):
        return None
    return ModelScopeFile(match["repo"], match["revision"] or "master", match["file"])


def filename_of(text: str) -> str:
    """Return the name of a reference's file; "" if it is malformed."""
    if oci := parse_oci(text):
        return oci.filename
    if file := parse_modelscope(text):
        return file.path.rpartition("/")[2]
    return ""


def problem_of(text: str) -> str:
    """Return what is wrong with a reference; "" if nothing."""
    if parse_oci(text) or parse_modelscope(text):
        return ""
    scheme = scheme_of(text)
    problem = f"{text}: expected {_EXPECTED[scheme]}"
    if scheme == "oci" and text != text.lower() and parse_oci(text.lower()):
        problem += "; a repository is written in lower case"
    return problem


def file_url(text: str, sha256: str | None, env: Mapping[str, str]) -> str:
    """Return the URL of a source's bytes; "" if a digest is needed and not known.

    Any other text is returned unchanged.
    """
    if oci := parse_oci(text):
        if not sha256:
            return ""
        return f"{oci.base}/blobs/sha256:{sha256}"
    if file := parse_modelscope(text):
        return file.url(env)
    return text
