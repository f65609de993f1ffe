"""Parse what the Hub and GitHub state about a file, in headers or JSON. Pure.

Source: huggingface_hub constants.py (X-Repo-Commit, X-Linked-Etag, X-Linked-Size,
X-Error-Code) and file_download.py (a small file is sent at once and has no SHA-256);
GitHub's REST API, "releases".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

from tasks.catalogue.file_specs import HubFile, Release
from tasks.catalogue.spdx import spdx_id
from tasks.errors import TransferError, did_you_mean
from tasks.network.answers import file_size, whole_number
from tasks.network.response import publisher_digest
from tasks.system.paths import is_version
from tasks.urls import filename_of, is_local, url_error

_HUB_ERRORS = {
    "RepoNotFound": "there is no repository {repo} on the Hub, or it is private",
    "RevisionNotFound": "{repo} has no revision {revision}",
    "EntryNotFound": "{repo} has no file {path} at {revision}",
    "GatedRepo": "{repo} is gated: accept its licence on its page",
}
MAX_NAME = 200  # characters of a license's name
_NO_TOKEN = "set HF_TOKEN to a token that may read it"


class FileBeside(NamedTuple):
    """A file that the publisher of a model has beside it."""

    role: str  # mmproj or template
    url: str
    sha256: str
    size: int


class RemoteFile(NamedTuple):
    """What is known of one file."""

    url: str  # of exactly these bytes
    sha256: str | None = None
    size: int | None = None
    commit: str | None = None
    version: str | None = None
    by: str = ""  # the origin of the digest, for models.lock
    beside: tuple[FileBeside, ...] = ()
    license: str = ""  # as a registry's manifest states it


def parse_hub_headers(file: HubFile, headers: Mapping[str, str]) -> RemoteFile:
    """Parse the Hub's response to HEAD.

    Args:
        headers: with lower-case names.
    """
    commit = headers.get("x-repo-commit")
    if commit and not file._replace(revision=commit).is_pinned:
        commit = None  # not 40 hexadecimal digits
    length = headers.get("x-linked-size")
    if not length and "location" not in headers:
        # The length of a redirect is that of its text.
        length = headers.get("content-length", "")
    size = file_size(whole_number(length or ""))
    url = file._replace(revision=commit or file.revision).url
    sha256 = publisher_digest(headers)
    return RemoteFile(url, sha256, size, commit, by="the Hub (X-Linked-Etag)")


def explain_hub_error(
    file: HubFile, status: int, headers: Mapping[str, str], token: bool
) -> tuple[str, str]:
    """Return (what, remedy) of an error; empty if the Hub does not state the reason.

    Without a token, the Hub answers 401 without a code for a private or missing file.

    Args:
        headers: with lower-case names.
        token: whether one was sent.
    """
    code = headers.get("x-error-code", "")
    if status == 401 and not code:
        if token:
            remedy = "run hf auth login, set another HF_TOKEN, or unset it"
            return "the Hub does not accept the token", remedy
        code = "RepoNotFound"
    what = _HUB_ERRORS.get(code, "").format(**file._asdict())
    if code in ("RepoNotFound", "GatedRepo"):
        return what, _NO_TOKEN
    return what, ""


def parse_release(release: Release, data: Any) -> RemoteFile | None:
    """Parse what a release's JSON states about one of its files.

    Returns:
        None if the file is not in it, or if its URL or its size is not usable.

    Raises:
        TransferError: the release's tag cannot be a version.
    """
    if not isinstance(data, dict):
        return None
    assets = data.get("assets")
    tag = data.get("tag_name")
    if not isinstance(assets, list) or not isinstance(tag, str):
        return None
    version = _number(tag)
    if "{version}" in release.tag + release.asset and not is_version(version):
        raise TransferError(
            f"{release.host}: the latest release of {release.repo} is tagged "
            f"{tag[:80]!r}: expected a version such as 0.10.5"
        )
    asset = _asset(assets, release.asset.replace("{version}", version))
    url = asset.get("browser_download_url")
    size = file_size(asset.get("size"))
    sha256 = _digest(asset.get("digest"))
    if size is None or not isinstance(url, str):
        return None
    if not _is_remote(url, pinned=sha256 is not None):
        return None
    return RemoteFile(url, sha256, size, None, version, "GitHub (digest of the asset)")


def explain_missing(release: Release, data: Any) -> tuple[str, str]:
    """Return (name, remedy) of a file that a release does not have.

    The names of archives change between releases.
    """
    name = release.asset
    if not isinstance(data, dict):
        return name, ""
    tag = data.get("tag_name")
    if isinstance(tag, str) and is_version(_number(tag)):
        name = name.replace("{version}", _number(tag))
    assets = data.get("assets")
    if not isinstance(assets, list):
        return name, ""
    names = (one.get("name") for one in assets if isinstance(one, dict))
    return name, did_you_mean(name, [one for one in names if _is_name(one)])


def _asset(assets: list[Any], name: str) -> dict[str, Any]:
    """Return the asset of a name; empty if there is none."""
    for asset in assets:
        if isinstance(asset, dict) and asset.get("name") == name:
            return asset
    return {}


def _digest(value: object) -> str | None:
    """Return the SHA-256 in an asset's `digest`; None if it has another form."""
    if not isinstance(value, str):
        return None
    digest = value.removeprefix("sha256:").lower()
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else None


def _is_remote(url: str, *, pinned: bool) -> bool:
    """Return whether a URL from a release names a file on a network."""
    if not url.isascii() or not url.isprintable() or url_error(url, pinned=pinned):
        return False
    return not is_local(url) and bool(filename_of(url))


def _number(tag: str) -> str:
    """Return the version in a tag: projects write `v1.2` or `1.2`."""
    return tag[1:] if tag[:1] == "v" and tag[1:2].isdigit() else tag


def parse_license(data: Any) -> str:
    """Return the license in the JSON of a repository, or nothing.

    Source: docs.github.com, "Get a repository"; huggingface.co/docs/hub/model-cards
    (`license`, and `license_name` for licenses without an SPDX identifier).
    """
    if not isinstance(data, dict):
        return ""
    github = data.get("license")
    if isinstance(github, dict):
        name = github.get("spdx_id")
        return name if _is_name(name) and name != "NOASSERTION" else ""
    for name in _hub_licenses(data):
        if _is_name(name) and name != "other":
            # the Hub writes SPDX identifiers in lower case
            return spdx_id(name) or name
    return ""


def _hub_licenses(data: Mapping[str, Any]) -> Iterator[object]:
    """Yield the candidates, the most specific one first."""
    card = data.get("cardData")
    if isinstance(card, dict):
        yield card.get("license_name")
        yield card.get("license")
    tags = data.get("tags")
    for tag in tags if isinstance(tags, list) else []:
        if isinstance(tag, str) and tag.startswith("license:"):
            yield tag.removeprefix("license:")


def parse_oci_license(manifest: Mapping[str, Any]) -> str:
    """Return the license in the annotations of a manifest, or nothing.

    Source: github.com/opencontainers/image-spec, annotations.md.
    """
    annotations = manifest.get("annotations")
    if not isinstance(annotations, dict):
        return ""
    name = annotations.get("org.opencontainers.image.licenses")
    return name if _is_name(name) else ""


def _is_name(value: object) -> TypeGuard[str]:
    """Return whether a value can be a license's name: one short line of text."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
