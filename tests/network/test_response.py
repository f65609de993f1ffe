"""What an HTTP response means for a download, as one table; how long to wait."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.cache import space
from tasks.network import content, response
from tasks.network.access import Access
from tasks.network.response import Action, Decision, RangeRequest, classify_response

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
SIGNED = '"resolvers";r=0;t=37'
FRESH = RangeRequest(0, 100)  # nothing here, the size is pinned
PART = RangeRequest(40, 100)  # 40 of 100 bytes are here
OPEN = RangeRequest(40)  # 40 bytes of nobody knows how many
FULL = RangeRequest(100, 100)
LANE = RangeRequest(40, 100, last=59)  # one of several lanes asks for 20 bytes
FIRST = RangeRequest(0, 100, last=19)  # the first of them
BEGUN = RangeRequest(40, validator='"old"')  # 40 bytes that nothing pins but their ETag
DATED = RangeRequest(40, validator="Mon, 23 Nov 2026 11:00:00 GMT")
LINKED = RangeRequest(40, 100, link=True)
PINNED = RangeRequest(0, 100, pinned=True)
SECOND, NEXT = "Mon, 23 Nov 2026 11:00:00 GMT", "Mon, 23 Nov 2026 11:00:01 GMT"
CHUNKED = {"transfer-encoding": "chunked"}
TO_HUB = Access(is_hub=True)


BODY, TAKE_WHOLE, DONE, RESTART, RELINK, RETRY, GIVE_UP = Action


def rng(text: str) -> dict[str, str]:
    return {"content-range": f"bytes {text}"}


def length(text: str) -> dict[str, str]:
    return {"content-length": text}


def kind(text: str) -> dict[str, str]:
    return {"content-type": text}


def coded(text: str) -> dict[str, str]:
    return {"content-encoding": text}


@pytest.mark.parametrize(
    ("status", "headers", "asked", "word", "total", "why"),
    [
        # ---- 200: RFC 9110 §15.3.1; a server may ignore Range (§14.2)
        pytest.param(200, length("100"), FRESH, BODY, 100, "", id="200 from the beginning"),
        pytest.param(200, {}, FRESH, BODY, None, "", id="200 without a length (§8.6)"),
        pytest.param(200, length("9"), RangeRequest(), BODY, 9, "", id="200, nobody knew the size"),
        # huggingface_hub#3778: appended, such a body is in the file twice
        pytest.param(200, length("100"), PART, TAKE_WHOLE, 100, "", id="200 ignored Range"),
        pytest.param(200, {}, BEGUN, TAKE_WHOLE, None, "", id="200: If-Range says it changed (§13.1.5)"),
        pytest.param(200, length("100"), LANE, TAKE_WHOLE, 100, "", id="200 to a lane's range"),
        pytest.param(200, length("100"), FIRST, TAKE_WHOLE, 100, "", id="200 to the first lane's range"),
        pytest.param(200, length("0"), RangeRequest(), BODY, 0, "", id="200 with nothing in it"),
        pytest.param(
            200, length("0"), FRESH, RETRY, None, "wrong length: 0 bytes", id="200 with nothing in it, pinned"
        ),
        # RFC 9110 §14.4: Content-Range means nothing in a 200
        pytest.param(
            200, rng("40-99/100") | length("100"), PART, TAKE_WHOLE, 100, "", id="200 with a Content-Range"
        ),
        pytest.param(200, rng("0-9/9"), FRESH, BODY, None, "", id="200 with a Content-Range that is wrong"),
        # RFC 9110 §8.6: the length is the whole body's; a login page, or another file than was pinned
        pytest.param(
            200,
            length("99"),
            FRESH,
            RETRY,
            None,
            "wrong length: 99 bytes, expected 100",
            id="200 with another length",
        ),
        pytest.param(200, length("99"), PART, RETRY, None, "wrong length", id="the same to a Range"),
        # RFC 9110 §8.6: 1*DIGIT; anything else is unknown, as pip takes it (pypa/pip network/download.py)
        pytest.param(200, length("-1"), FRESH, BODY, None, "", id="200, negative length"),
        pytest.param(200, length("1e2"), FRESH, BODY, None, "", id="200, length is no number"),
        pytest.param(200, length("²"), FRESH, BODY, None, "", id="200, a digit that is none"),
        pytest.param(
            200,
            length("9" * 5000),
            FRESH,
            RETRY,
            None,
            "wrong length",
            id="200, absurd length of a known file",
        ),
        # security 14: no file can have such a length, and another source may be right
        *(
            pytest.param(
                200, length(text), RangeRequest(), GIVE_UP, None, "is impossible", id=f"200, {text[:20]}"
            )
            for text in ("9" * 5000, str(9 * 10**18), str(1 << 63), str(1 << 44))
        ),
        pytest.param(
            200, length(str((1 << 44) - 1)), RangeRequest(), BODY, (1 << 44) - 1, "", id="200, the longest"
        ),
        pytest.param(
            206,
            {"content-range": f"bytes 40-59/{1 << 44}"},
            RangeRequest(40, last=59),
            GIVE_UP,
            None,
            "is impossible",
            id="206, absurd total",
        ),
        # RFC 9110 §8.4: offsets are those of the encoded body; huggingface_hub#3778, #1449, httpie#1642
        pytest.param(200, coded("gzip"), FRESH, RETRY, None, "encoded with gzip", id="gzip"),
        pytest.param(
            206,
            rng("40-99/100") | coded("br"),
            PART,
            RETRY,
            None,
            "encoded with br",
            id="a range of a brotli body",
        ),
        pytest.param(200, coded("Identity"), FRESH, BODY, None, "", id="identity said aloud"),
        pytest.param(200, coded(""), FRESH, BODY, None, "", id="an empty encoding"),
        # RFC 6585 §6: captive portals answer in the server's place, and so do companies' filters
        # some servers say it of every file: the first bytes decide (test_content.py)
        pytest.param(200, kind("text/html; charset=utf-8"), FRESH, BODY, None, "", id="labelled as a page"),
        pytest.param(200, kind("application/octet-stream"), FRESH, BODY, None, "", id="bytes"),
        # ---- 206: RFC 9110 §15.3.7, Content-Range §14.4
        pytest.param(206, rng("40-99/100"), PART, BODY, 100, "", id="206 with what was asked for"),
        pytest.param(
            206,
            {**rng("40-99/100"), "etag": '"new"'},
            BEGUN,
            RESTART,
            None,
            "another version",
            id="206 of another version: If-Range was ignored (§13.1.5)",
        ),
        pytest.param(
            206,
            {**rng("40-99/100"), "etag": '"old"'},
            BEGUN,
            BODY,
            100,
            "",
            id="206 of the version that was begun",
        ),
        # §13.1.5: a date is a validator where it is the only one
        pytest.param(
            206,
            {**rng("40-99/100"), "last-modified": "Mon, 23 Nov 2026 11:00:01 GMT"},
            DATED,
            RESTART,
            None,
            "another version",
            id="206 of a second later",
        ),
        pytest.param(
            206,
            {**rng("40-99/100"), "last-modified": DATED.validator},
            DATED,
            BODY,
            100,
            "",
            id="206 of the same date",
        ),
        pytest.param(206, rng("40-99/100"), BEGUN, BODY, 100, "", id="206 that names no version (§15.3.7)"),
        # a digest pins the bytes, and edges of one CDN disagree on ETags: nothing was asked to be compared
        pytest.param(
            206, {**rng("40-99/100"), "etag": '"new"'}, PART, BODY, 100, "", id="206, another ETag, pinned"
        ),
        pytest.param(206, rng("40-59/100"), PART, BODY, 100, "", id="206 with less (§15.3.7)"),
        pytest.param(206, rng("40-40/100"), PART, BODY, 100, "", id="206 with one byte"),
        pytest.param(206, rng("40-59/100"), LANE, BODY, 100, "", id="206 to a lane's range"),
        pytest.param(206, rng("40-49/100"), LANE, BODY, 100, "", id="206 with less than a lane's range"),
        pytest.param(206, rng("40-99/100"), LANE, BODY, 100, "", id="206 with more than a lane's range"),
        pytest.param(206, rng("0-19/100"), FIRST, BODY, 100, "", id="206 to the first lane's range"),
        pytest.param(
            206, rng("40-99/100") | length("60"), PART, BODY, 100, "", id="206, both lengths agree (§8.6)"
        ),
        pytest.param(
            206,
            rng("40-99/100") | length("100"),
            PART,
            RETRY,
            None,
            "wrong length: 100 bytes, expected 60",
            id="206, Content-Length is the whole's",
        ),
        pytest.param(
            206,
            rng("40-59/100") | length("19"),
            LANE,
            RETRY,
            None,
            "wrong length: 19 bytes, expected 20",
            id="206, Content-Length is a byte short",
        ),
        pytest.param(
            206, rng("40-99/100") | length("x"), PART, BODY, 100, "", id="206, Content-Length is no number"
        ),
        pytest.param(206, rng("40-99/*"), PART, BODY, None, "", id="206 without a total (§14.4)"),
        pytest.param(206, rng("40-99/100"), OPEN, BODY, 100, "", id="206 tells the size"),
        pytest.param(206, rng("0-99/100"), FRESH, BODY, 100, "", id="206 though no range was asked for"),
        # RFC 9110 §15.3.7: Content-Range says what came; huggingface_hub 2.4 and ramalama wrote it where it
        # did not belong
        pytest.param(206, rng("0-99/100"), PART, RESTART, None, "from 0, requested from 40", id="206 from 0"),
        pytest.param(206, rng("41-99/100"), PART, RESTART, None, "from 41", id="206 from a byte too far"),
        pytest.param(206, rng("0-19/100"), LANE, RESTART, None, "from 0", id="206 of another lane's range"),
        pytest.param(206, rng("20-39/100"), FIRST, RESTART, None, "from 20", id="206, not the first range"),
        pytest.param(206, {}, PART, RESTART, None, "206", id="206 without Content-Range"),
        pytest.param(206, {}, FRESH, RESTART, None, "206", id="206 without one, to no range at all"),
        # §14.4: invalid, if it ends before it begins or not before the whole does; nothing may be made of it
        pytest.param(206, rng("40-39/100"), PART, RESTART, None, "206", id="206 that ends before it begins"),
        pytest.param(206, rng("40-0/100"), PART, RESTART, None, "206", id="206 that ends at 0"),
        pytest.param(206, rng("40-100/100"), PART, RESTART, None, "206", id="206 a byte beyond the whole"),
        pytest.param(206, rng("40-99/50"), OPEN, RESTART, None, "206", id="206 beyond a whole of its own"),
        pytest.param(206, rng("40-99/40"), OPEN, RESTART, None, "206", id="206 of a whole that is here"),
        pytest.param(
            206,
            kind("multipart/byteranges; boundary=x"),
            PART,
            RESTART,
            None,
            "206",
            id="206 in parts (§15.3.7.2)",
        ),
        pytest.param(
            206, {"content-range": "items 40-99/100"}, PART, RESTART, None, "206", id="206, other unit"
        ),
        pytest.param(206, rng("*/100"), PART, RESTART, None, "206", id="206 with an unsatisfied range"),
        pytest.param(206, rng("40/100"), PART, RESTART, None, "206", id="206 without an end"),
        pytest.param(206, rng("-40-99/100"), PART, RESTART, None, "206", id="206 from below 0"),
        pytest.param(
            206,
            rng("40-99/101"),
            PART,
            RETRY,
            None,
            "wrong length: 101 bytes, expected 100",
            id="206 of another file",
        ),
        pytest.param(
            206,
            rng("40-59/60"),
            PART,
            RETRY,
            None,
            "wrong length: 60 bytes, expected 100",
            id="206 of a shorter one",
        ),
        # ---- 416: RFC 9110 §15.5.17; huggingface_hub#2511, ollama#528: a whole partial must not ask for ever
        pytest.param(416, rng("*/100"), FULL, DONE, 100, "", id="416: everything is here"),
        pytest.param(416, {}, FULL, DONE, None, "", id="the same without a total"),
        pytest.param(416, rng("*/40"), OPEN, DONE, 40, "", id="the same, the size comes with it"),
        pytest.param(416, {}, OPEN, RESTART, None, "416", id="416, and nobody knows the size"),
        # huggingface_hub#4223: taken for the end, the file is truncated
        pytest.param(416, rng("*/100"), PART, RESTART, None, "416", id="416 in the midst of the file"),
        pytest.param(416, rng("*/30"), OPEN, RESTART, None, "416", id="416: fewer bytes than are here"),
        pytest.param(416, rng("*/200"), OPEN, RESTART, None, "416", id="416: there are more bytes"),
        pytest.param(416, rng("*/40"), PART, RESTART, None, "416", id="416: what is here is all it has"),
        pytest.param(416, rng("*/x"), OPEN, RESTART, None, "416", id="416 with a total that is none"),
        pytest.param(416, rng("*/100"), LANE, RESTART, None, "416", id="416 to a lane's range"),
        pytest.param(416, rng("*/100"), FIRST, RESTART, None, "416", id="416 to the first lane's range"),
        pytest.param(416, {}, LINKED, RESTART, None, "416", id="416 from a link: it has not expired"),
        pytest.param(
            416, rng("*/0"), RangeRequest(), RESTART, None, "416", id="416 to a request for everything"
        ),
        # ---- may pass: RFC 9110 §15.5.9, §15.6, RFC 6585 §4 (429), RFC 8470 §5.2 (425)
        *(
            pytest.param(status, {}, PART, RETRY, None, f"HTTP {status}", id=f"{status}")
            for status in (408, 425, 429, 500, 502, 503, 504)
        ),
        # Cloudflare's own, which curl (522, 524) and pip (520, 527) retry
        *(
            pytest.param(status, {}, PART, RETRY, None, f"HTTP {status}", id=f"{status} of a CDN")
            for status in (520, 522, 524, 527)
        ),
        # its "web server is down" and "origin is unreachable" (Cloudflare's docs, 5xx errors)
        pytest.param(521, {}, PART, RETRY, None, "HTTP 521", id="521 of a CDN: its origin restarts"),
        pytest.param(523, {}, PART, RETRY, None, "HTTP 523", id="523 of a CDN: its origin is unreachable"),
        pytest.param(618, {}, PART, RETRY, None, "HTTP 618", id="618 from no link: no status of HTTP"),
        pytest.param(600, {}, PART, RETRY, None, "HTTP 600", id="600: no status of HTTP (RFC 9110 §15)"),
        # ---- will not pass: RFC 9110 §15.5, §15.6.2
        *(
            pytest.param(status, {}, PART, GIVE_UP, None, f"HTTP {status}", id=f"{status}")
            for status in (400, 401, 402, 403, 404, 405, 407, 410, 414, 451, 501, 505, 511, 599)
        ),
        # redirects are followed below; what arrives here leads nowhere. §15.3.5: 204 has no body
        *(
            pytest.param(status, {}, PART, GIVE_UP, None, f"HTTP {status}", id=f"{status}: no body")
            for status in (101, 201, 203, 300, 302)
        ),
        # ---- no file, and a later request may get it: §15.3.3, §15.3.5, §15.3.6
        *(
            pytest.param(status, {}, asked, RETRY, None, f"HTTP {status} without the file", id=f"{status}")
            for status in (202, 204, 205)
            for asked in (FRESH, PART)
        ),
        # §15.4.5: only to a conditional request; a broken cache gives it to any
        pytest.param(304, {}, FRESH, RETRY, None, "HTTP 304 without the file", id="304 of a cache"),
        # §15.3.4: a proxy may have changed the bytes; a digest tells
        pytest.param(203, length("100"), PINNED, BODY, 100, "", id="203, pinned"),
        pytest.param(203, length("99"), PINNED, RETRY, None, "wrong length", id="203 of another length"),
        pytest.param(203, length("100"), PINNED._replace(first=40), TAKE_WHOLE, 100, "", id="203 to a Range"),
        pytest.param(203, length("100"), RangeRequest(), GIVE_UP, None, "HTTP 203", id="203, unpinned"),
        # ---- framing: RFC 9112 §6 (test_framing.py has the rest)
        pytest.param(
            200, CHUNKED | length("5"), FRESH, BODY, None, "", id="200 in chunks: no other length counts"
        ),
        pytest.param(200, length("100, 100"), FRESH, BODY, 100, "", id="200, the same length twice"),
        pytest.param(200, length("100, 99"), FRESH, RETRY, None, "contradictory", id="200, two lengths"),
        pytest.param(
            200,
            {"transfer-encoding": "gzip, chunked"},
            FRESH,
            RETRY,
            None,
            "a transfer coding that was not requested: gzip, chunked",
            id="200 compressed on the way",
        ),
        pytest.param(
            206, CHUNKED | rng("40-99/100") | length("7"), PART, BODY, 100, "", id="206 in chunks (§14.4)"
        ),
        # ---- codings: §8.4
        pytest.param(200, coded("aws-chunked"), FRESH, BODY, None, "", id="a coding of S3's requests only"),
        pytest.param(206, rng("40-99/100") | coded("utf-8"), PART, BODY, 100, "", id="a charset"),
    ],
)
def test_answer(
    status: int, headers: dict[str, str], asked: RangeRequest, word: Action, total: int | None, why: str
) -> None:
    """R18, R19, R22: what the server says is understood before a byte of the body is read."""
    decision = classify_response(status, headers, asked, NOW)
    assert (decision.action, decision.total) == (word, total)
    assert why in decision.why
    assert bool(decision.why) == bool(why)


@pytest.mark.parametrize(
    ("status", "headers", "asked", "last"),
    [
        pytest.param(206, rng("40-99/100"), PART, 99, id="to the end"),
        pytest.param(206, rng("40-59/100"), PART, 59, id="206 with less (RFC 9110 §15.3.7)"),
        pytest.param(206, rng("40-49/100"), LANE, 49, id="less than a lane's range"),
        pytest.param(206, rng("40-99/100"), LANE, 99, id="more than a lane's range: the lane may go on"),
        pytest.param(206, rng("40-59/*"), OPEN, 59, id="of a whole that nobody knows"),
        pytest.param(206, rng("0-0/1"), RangeRequest(), 0, id="one byte"),
        pytest.param(200, length("100"), FRESH, 99, id="200: its length says it"),
        pytest.param(200, length("100"), PART, 99, id="200 ignored Range"),
        pytest.param(200, {}, FRESH, None, id="200 without a length: nobody says"),
        pytest.param(200, length("1e2"), FRESH, None, id="200, its length is no number"),
        pytest.param(200, length("0"), RangeRequest(), -1, id="200 with nothing in it"),
    ],
)
def test_how_far_a_body_reaches(
    status: int, headers: dict[str, str], asked: RangeRequest, last: int | None
) -> None:
    """R19: a body that ends before that was cut off."""
    decision = classify_response(status, headers, asked, NOW)
    assert decision.action in (BODY, TAKE_WHOLE)
    assert decision.last == last


@pytest.mark.parametrize(
    ("status", "origin", "link", "fresh"),
    [
        # S3 and CloudFront: 403; Azure: 403, 404; both: 401 and 410 where a proxy of the company says so
        pytest.param(401, GIVE_UP, RELINK, GIVE_UP, id="401"),
        pytest.param(403, GIVE_UP, RELINK, RELINK, id="403"),
        pytest.param(404, GIVE_UP, RELINK, GIVE_UP, id="404"),
        pytest.param(410, GIVE_UP, RELINK, GIVE_UP, id="410"),
        # GitHub's release assets (oneprolabs/hyperfilelens#524)
        pytest.param(618, RETRY, RELINK, RELINK, id="618"),
        # Google Cloud Storage: 400, ExpiredToken (floci-io/floci-gcp#32); the Hub has us.gcp.cdn.hf.co
        pytest.param(400, GIVE_UP, RELINK, GIVE_UP, id="400"),
        # what has nothing to do with a link's age
        pytest.param(405, GIVE_UP, GIVE_UP, GIVE_UP, id="405"),
        pytest.param(407, GIVE_UP, GIVE_UP, GIVE_UP, id="407"),
        pytest.param(451, GIVE_UP, GIVE_UP, GIVE_UP, id="451"),
        pytest.param(408, RETRY, RETRY, RETRY, id="408"),
        pytest.param(429, RETRY, RETRY, RETRY, id="429"),
        pytest.param(500, RETRY, RETRY, RETRY, id="500"),
        pytest.param(503, RETRY, RETRY, RETRY, id="503"),
        pytest.param(600, RETRY, RETRY, RETRY, id="600"),
    ],
)
def test_refused_by(status: int, origin: Action, link: Action, fresh: Action) -> None:
    """download.md §2: a link given earlier has expired, and the origin gives another one.

    A fresh one that is refused may be one connection too many (§0, transformers#45797), or a repository
    that nobody let us into: the origin is asked again, with fewer lanes.
    """
    asked = [PART, LINKED, PART, LINKED]
    redirected = [False, False, True, True]
    found = [classify_response(status, {}, a, NOW, r) for a, r in zip(asked, redirected, strict=True)]
    assert [v.action for v in found] == [origin, link, fresh, link]
    relinked = [v for v in found if v.action is RELINK]
    assert all(f"HTTP {status}" in v.why and "signed link" in v.why for v in relinked)
    assert [v.rate_limited for v in relinked] == [v is found[2] for v in relinked]


@pytest.mark.parametrize(
    ("status", "headers", "crowded"),
    [
        pytest.param(429, {}, True, id="429: too many requests (RFC 6585 §4)"),
        pytest.param(503, {}, True, id="503: overloaded (RFC 9110 §15.6.4); nginx's limit_conn"),
        pytest.param(429, {"retry-after": "5"}, True, id="429 with a time"),
        pytest.param(500, {}, False, id="500"),
        pytest.param(502, {}, False, id="502"),
        pytest.param(504, {}, False, id="504"),
        pytest.param(408, {}, False, id="408: we were slow"),
        pytest.param(403, {}, False, id="403 from the origin: access"),
        pytest.param(404, {}, False, id="404"),
        pytest.param(416, {}, False, id="416"),
        pytest.param(200, kind("text/html"), False, id="a web page"),
        pytest.param(200, length("100"), False, id="the file"),
        pytest.param(206, rng("0-9/100"), False, id="206 from elsewhere"),
    ],
)
def test_too_many_connections(status: int, headers: dict[str, str], crowded: bool) -> None:
    """Issue 3: which answers say that fewer lanes might be answered."""
    assert classify_response(status, headers, PART, NOW).rate_limited is crowded


@pytest.mark.parametrize(
    ("head", "page"),
    [
        # WHATWG, MIME Sniffing §7.1: after white space, in any case
        pytest.param(b"<!doctype html>", True, id="HTML"),
        pytest.param(b"<!DOCTYPE HTML PUBLIC", True, id="in capitals"),
        pytest.param(b"<!DocType Html>", True, id="in both"),
        pytest.param(b"<html>", True, id="without a doctype"),
        pytest.param(b"<HTML>", True, id="the same in capitals"),
        pytest.param(b"<html lang='en'>", True, id="with attributes"),
        pytest.param(b"\xef\xbb\xbf<!doctype html>", True, id="behind a byte order mark"),
        pytest.param(b" \t\r\n<html>", True, id="behind white space"),
        pytest.param(b"\x0c<html>", True, id="behind a form feed, which is white space too"),
        pytest.param(b"\xef\xbb\xbf\r\n <html>", True, id="behind both"),
        pytest.param(b"\n" * 500 + b"<html>", True, id="behind a page of empty lines"),
        pytest.param(b"<html", True, id="cut off behind its name"),
        pytest.param(b"<!doctype htm", False, id="cut off in its name"),
        pytest.param(b"<!doctype svg>", False, id="another doctype"),
        pytest.param(b"x<html>", False, id="behind a letter"),
        pytest.param(b"GGUF\x03\0\0\0", False, id="a GGUF"),
        pytest.param(b"MZqFpD='\n\n", False, id="a llamafile (APE)"),
        pytest.param(b"GGUF<html>", False, id="a GGUF with it inside"),
        pytest.param(b"PK\x03\x04", False, id="a zip"),
        pytest.param(b'{"error":"denied"}', False, id="JSON"),
        pytest.param(b"\0" * 512, False, id="zeros"),
        pytest.param(b"\n" * 512, False, id="nothing but empty lines"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_web_page_by_its_content(head: bytes, page: bool) -> None:
    """R22: HTML where a model should be, whatever its Content-Type says (aria2#1115, issue 3)."""
    assert content.is_web_page(head) is page


@given(st.binary(max_size=600))
def test_no_model_is_a_web_page(rest: bytes) -> None:
    """What begins as a GGUF, a llamafile or a script is none, whatever follows."""
    assert not any(content.is_web_page(head + rest) for head in (b"GGUF", b"MZqFpD='", b"jartsr='", b"#!"))


def test_verdict_on_a_web_page() -> None:
    """Its label alone is no reason; that its bytes must be looked at is passed on."""
    assert response.web_page().action is RETRY
    assert "in a browser" in response.web_page().remedy
    labels = {
        "text/html": True,
        "TEXT/HTML; charset=x": True,
        "application/xhtml+xml": True,
        "text/plain": False,
    }
    assert {label: classify_response(200, kind(label), PART, NOW).page for label in labels} == labels


def test_a_wrong_length_is_reported_with_the_bytes() -> None:
    """Only a whole body is looked at."""
    assert classify_response(200, length("15"), FRESH, NOW).wrong_length == 15
    assert classify_response(200, length("0"), FRESH, NOW).wrong_length == 0
    assert classify_response(200, length("100"), FRESH, NOW).wrong_length is None
    assert classify_response(206, rng("40-59/60"), PART, NOW).wrong_length is None


@pytest.mark.parametrize(
    ("status", "headers", "remedy"),
    [
        pytest.param(401, {}, "accept its licence", id="401: a gated model"),
        pytest.param(403, {}, "accept the licence", id="403: the same"),
        pytest.param(404, {}, "the file is gone", id="404"),
        pytest.param(410, {}, "the file is gone", id="410"),
        pytest.param(407, {}, "HTTPS_PROXY", id="407: the proxy"),
        pytest.param(451, {}, "for legal reasons", id="451: the law (RFC 7725)"),
        pytest.param(400, {}, "", id="400: nothing is known"),
        pytest.param(200, {"content-length": "9"}, "not the pinned one", id="another length"),
        pytest.param(206, rng("40-99/109"), "not the pinned one", id="another total"),
    ],
)
def test_remedy(status: int, headers: dict[str, str], remedy: str) -> None:
    """R19: the user can do something, where something is known."""
    found = classify_response(status, headers, PART._replace(access=TO_HUB), NOW).remedy
    assert remedy in found
    assert bool(found) == bool(remedy)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="nothing said"),
        # RFC 9110 §10.2.3: seconds, or a date in one of the three forms of §5.6.7
        pytest.param({"retry-after": "120"}, 120.0, id="seconds"),
        pytest.param({"retry-after": " 0 "}, 0.0, id="at once"),
        pytest.param({"retry-after": "Mon, 23 Nov 2026 12:01:30 GMT"}, 90.0, id="a date"),
        pytest.param({"retry-after": "Monday, 23-Nov-26 12:01:30 GMT"}, 90.0, id="a date of RFC 850"),
        pytest.param(
            {"retry-after": "Mon Nov 23 12:01:30 2026"}, 90.0, id="a date of asctime: no zone is UTC"
        ),
        pytest.param({"retry-after": "Mon, 23 Nov 2026 13:01:30 +0100"}, 90.0, id="a date with a zone"),
        pytest.param({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0, id="a date that has passed"),
        pytest.param({"retry-after": "-5"}, None, id="below 0"),
        pytest.param({"retry-after": "1.5"}, None, id="a fraction is not allowed"),
        pytest.param({"retry-after": "soon"}, None, id="a word"),
        pytest.param({"retry-after": "²"}, None, id="a digit that is none"),
        pytest.param({"retry-after": "Mon, 23 Nov 99999999999 12:00:00 GMT"}, None, id="a year that is none"),
        # the Hub's own (its docs, "Rate limits"): seconds until the window ends, where nothing is left of it
        pytest.param({"ratelimit": SIGNED}, 37.0, id="RateLimit with nothing left"),
        pytest.param({"ratelimit": '"resolvers"; r=0; t=37'}, 37.0, id="with blanks"),
        pytest.param({"ratelimit": '"resolvers";r=5;t=37'}, None, id="RateLimit with something left"),
        pytest.param(
            {"ratelimit": '"api";r=9;t=5, "resolvers";r=0;t=37'}, 37.0, id="the policy that is used up"
        ),
        pytest.param(
            {"ratelimit": '"resolvers";r=0;t=37,"api";r=9;t=500'}, 37.0, id="also if it comes first"
        ),
        pytest.param({"ratelimit": '"api";r=0;t=90, "resolvers";r=0;t=37'}, 90.0, id="the longest of two"),
        pytest.param({"ratelimit": '"resolvers";r=0;t=37, "api";r=0;t=90'}, 90.0, id="in either order"),
        pytest.param(
            {"ratelimit": '"api";r=9;t=5, "pages";r=1;t=6'}, None, id="every policy has something left"
        ),
        pytest.param({"ratelimit": '"resolvers";t=37;r=0'}, 37.0, id="parameters in another order"),
        pytest.param({"ratelimit": '"resolvers";r=0;t=-1'}, None, id="RateLimit from below 0"),
        pytest.param({"ratelimit": ",;,"}, None, id="RateLimit of nothing"),
        pytest.param({"ratelimit": '"resolvers";r=0'}, None, id="RateLimit without a time"),
        pytest.param({"ratelimit": '"resolvers";r=0;t=x'}, None, id="RateLimit with a word"),
        pytest.param({"retry-after": "5", "ratelimit": SIGNED}, 5.0, id="Retry-After comes first"),
        pytest.param({"retry-after": "soon", "ratelimit": SIGNED}, 37.0, id="unless nobody understands it"),
    ],
)
def test_wait_that_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    """R19: as long as the server says, where it says so."""
    assert response.retry_after(headers, NOW) == seconds
    assert [classify_response(status, headers, PART, NOW).wait_s for status in (429, 503)] == [seconds] * 2


