"""Decide what an HTTP response means for a download, and how long to wait. Pure.

A response can only tell that bytes did not arrive (RETRY, then the next source).
Whether bytes are wrong is decided by the digest, not here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import NamedTuple

from tasks.network import access, content, framing
from tasks.network.access import Access
from tasks.network.answers import MAX_BYTES, whole_number

RETRIES = 6  # failures in a row without a new byte, for one source
# the same for one of several connections, which then ends; the others take over
CONNECTION_RETRIES = 2
MAX_LINK_REFRESHES = 3  # new links in a row that are refused
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
WAIT_TOTAL_S = 900.0  # all waits for one source; rate windows of the Hub last 300 s

# RFC 9110 §15.5, §15.6 and the Hub: statuses that a later request may not get
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 527})
# Successes without the file. 202: it is being prepared; 204, 205: no content; 304: a
# faulty cache, as no request is conditional without a range (RFC 9110 §15.3, §15.4.5)
_NO_CONTENT = frozenset({202, 204, 205, 304})
_TOO_MANY = frozenset({429, 503})
# An expired signed link: S3 and CloudFront 403, Azure 403 and 404, Google 400, GitHub's
# assets 618
_LINK_DEAD = frozenset({400, 401, 403, 404, 410, 618})
_LINK_REFUSED = frozenset({403, 618})  # a signed link that is new
_REMEDY = {
    404: "the file is gone, or the URL is misspelt: correct it, or add a mirror",
    410: "the file is gone: use another URL, or add a mirror",
    451: "the file is not available here, for legal reasons",
}
_HEX = frozenset("0123456789abcdef")


class Action(Enum):
    """What to do with a response."""

    BODY = "body"  # read the body, which begins at the requested offset
    FULL_BODY = (
        "whole"  # read the body, which begins at 0 and not at the requested offset
    )
    DONE = "done"  # every byte is here already
    RESTART = "restart"  # request the file again, from 0
    REFRESH_LINK = "relink"  # request a new link from the origin, keep the bytes
    RETRY = "retry"  # wait, then request again
    GIVE_UP = "give up"  # this source will not deliver


class RangeRequest(NamedTuple):
    """The request that a response answers."""

    first: int = 0  # first byte of the range
    size: int | None = None  # bytes of the whole file, None if unknown
    validator: str = (
        ""  # ETag or Last-Modified of the bytes here, if no digest pins them
    )
    last: int | None = None  # last byte of the range; None: to the end of the file
    link: bool = False  # it went to a link that the origin gave earlier
    pinned: bool = False  # a known digest decides whether the bytes are right
    fresh: bool = False  # no cache may answer, because a response had wrong bytes
    access: Access = Access()

    @property
    def is_range(self) -> bool:
        """Return whether it is for a part of the file."""
        return self.first > 0 or self.last is not None


class Decision(NamedTuple):
    """What to do, why, and what the response says about the whole file."""

    action: Action
    why: str = ""
    total: int | None = None  # bytes of the whole file, according to the server
    last: int | None = None  # last byte of this body; None if the server does not say
    wait_s: float | None = None  # seconds the server asks to wait; None if it does not
    remedy: str = ""  # what the user can do, if known
    no_response: bool = False  # the host sent no response at all
    rate_limited: bool = False  # fewer connections may be accepted
    page: bool = False  # Content-Type says web page: the first bytes of the body decide
    wrong_length: int | None = None  # bytes of a body that is not the whole file

    @property
    def reason(self) -> str:
        """Return why, and what the user can do."""
        return f"{self.why}; {self.remedy}" if self.remedy else self.why


def request_headers(asked: RangeRequest) -> dict[str, str]:
    """Return the headers of a request (RFC 9110 §14.2, §13.1.5).

    `identity`, because offsets in a compressed body differ (huggingface_hub#3778).
    If-Range only if no digest pins the bytes, because the servers of one CDN disagree
    about ETags. `no-cache` (RFC 9111 §5.2.1.4) makes a cache ask the origin again.
    """
    headers = {"Accept-Encoding": "identity"}
    if asked.fresh:
        headers["Cache-Control"] = "no-cache"
    if asked.is_range:
        last = "" if asked.last is None else asked.last
        headers["Range"] = f"bytes={asked.first}-{last}"
        if asked.validator:
            headers["If-Range"] = asked.validator
    return headers


def classify_response(
    status: int,
    headers: Mapping[str, str],
    asked: RangeRequest,
    now: datetime,
    redirected: bool = False,
) -> Decision:
    """Decide what a response means (R19, R22).

    Args:
        headers: with lower-case names.
        now: for a Retry-After that is a date.
        redirected: it comes from a link that the origin gave for this very request.
    """
    if status == 203 and asked.pinned:
        status = 200  # a proxy may have changed the bytes (§15.3.4): the digest decides
    if status in (200, 206):
        decision = _content_problem(headers) or _content(status, headers, asked)
        return decision._replace(page=content.is_labelled_page(headers))
    if status == 416:
        return _no_such_range(headers, asked)
    why = f"HTTP {status}"
    if status in _NO_CONTENT:
        wait_s = retry_after(headers, now)
        return Decision(Action.RETRY, f"{why} without the file", wait_s=wait_s)
    remedy = access.remedy(status, asked.access) or _REMEDY.get(status, "")
    is_new_link = redirected and not asked.link
    if _is_link_refused(status, asked, redirected):
        why = f"{why} for a signed link"
        return Decision(
            Action.REFRESH_LINK, why, remedy=remedy, rate_limited=is_new_link
        )
    if status in _PASSING or status > 599:
        wait_s = retry_after(headers, now)
        return Decision(
            Action.RETRY, why, wait_s=wait_s, rate_limited=status in _TOO_MANY
        )
    return Decision(Action.GIVE_UP, why, remedy=remedy)


def _is_link_refused(status: int, asked: RangeRequest, redirected: bool) -> bool:
    if asked.link and status in _LINK_DEAD:
        return True
    return redirected and status in _LINK_REFUSED


def _no_such_range(headers: Mapping[str, str], asked: RangeRequest) -> Decision:
    total = framing.content_range(headers.get("content-range", ""))[2]
    if asked.first and asked.first == (asked.size or total):
        return Decision(Action.DONE, total=total)
    return Decision(Action.RESTART, "416: it does not have the requested bytes")


def web_page() -> Decision:
    """Return the verdict on a page of a captive portal, a login or an error."""
    why = "a web page instead of the file (a login page or a filter of the network?)"
    remedy = "open the URL in a browser to see what it says"
    return Decision(Action.RETRY, why, remedy=remedy)


def _content_problem(headers: Mapping[str, str]) -> Decision | None:
    encoding = content.coding(headers)
    if encoding:
        return Decision(Action.RETRY, f"a body encoded with {encoding}, not requested")
    problem = framing.body_length(headers)[1]
    return Decision(Action.RETRY, problem) if problem else None


def _content(status: int, headers: Mapping[str, str], asked: RangeRequest) -> Decision:
    stated = framing.body_length(headers)[0]
    if status == 200:
        return _whole_file(stated, asked)
    first, last, total = framing.content_range(headers.get("content-range", ""))
    if first != asked.first or last is None or last < first:
        why = f"206 with bytes from {first}, requested from {asked.first}"
        return Decision(Action.RESTART, why)
    if any(size is not None and last >= size for size in (asked.size, total)):
        why = f"206 with bytes up to {last} of {total or asked.size}"
        return Decision(Action.RESTART, why)
    if asked.validator and validator(headers) not in ("", asked.validator):
        # the server ignored If-Range
        return Decision(Action.RESTART, "206 of another version of the file")
    if asked.size is not None and total not in (None, asked.size):
        return _wrong_length(total, asked.size)
    if stated not in (None, last - first + 1):
        return _wrong_length(stated, last - first + 1)
    largest = max(last, total or 0)
    if largest >= MAX_BYTES:
        return _impossible_length(largest)
    return Decision(Action.BODY, total=total, last=last)


def _whole_file(stated: int | None, asked: RangeRequest) -> Decision:
    action = Action.FULL_BODY if asked.is_range else Action.BODY
    if stated is None:
        return Decision(action)
    if asked.size is not None and stated != asked.size:
        decision = _wrong_length(stated, asked.size)
        return decision._replace(wrong_length=stated)
    if stated >= MAX_BYTES:
        return _impossible_length(stated)
    return Decision(action, total=stated, last=stated - 1)


def _wrong_length(got: int | None, expected: int) -> Decision:
    why = f"wrong length: {got} bytes, expected {expected}"
    return Decision(
        Action.RETRY, why, remedy="the file at the URL is not the pinned one"
    )


def _impossible_length(stated: int) -> Decision:
    why = f"it states a length of {stated} bytes, which is impossible"
    return Decision(
        Action.GIVE_UP, why, remedy="another source: mirrors in models.yaml"
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a server asks to wait; None if it does not.

    Reads Retry-After (RFC 9110 §10.2.3) and the Hub's `RateLimit: …;t=`.
    """
    text = headers.get("retry-after", "").strip()
    seconds = whole_number(text)
    if seconds is not None:
        return float(seconds)
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # not a date
        when = parsedate_to_datetime(text)
        if not when.tzinfo:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - now).total_seconds())
    policies = headers.get("ratelimit", "").split(",")
    waits = [_used_up_s(policy) for policy in policies]
    return max((wait for wait in waits if wait is not None), default=None)


