"""What publishers state about a file: the Hub in headers, GitHub in its releases' JSON. Pure.

Source: huggingface_hub constants.py (X-Repo-Commit, X-Linked-Etag, X-Linked-Size, X-Error-Code) and
file_download.py (a small file is answered at once and has no SHA-256); GitHub's REST API, "releases".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.core.errors import TransferError
from tasks.core.paths import is_version
from tasks.core.sources import HubFile, Release
from tasks.core.transfer import publisher_digest

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
    own = "" if "location" in headers else headers.get("content-length", "")  # not of a redirect's text
    size = headers.get("x-linked-size") or own
    known = int(size) if size.isdigit() and len(size) < 20 else None
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
    """What a release's JSON states about one of its files; None where the file is not in it.

    Raises TransferError: the release has a tag that cannot be a version.
    """
    try:
        tag = str(data["tag_name"])
        version = _number(tag)
        if "{version}" in release.tag + release.asset and not is_version(version):
            what = f"{release.host}: the latest release of {release.repo} is tagged {tag[:80]!r}"
            raise TransferError(f"{what}: expected a version such as 0.10.5")
        name = release.asset.replace("{version}", version)
        asset = next(one for one in data["assets"] if one["name"] == name)
        digest = str(asset.get("digest") or "").removeprefix("sha256:").lower()
        url = str(asset["browser_download_url"])
        known = digest if len(digest) == 64 and set(digest) <= set("0123456789abcdef") else None
        return Stated(url, known, int(asset["size"]), None, version, "GitHub (digest of the asset)")
    except (KeyError, TypeError, ValueError, StopIteration):
        return None


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
        return found if isinstance(found, str) and found != "NOASSERTION" else ""
    card = card if isinstance(card, dict) else {}
    words = [card.get("license_name"), card.get("license")]
    words += [str(tag).partition(":")[2] for tag in data.get("tags") or () if str(tag).startswith("license:")]
    word = next((one for one in words if isinstance(one, str) and one not in ("", "other")), "")
    return _SPDX.get(word.lower(), word)