_NUMBERS = st.sampled_from([0, 1, 39, 40, 41, 99, 100, 101, 200])
_NAMES = st.sampled_from(
    [
        "content-length",
        "content-range",
        "content-type",
        "content-encoding",
        "retry-after",
        "ratelimit",
        "x-linked-etag",
        "etag",
        "last-modified",
    ]
)
# Not \d: a class of all the digits there are takes a second to build, in every process
_D = "[0-9\u0661]"
_VALUES = (
    st.text(max_size=20)
    | st.from_regex(rf"bytes {_D}{{0,3}}-{_D}{{0,3}}/({_D}{{1,3}}|\*)", fullmatch=True)
    | st.builds("bytes {}-{}/{}".format, _NUMBERS, _NUMBERS, _NUMBERS | st.just("*"))
    | st.from_regex(
        rf"[A-Z][a-z]{{2}}, {_D}{{1,3}} (Jan|Nov) {_D}{{1,12}} {_D}{_D}?:{_D}{_D}?:{_D}{_D}?"
        rf" ([+-]{_D}{{1,9}}|GMT)",
        fullmatch=True,
    )
    | st.integers(0).map(str)
)


@given(
    st.just(206) | st.integers(100, 999),
    st.dictionaries(_NAMES, _VALUES, max_size=4),
    st.builds(
        RangeRequest,
        _NUMBERS | st.integers(0, 200),
        st.none() | st.just(100) | st.integers(1, 200),
        st.sampled_from(["", '"x"']),
        st.none() | st.integers(200, 300),
        st.booleans(),
    ),
    st.booleans(),
)
def test_whatever_a_server_says(
    status: int, headers: dict[str, str], asked: RangeRequest, redirected: bool
) -> None:
    """Never an exception, never bytes at a wrong offset, never a wait below 0, never more than the file."""
    decision = classify_response(status, headers, asked, NOW, redirected)
    if decision.action is Action.BODY and status == 206:
        first, last = headers["content-range"].split()[1].partition("/")[0].split("-")
        assert int(first) == asked.first <= int(last) == decision.last
        assert decision.total is None or decision.last < decision.total
    elif decision.action in (Action.BODY, Action.FULL_BODY):
        assert status == 200
        assert asked.is_range == (decision.action is Action.FULL_BODY)
        assert decision.last is None or decision.last + 1 == decision.total
    if decision.action in (Action.BODY, Action.FULL_BODY):
        assert decision.total in (None, asked.size) or asked.size is None
    if decision.action is Action.DONE:
        assert asked.first == (asked.size or decision.total)
    if decision.action is Action.REFRESH_LINK:
        assert asked.link or redirected
    assert bool(decision.why) == (decision.action not in (Action.BODY, Action.FULL_BODY, Action.DONE))
    assert decision.wait_s is None or decision.wait_s >= 0
    response.publisher_digest(headers)
    response.validator(headers)