def _used_up_s(policy: str) -> float | None:
    """Return the seconds until a used-up RateLimit policy is reset; None for others."""
    parts = [part.strip() for part in policy.split(";")]
    if "r=0" not in parts:
        return None
    times = [whole_number(part[2:]) for part in parts if part.startswith("t=")]
    if not times or times[0] is None:
        return None
    return float(times[0])


def backoff_s(attempt: int, asked_s: float | None, jitter: float) -> float:
    """Return the seconds to wait before an attempt: full jitter, exponential.

    Args:
        attempt: its number, from 1.
        asked_s: seconds the server asks to wait, which are added.
        jitter: a new random number from 0 to 1.
    """
    backoff = jitter * min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**attempt)
    return backoff + (asked_s or 0.0)


def publisher_digest(headers: Mapping[str, str]) -> str | None:
    """Return the SHA-256 that the Hub states for a large file in X-Linked-Etag."""
    text = headers.get("x-linked-etag", "").removeprefix("W/").strip('"').lower()
    return text if len(text) == 64 and _HEX.issuperset(text) else None


def validator(headers: Mapping[str, str]) -> str:
    """Return what If-Range may carry (RFC 9110 §13.1.5).

    A strong ETag (§8.8.3), else a Last-Modified that is strong (§8.8.2.2).
    """
    etag = headers.get("etag", "").strip()
    if len(etag) > 1 and etag.startswith('"') and etag.endswith('"'):
        return etag
    changed = headers.get("last-modified", "").strip()
    return changed if _is_strong(changed, headers.get("date", "")) else ""


def _is_strong(changed: str, date: str) -> bool:
    """Return whether a file cannot have changed twice in the second of its date."""
    if not changed or not date:
        return bool(changed)
    try:
        age = parsedate_to_datetime(date) - parsedate_to_datetime(changed)
    except (TypeError, ValueError, OverflowError):  # not dates, or one has no zone
        return False
    return age.total_seconds() >= 1
