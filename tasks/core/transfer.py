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

RETRIES = 6  # attempts in a row that bring no byte, for one source
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
WAIT_TOTAL_S = 900.0  # all waiting for one source; the Hub's rate windows last 300 s
SPACE_MARGIN = 64 * 1024**2  # bytes left free beside the file

# RFC 9110 §15.5, §15.6 and the Hub: answers that a later request may change
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 527})
_REMEDY = {
    401: "the file needs an account: accept its licence on its page, or choose another model",
    403: "access is refused: accept the licence on its page, or choose another model",
    404: "the file is gone, or the URL is misspelt",
    407: "the proxy wants a password: set HTTPS_PROXY",
    410: "the file is gone",
    451: "the file may not be had from here",
}


class Word(Enum):
    """What to do with an answer."""

    BODY = "body"  # take the body from the offset that was asked for
    WHOLE = "whole"  # take the body, it begins at 0: what was here is dropped
    DONE = "done"  # everything is here already
    RESTART = "restart"  # ask again, from 0
    RETRY = "retry"  # wait, then ask again
    GIVE_UP = "give up"  # this source will not deliver


class Asked(NamedTuple):
    """What a request asked for."""

    have: int = 0  # bytes here; the range asked for begins there
    size: int | None = None  # bytes of the whole file, None where unknown
    validator: str = ""  # ETag or Last-Modified of the bytes here, where nothing else pins them


class Verdict(NamedTuple):
    """A word, the reason in words, and what the answer says of the whole."""

    word: Word
    why: str = ""
    total: int | None = None  # bytes of the whole file as the server states it
    wait_s: float | None = None  # seconds the server asks to wait; None where it does not say
    remedy: str = ""  # what the user can do, where something is known
    silent: bool = False  # the host gave no answer at all


def request_headers(asked: Asked) -> dict[str, str]:
    """Headers of a request (RFC 9110 §14.2, §13.1.5).

    `identity`, because a compressed body has other offsets (huggingface_hub#3778); If-Range only where no
    digest pins the bytes, because edges of one CDN disagree on ETags.
    """
    headers = {"Accept-Encoding": "identity"}
    if asked.have:
        headers["Range"] = f"bytes={asked.have}-"
        if asked.validator:
            headers["If-Range"] = asked.validator
    return headers


def judge(status: int, headers: Mapping[str, str], asked: Asked, now: datetime) -> Verdict:
    """Say what an answer means (R19, R22).

    Args:
        headers: with lower-case names.
        now: to understand a Retry-After that is a date.
    """
    if status in (200, 206):
        return _content_problem(headers) or _content(status, headers, asked)
    if status == 416:
        total = _content_range(headers.get("content-range", ""))[2]
        if asked.have and asked.have == (asked.size or total):
            return Verdict(Word.DONE, total=total)
        return Verdict(Word.RESTART, "416: it does not have the bytes that were asked for")
    if status in _PASSING or status > 599:
        return Verdict(Word.RETRY, f"HTTP {status}", wait_s=retry_after(headers, now))
    return Verdict(Word.GIVE_UP, f"HTTP {status}", remedy=_REMEDY.get(status, ""))


def _content_problem(headers: Mapping[str, str]) -> Verdict | None:
    encoding = headers.get("content-encoding", "").strip().lower() or "identity"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if encoding != "identity":
        return Verdict(Word.RETRY, f"a body encoded with {encoding}, which was not asked for")
    if kind in ("text/html", "application/xhtml+xml"):
        why = "a web page instead of the file (a login page or a filter of the network?)"
        return Verdict(Word.RETRY, why, remedy="open the URL in a browser to see what it says")
    return None


def _content(status: int, headers: Mapping[str, str], asked: Asked) -> Verdict:
    length = _whole_number(headers.get("content-length"))
    if status == 200:
        if asked.size is not None and length is not None and length != asked.size:
            why = f"wrong length: {length} bytes, expected {asked.size}"
            return Verdict(Word.RETRY, why, remedy="the file behind the URL is another one than was pinned")
        return Verdict(Word.WHOLE if asked.have else Word.BODY, total=length)
    first, last, total = _content_range(headers.get("content-range", ""))
    if first != asked.have or last is None:
        return Verdict(Word.RESTART, f"206 with bytes from {first}, asked for those from {asked.have}")
    if asked.validator and validator(headers) not in ("", asked.validator):  # it ignored If-Range
        return Verdict(Word.RESTART, "206 of another version than the one that was begun")
    if asked.size is not None and total not in (None, asked.size):
        why = f"wrong length: {total} bytes, expected {asked.size}"
        return Verdict(Word.RETRY, why, remedy="the file behind the URL is another one than was pinned")
    return Verdict(Word.BODY, total=total)


def _whole_number(text: str | None) -> int | None:
    # Python refuses to read more than 4300 digits; no file has a size of 20
    return int(text) if text and len(text) < 20 and text.isascii() and text.isdigit() else None


def _content_range(text: str) -> tuple[int | None, int | None, int | None]:
    """First, last and total of `bytes 0-9/10`; None for what is not there."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit != "bytes":
        return None, None, None
    return _whole_number(first), _whole_number(last), _whole_number(total)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a server asks to wait: Retry-After (RFC 9110 §10.2.3) or the Hub's `RateLimit: …;t=`."""
    text = headers.get("retry-after", "").strip()
    seconds = _whole_number(text)
    if seconds is not None:
        return float(seconds)
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # it is no date either
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - now).total_seconds())
    parts = [p.strip() for p in headers.get("ratelimit", "").split(";")]
    seconds = next((_whole_number(p[2:]) for p in parts if p.startswith("t=")), None)
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


def space_missing(size: int | None, have: int, free: int) -> int:
    """Bytes the disk lacks for the rest of the file, 0 if it fits or nobody knows."""
    return max(0, size - have + SPACE_MARGIN - free) if size is not None else 0