@given(st.integers(1, 100), st.none() | st.floats(0, 1e6), st.floats(0, 1))
def test_backoff(attempt: int, asked: float | None, jitter: float) -> None:
    """Full jitter below a bound that doubles up to 30 s; never earlier than the server asked."""
    wait = response.backoff_s(attempt, asked, jitter)
    floor = asked or 0.0
    assert floor <= wait <= floor + response.BACKOFF_MAX_S
    assert wait <= floor + response.BACKOFF_FIRST_S * 2**attempt
    assert response.backoff_s(attempt, asked, 1.0) <= response.backoff_s(attempt + 1, asked, 1.0)


def test_backoff_doubles() -> None:
    """Half a minute is the most between two attempts."""
    assert [response.backoff_s(n, None, 1.0) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert response.backoff_s(3, 10.0, 0.5) == 12


def test_all_waiting_has_an_end() -> None:
    """R27, redpanda#31627: even the longest waits of one source are minutes; the Hub's window fits in."""
    longest = sum(response.backoff_s(n, None, 1.0) for n in range(1, response.RETRIES))
    assert longest < response.WAIT_TOTAL_S
    assert response.backoff_s(1, 300.0, 1.0) < response.WAIT_TOTAL_S


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        pytest.param(RangeRequest(), {}, id="everything"),
        pytest.param(RangeRequest(validator='"x"'), {}, id="everything: there is nothing to compare"),
        # RFC 9110 §14.1.2: from here to the end
        pytest.param(RangeRequest(40, 100), {"Range": "bytes=40-"}, id="the rest"),
        pytest.param(FIRST, {"Range": "bytes=0-19"}, id="the first lane's"),
        pytest.param(LANE, {"Range": "bytes=40-59"}, id="another lane's"),
        pytest.param(RangeRequest(40, 100, last=40), {"Range": "bytes=40-40"}, id="one byte"),
        pytest.param(RangeRequest(0, 100, last=0), {"Range": "bytes=0-0"}, id="the first byte"),
        pytest.param(LINKED, {"Range": "bytes=40-"}, id="from a link: the same"),
        pytest.param(
            LANE._replace(validator='"x"'), {"Range": "bytes=40-59", "If-Range": '"x"'}, id="some of it"
        ),
        # RFC 9110 §13.1.5
        pytest.param(
            RangeRequest(40, None, DATED.validator),
            {"Range": "bytes=40-", "If-Range": DATED.validator},
            id="the rest, if it has the same date",
        ),
        pytest.param(
            RangeRequest(40, None, '"x"'),
            {"Range": "bytes=40-", "If-Range": '"x"'},
            id="the rest, if the same",
        ),
        # RFC 9111 §5.2.1.4: a cache may have kept the wrong bytes
        pytest.param(RangeRequest(fresh=True), {"Cache-Control": "no-cache"}, id="after wrong bytes"),
    ],
)
def test_request(asked: RangeRequest, headers: dict[str, str]) -> None:
    """R18: a range where bytes are here; never a compressed body (huggingface_hub#3778)."""
    assert response.request_headers(asked) == {"Accept-Encoding": "identity", **headers}


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        # huggingface_hub constants.py, HUGGINGFACE_HEADER_X_LINKED_ETAG: SHA-256 of a large file, SHA-1 of a
        # small one
        pytest.param(f'"{"a1" * 32}"', "a1" * 32, id="a large file"),
        pytest.param("A1" * 32, "a1" * 32, id="capitals, no quotes"),
        pytest.param(f'W/"{"a1" * 32}"', "a1" * 32, id="weak"),
        pytest.param(f'"{"a1" * 20}"', None, id="a small file: SHA-1"),
        pytest.param(f'"{"g1" * 32}"', None, id="no hexadecimal"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_digest_of_the_publisher(text: str, digest: str | None) -> None:
    """R21: where nothing pins a file, its publisher's word is taken, if it is one."""
    assert response.publisher_digest({"x-linked-etag": text}) == digest


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        # RFC 9110 §13.1.5: no weak tag in If-Range
        pytest.param({"etag": '"x"', "last-modified": "D"}, '"x"', id="a strong ETag"),
        pytest.param({"etag": 'W/"x"', "last-modified": "D"}, "D", id="a weak one: the date"),
        pytest.param({"etag": 'W/"x"'}, "", id="a weak one alone: nothing"),
        pytest.param({"last-modified": "D"}, "D", id="a date alone"),
        pytest.param({}, "", id="nothing"),
        # §8.8.3: quoted, and the quotes belong to it
        pytest.param({"etag": '""'}, '""', id="an empty tag is a tag"),
        pytest.param({"etag": "x"}, "", id="no quotes: no tag"),
        pytest.param({"etag": '"'}, "", id="one quote"),
        pytest.param({"etag": 'w/"x"'}, "", id="W is case-sensitive: no tag"),
        # §8.8.2.2: two versions of one second have the same date
        pytest.param({"last-modified": SECOND, "date": SECOND}, "", id="changed in the second of the answer"),
        pytest.param({"last-modified": SECOND, "date": NEXT}, SECOND, id="changed a second before"),
        pytest.param({"last-modified": NEXT, "date": SECOND}, "", id="changed in the future"),
        pytest.param({"last-modified": "D", "date": NEXT}, "", id="no date, and a clock"),
        pytest.param({"last-modified": SECOND, "date": "x"}, "", id="a date, and no clock"),
    ],
)
def test_validator(headers: dict[str, str], validator: str) -> None:
    """R18: what tells whether the rest belongs to the bytes that are here."""
    assert response.validator(headers) == validator


