"""Decide what a registry's answer to a write means. Pure.

Source: OCI distribution-spec 1.1, "Pushing blobs" and "Error codes"; RFC 9110 §15.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from tasks.network.answers import parse_json, whole_number
from tasks.network.registry import realm_problem

PIECE = 32 * 1024**2  # bytes of one request
LEAST_PIECE = 256 * 1024  # nginx takes 1 MB unless told otherwise
_MOST_PIECE = 1024**3  # bytes that a registry may demand
_MAX_LOCATION = 16 * 1024  # characters
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 527})


class Ask(str, Enum):
    """What a request is for; the value completes `the registry refuses …`."""

    FIND = "to say whether it has a file"
    START = "an upload"
    MOUNT = "a mount"
    PIECE = "a part of a file"
    STATUS = "the state of an upload"
    FINISH = "the end of an upload"
    TAG = "to state the tag"
    MANIFEST = "the manifest"


class Verdict(Enum):
    """What an answer means."""

    DONE = "it is as requested"
    ABSENT = "there is no such file or tag"
    RETRY = "a later request may be answered"
    SMALLER = "the request was too large"
    UNSURE = "the registry has other bytes than assumed"
    LOST = "the upload does not exist any more"
    MISMATCH = "the registry received other bytes"
    REFUSED = "it will not be done"


_DONE = {
    Ask.FIND: (200, 302, 303, 307),  # a redirect leads to where the file is stored
    Ask.START: (202,),
    Ask.MOUNT: (201, 202),
    Ask.PIECE: (202, 204),
    Ask.STATUS: (204, 202, 200),
    Ask.FINISH: (201,),
    Ask.TAG: (200,),
    Ask.MANIFEST: (201,),
}
_OF_UPLOAD = (Ask.PIECE, Ask.STATUS, Ask.FINISH)


def verdict(ask: Ask, status: int, code: str = "") -> Verdict:
    """Return what a status means.

    Args:
        code: the registry's own, such as DIGEST_INVALID; empty if it sent none.
    """
    if status in _DONE[ask]:
        return Verdict.DONE
    if status in _PASSING:
        return Verdict.RETRY
    if status == 404 and ask in (Ask.FIND, Ask.TAG):
        return Verdict.ABSENT
    if status == 413 and ask is Ask.PIECE:
        return Verdict.SMALLER
    if status == 416 and ask in _OF_UPLOAD:
        return Verdict.UNSURE
    if status == 400 and ask is Ask.FINISH and code != "BLOB_UPLOAD_INVALID":
        return Verdict.MISMATCH
    if ask in _OF_UPLOAD and status in (400, 404, 410):
        return Verdict.LOST
    return Verdict.REFUSED


def error_code(body: bytes) -> str:
    """Return the code of the first error in a body, such as DENIED; "" if none."""
    try:
        code = parse_json(body)["errors"][0]["code"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    if isinstance(code, str) and re.fullmatch(r"[A-Z_]{1,40}", code):
        return code
    return ""


class Refusal(NamedTuple):
    """An error of the registry, in words."""

    what: str
    fix: str = ""


def refusal(
    ask: Ask, status: int, code: str, host: str, repo: str, location: str = ""
) -> Refusal:
    """Return what to tell about an answer that ends the push.

    Args:
        location: where a redirect leads.
    """
    why = f"HTTP {status}"
    if code:
        why = f"{why} {code}"
    what = f"{host} refuses {ask.value} ({why})"
    login = f"docker login {host}, as a user who may push to {repo}"
    if 300 <= status < 400:
        target = _host(location) or "another address"
        what = f"{host} redirects a write to {target} (HTTP {status})"
        return Refusal(what, "name that host in the reference, if it is the registry")
    if status in (401, 403):
        return Refusal(f"{host} does not let you push to {repo} ({why})", login)
    if code == "MANIFEST_BLOB_UNKNOWN":
        return Refusal(what, "push again: the registry has lost a file meanwhile")
    if status == 404:
        return Refusal(what, f"create the repository {repo}, or correct its name")
    if status == 405:
        fix = f"is {host} a registry that takes pushes, or a mirror of another one?"
        return Refusal(what, fix)
    if status == 413:
        fix = "raise the limit of the proxy (nginx: client_max_body_size)"
        return Refusal(what, fix)
    if status == 407:
        return Refusal("the proxy wants a password (HTTP 407)", "set HTTPS_PROXY")
    return Refusal(what)


def _host(url: str) -> str:
    """Return the host of a URL with its port, without a password; "" if none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def stored(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes an upload has, by its Range; None if it is not stated."""
    match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", headers.get("range", "").strip())
    if not match:
        return None
    return int(match[1]) + 1


def stored_by_status(headers: Mapping[str, str]) -> int | None:
    """Return the same for the state of an upload: `0-0` is that of an empty one."""
    count = stored(headers)
    if count == 1:
        return 0
    return count


def least_piece(headers: Mapping[str, str]) -> int:
    """Return the least bytes of a request that the registry demands; 0 for any."""
    least = whole_number(headers.get("oci-chunk-min-length")) or 0
    if least > _MOST_PIECE:
        return 0
    return least


def next_place(headers: Mapping[str, str], url: str, base: str) -> tuple[str, str]:
    """Return where an upload continues, and what is wrong with that place.

    Args:
        url: of the request, to which the place may be relative.
        base: URL of the repository.
    """
    stated = headers.get("location", "")
    if not stated:
        return "", "the answer has no Location"
    if len(stated) > _MAX_LOCATION:
        return "", f"its Location exceeds {_MAX_LOCATION} characters"
    try:
        place = urljoin(url, stated)
    except ValueError:
        return "", "its Location is not a URL"
    if base.startswith("https:") and urlsplit(place).netloc == urlsplit(base).netloc:
        # a registry behind a proxy that ends TLS may not know its own scheme
        place = urlsplit(place)._replace(scheme="https").geturl()
    return place, place_problem(place, base)


def place_problem(place: str, base: str) -> str:
    """Return why no bytes may be sent to a URL that the registry chose.

    It must not lead to a service inside the user's network, and the bytes must not be
    sent unencrypted.

    Args:
        base: URL of the repository.
    """
    return realm_problem(place, base)


def is_same_host(url: str, base: str) -> bool:
    """Return whether credentials for one URL may be sent to another."""
    one = urlsplit(url)
    other = urlsplit(base)
    return (one.scheme, one.netloc) == (other.scheme, other.netloc)


def with_digest(place: str, digest: str) -> str:
    """Return the URL that ends an upload."""
    mark = "?"
    if "?" in place:
        mark = "&"
    return f"{place}{mark}digest={digest}"


def wrong_digest(headers: Mapping[str, str], expected: str) -> str:
    """Return the digest that an answer states, if it is another one; else ""."""
    stated = headers.get("docker-content-digest", "")
    if stated.startswith("sha256:") and stated != expected:
        return ascii(stated[:100]).strip("'")
    return ""
