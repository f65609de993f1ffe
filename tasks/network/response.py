"""What an HTTP answer means for a download, and how long to wait. Pure: no clock, no socket.

Two families: the bytes did not come (RETRY, then the next source), the bytes are wrong (the digest says
so; never here).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import NamedTuple

from tasks.network.answers import MOST_BYTES, length, whole_number

RETRIES = 6  # attempts in a row that bring no byte, for one source
LANE_RETRIES = 2  # the same for one of several lanes, which then leaves the work to the others
LINKS = 3  # fresh links in a row that are refused
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
WAIT_TOTAL_S = 900.0  # all waiting for one source; the Hub's rate windows last 300 s

# RFC 9110 §15.5, §15.6 and the Hub: answers that a later request may change
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 527})
_TOO_MANY = frozenset({429, 503})
# A signed link that has expired: S3 and CloudFront 403, Azure 403 and 404, Google 400, GitHub's assets 618
_LINK_DEAD = frozenset({400, 401, 403, 404, 410, 618})
_LINK_REFUSED = frozenset({403, 618})  # the same of a link that was given a moment ago
_REMEDY = {
    401: "the file needs an account: accept its licence on its page and set HF_TOKEN",
    403: "access is refused: accept the licence on its page and set HF_TOKEN to a token that may read it",
    404: "the file is gone, or the URL is misspelt",
    407: "the proxy wants a password: set HTTPS_PROXY",
    410: "the file is gone",
    451: "the file may not be had from here",
}


class Word(Enum):
    """What to do with an answer."""

    BODY = "body"  # take the body from the offset that was asked for
    WHOLE = "whole"  # take the body, it begins at 0 although another offset was asked for
    DONE = "done"  # everything is here already
    RESTART = "restart"  # ask again, from 0
    RELINK = "relink"  # ask the origin for another link, keep the bytes
    RETRY = "retry"  # wait, then ask again
    GIVE_UP = "give up"  # this source will not deliver


class Asked(NamedTuple):
    """What a request asked for."""

    first: int = 0  # the byte it begins at
    size: int | None = None  # bytes of the whole file, None where unknown
    validator: str = ""  # ETag or Last-Modified of the bytes here, where nothing else pins them
    last: int | None = None  # the byte it ends with; None: all that follow
    link: bool = False  # it went to a link that the origin gave earlier, not to the origin

    @property
    def is_range(self) -> bool:
        """Whether it asked for less than the whole."""
        return self.first > 0 or self.last is not None


class Verdict(NamedTuple):
    """A word, the reason in words, and what the answer says of the whole."""

    word: Word
    why: str = ""
    total: int | None = None  # bytes of the whole file as the server states it
    last: int | None = None  # the last byte of this body, None where nobody says
    wait_s: float | None = None  # seconds the server asks to wait; None where it does not say
    remedy: str = ""  # what the user can do, where something is known
    silent: bool = False  # the host gave no answer at all
    crowded: bool = False  # fewer connections might be answered

    @property
    def reason(self) -> str:
        """Why, and what can be done about it."""
        return f"{self.why}; {self.remedy}" if self.remedy else self.why


def request_headers(asked: Asked) -> dict[str, str]:
    """Headers of a request (RFC 9110 §14.2, §13.1.5).

    `identity`, because a compressed body has other offsets (huggingface_hub#3778); If-Range only where no
    digest pins the bytes, because edges of one CDN disagree on ETags.
    """
    headers = {"Accept-Encoding": "identity"}
    if asked.is_range:
        headers["Range"] = f"bytes={asked.first}-{'' if asked.last is None else asked.last}"
        if asked.validator:
            headers["If-Range"] = asked.validator
    return headers


def judge(
    status: int, headers: Mapping[str, str], asked: Asked, now: datetime, redirected: bool = False
) -> Verdict:
    """Say what an answer means (R19, R22).

    Args:
        headers: with lower-case names.
        now: to understand a Retry-After that is a date.
        redirected: the answer comes from where the origin has just sent us.
    """
    if status in (200, 206):
        return _content_problem(headers) or _content(status, headers, asked)
    if status == 416:
        total = _content_range(headers.get("content-range", ""))[2]
        if asked.first and asked.first == (asked.size or total):
            return Verdict(Word.DONE, total=total)
        return Verdict(Word.RESTART, "416: it does not have the bytes that were asked for")
    why, remedy = f"HTTP {status}", _REMEDY.get(status, "")
    if (asked.link and status in _LINK_DEAD) or (redirected and status in _LINK_REFUSED):
        crowded = redirected and not asked.link
        return Verdict(Word.RELINK, f"{why} for a signed link", remedy=remedy, crowded=crowded)
    if status in _PASSING or status > 599:
        wait = retry_after(headers, now)
        return Verdict(Word.RETRY, why, wait_s=wait, crowded=status in _TOO_MANY)
    return Verdict(Word.GIVE_UP, why, remedy=remedy)


def is_web_page(head: bytes) -> bool:
    """Whether a body that begins so is HTML, whatever its Content-Type says."""
    return head[:512].lstrip(b"\xef\xbb\xbf \t\r\n\f")[:14].lower().startswith((b"<!doctype html", b"<html"))


def web_page() -> Verdict:
    """The verdict on a page of a captive portal, a login or an error."""
    why = "a web page instead of the file (a login page or a filter of the network?)"
    return Verdict(Word.RETRY, why, remedy="open the URL in a browser to see what it says")


def _content_problem(headers: Mapping[str, str]) -> Verdict | None:
    encoding = headers.get("content-encoding", "").strip().lower() or "identity"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if encoding != "identity":
        return Verdict(Word.RETRY, f"a body encoded with {encoding}, which was not asked for")
    return web_page() if kind in ("text/html", "application/xhtml+xml") else None


def _content(status: int, headers: Mapping[str, str], asked: Asked) -> Verdict:
    stated = length(headers.get("content-length"))
    if status == 200:
        if asked.size is not None and stated is not None and stated != asked.size:
            return _wrong_length(stated, asked.size)
        if stated is not None and stated >= MOST_BYTES:
            return _impossible_length(stated)
        last = None if stated is None else stated - 1
        return Verdict(Word.WHOLE if asked.is_range else Word.BODY, total=stated, last=last)
    first, last, total = _content_range(headers.get("content-range", ""))
    if first != asked.first or last is None or last < first:
        return Verdict(Word.RESTART, f"206 with bytes from {first}, asked for those from {asked.first}")
    if any(size is not None and last >= size for size in (asked.size, total)):
        return Verdict(Word.RESTART, f"206 with bytes up to {last} of {total or asked.size}")
    if asked.validator and validator(headers) not in ("", asked.validator):  # it ignored If-Range
        return Verdict(Word.RESTART, "206 of another version than the one that was begun")
    if asked.size is not None and total not in (None, asked.size):
        return _wrong_length(total, asked.size)
    if stated not in (None, last - first + 1):
        return _wrong_length(stated, last - first + 1)
    if max(last, total or 0) >= MOST_BYTES:
        return _impossible_length(max(last, total or 0))
    return Verdict(Word.BODY, total=total, last=last)


def _wrong_length(got: int | None, expected: int) -> Verdict:
    why = f"wrong length: {got} bytes, expected {expected}"
    return Verdict(Word.RETRY, why, remedy="the file behind the URL is another one than was pinned")


def _impossible_length(stated: int) -> Verdict:
    why = f"it states a length of {stated} bytes, which no file here can have"
    return Verdict(Word.GIVE_UP, why, remedy="another source: mirrors in models.yaml")


def _content_range(text: str) -> tuple[int | None, int | None, int | None]:
    """First, last and total of `bytes 0-9/10`; None for what is not there."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit.lower() != "bytes":
        return None, None, None
    return whole_number(first.strip()), whole_number(last.strip()), length(total.strip())


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a server asks to wait: Retry-After (RFC 9110 §10.2.3) or the Hub's `RateLimit: …;t=`."""
    text = headers.get("retry-after", "").strip()
    seconds = whole_number(text)
    if seconds is not None:
        return float(seconds)
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # it is no date either
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - now).total_seconds())
    waits = [_used_up_s(policy) for policy in headers.get("ratelimit", "").split(",")]
    return max((w for w in waits if w is not None), default=None)


def _used_up_s(policy: str) -> float | None:
    """Seconds until one policy of a RateLimit header has room again; None where it has some."""
    parts = [part.strip() for part in policy.split(";")]
    seconds = next((whole_number(part[2:]) for part in parts if part.startswith("t=")), None)
    return float(seconds) if seconds is not None and "r=0" in parts else None


def backoff_s(attempt: int, asked_s: float | None, jitter: float) -> float:
    """Seconds before attempt number `attempt` (from 1): full jitter, never earlier than asked.

    Args:
        jitter: from 0 to 1, drawn anew each time.
    """
    own = jitter * min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**attempt)
    return own if asked_s is None else asked_s + own


def publisher_digest(headers: Mapping[str, str]) -> str | None:
    """The digest the Hub states for a large file: X-Linked-Etag is its SHA-256."""
    text = headers.get("x-linked-etag", "").removeprefix("W/").strip('"').lower()
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None


def validator(headers: Mapping[str, str]) -> str:
    """What If-Range may carry: a strong ETag, else Last-Modified (RFC 9110 §13.1.5)."""
    etag = headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("last-modified", "")