MARGIN = space.SPACE_MARGIN


@pytest.mark.parametrize(
    ("size", "taken", "free", "missing"),
    [
        pytest.param(100, 0, MARGIN + 100, 0, id="it just fits"),
        pytest.param(100, 100, 0, MARGIN, id="all of it is here, and nothing is left beside it"),
        pytest.param(100, 100, MARGIN, 0, id="all of it is here, and the margin"),
        pytest.param(100, MARGIN + 200, 0, 0, id="the partial has more blocks than it needs"),
        pytest.param(100, 0, MARGIN + 99, 1, id="a byte is missing"),
        pytest.param(100, 40, MARGIN + 60, 0, id="what is here needs no more space"),
        pytest.param(100, 0, 0, MARGIN + 100, id="nothing is free"),
        pytest.param(None, 0, 0, 0, id="nobody knows the size"),
    ],
)
def test_space(size: int | None, taken: int, free: int, missing: int) -> None:
    """huggingface_hub#2742: a full disk is found before the download, not by it."""
    assert space.space_missing(size, taken, free) == missing


def test_a_verdict_is_a_value() -> None:
    """A missing field has its default."""
    assert Decision(Action.DONE) == Decision(Action.DONE, "", None, None, None, "", False, False)
    assert RangeRequest() == RangeRequest(0, None, "", None, False)
    assert Decision(Action.RETRY, "it is late").reason == "it is late"
    assert Decision(Action.RETRY, "it is late", remedy="go home").reason == "it is late; go home"
