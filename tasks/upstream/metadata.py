"""What publishers state about a file: the Hub in headers, GitHub in its releases' JSON. Pure.

Source: huggingface_hub constants.py (X-Repo-Commit, X-Linked-Etag, X-Linked-Size, X-Error-Code) and
file_download.py (a small file is answered at once and has no SHA-256); GitHub's REST API, "releases".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from tasks.catalogue.file_specs import HubFile, Release
from tasks.errors import TransferError
from tasks.network.answers import file_size, whole_number
from tasks.network.response import publisher_digest
from tasks.system.paths import is_version
from tasks.urls import filename_of, is_local, url_problem

_HUB_ERRORS = {
    "RepoNotFound": "there is no repository {repo} on the Hub, or it is private",
    "RevisionNotFound": "{repo} has no revision {revision}",
    "EntryNotFound": "{repo} has no file {path} at {revision}",
    "GatedRepo": "{repo} is gated: accept its licence on its page",
}
# The Hub writes identifiers in small letters
_SPDX = {
    one.lower(): one
    for one in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0")
}
MOST_NAME = 200  # characters of a licence's name
_NO_TOKEN = "set HF_TOKEN to a token that may read it"


class Stated(NamedTuple):
    """What is known of one file."""

    url: str  # where exactly these bytes are
    sha256: str | None = None
    size: int | None = None
    commit: str | None = None
    version: str | None = None
    by: str = ""  # who says so


def hub_states(file: HubFile, headers: Mapping[str, str]) -> Stated:
    """What the Hub's answer to HEAD states.

    Args:
        headers: with lower-case names.
    """
    commit = headers.get("x-repo-commit")
    if commit and not file._replace(revision=commit).is_pinned:
        commit = None  # not 40 hexadecimal digits
    own = "" if "location" in headers else headers.get("content-length", "")  # not of a redirect's text
    known = file_size(whole_number(headers.get("x-linked-size") or own))
    url = file._replace(revision=commit or file.revision).url
    return Stated(url, publisher_digest(headers), known, commit, by="the Hub (X-Linked-Etag)")


def hub_problem(file: HubFile, status: int, headers: Mapping[str, str], token: bool) -> tuple[str, str]:
    """(what, remedy) of a refusal, empty where the Hub does not say why.

    Args:
        token: whether one was sent. Without one, what is private or missing is a 401 without a code.
    """
    code = headers.get("x-error-code", "")
    if status == 401 and not code:
        if token:
            return "the Hub does not know the token", "hf auth login, or another HF_TOKEN, or none"
        code = "RepoNotFound"
    what = _HUB_ERRORS.get(code, "").format(**file._asdict())
    return what, _NO_TOKEN if code in ("RepoNotFound", "GatedRepo") else ""


def release_states(release: Release, data: Any) -> Stated | None:
    """What a release's JSON states about one of its files.

    Returns:
        None where the file is not in it, or is described in a form that cannot be used.

    Raises TransferError: the release has a tag that cannot be a version.
    """
    assets = data.get("assets") if isinstance(data, dict) else None
    tag = data.get("tag_name") if isinstance(data, dict) else None
    if not isinstance(assets, list) or not isinstance(tag, str):
        return None
    if "{version}" in release.tag + release.asset and not is_version(_number(tag)):
        what = f"{release.host}: the latest release of {release.repo} is tagged {tag[:80]!r}"
        raise TransferError(f"{what}: expected a version such as 0.10.5")
    name = release.asset.replace("{version}", _number(tag))
    named = (one for one in assets if isinstance(one, dict) and one.get("name") == name)
    asset = next(named, {})
    url, size = asset.get("browser_download_url"), file_size(asset.get("size"))
    sha256 = _digest(asset.get("digest"))
    if size is None or not isinstance(url, str) or not _is_remote(url, pinned=sha256 is not None):
        return None
    return Stated(url, sha256, size, None, _number(tag), "GitHub (digest of the asset)")


def _digest(value: object) -> str | None:
    """The SHA-256 of an asset's `digest`; None for another algorithm, or none at all."""
    digest = value.removeprefix("sha256:").lower() if isinstance(value, str) else ""
    return digest if len(digest) == 64 and set(digest) <= set("0123456789abcdef") else None


def _is_remote(url: str, *, pinned: bool) -> bool:
    """Whether a publisher's address names a file on a network; a path of this machine it may not name."""
    if not (url.isascii() and url.isprintable()) or url_problem(url, pinned=pinned):
        return False
    return not is_local(url) and bool(filename_of(url))


def _number(tag: str) -> str:
    """The version that a tag names: projects write `v1.2` or `1.2`."""
    return tag[1:] if tag[:1] == "v" and tag[1:2].isdigit() else tag


def licence_of(data: Any) -> str:
    """The licence that a publisher's JSON about a repository names, or nothing.

    The Hub's model card has `license` and, for those without an SPDX identifier, `license_name`.
    """
    if not isinstance(data, dict):
        return ""
    card, own = data.get("cardData"), data.get("license")
    if isinstance(own, dict):  # GitHub
        found = own.get("spdx_id")
        return found if _is_name(found) and found != "NOASSERTION" else ""
    card, tags = card if isinstance(card, dict) else {}, data.get("tags")
    words = [card.get("license_name"), card.get("license")]
    listed = tags if isinstance(tags, list) else []
    words += [tag.partition(":")[2] for tag in listed if isinstance(tag, str) and tag[:8] == "license:"]
    word = next((one for one in words if _is_name(one) and one != "other"), "")
    return _SPDX.get(word.lower(), word)


def _is_name(value: object) -> TypeGuard[str]:
    """Whether a value can be the name of a licence: one short line of text."""
    return isinstance(value, str) and 0 < len(value) <= MOST_NAME and value.isprintable()
