"""Where a body ends (RFC 9112 §6) and which bytes of a file it has (RFC 9110 §14.4)."""

from __future__ import annotations

import pytest
from tasks.network import framing

NOT_REQUESTED = "a transfer coding that was not requested: "


@pytest.mark.parametrize(
    ("coding", "length", "stated", "problem"),
    [
        (None, None, None, ""),  # §6.3: the body ends with the connection
        (None, "0", 0, ""),
        (None, "5", 5, ""),
        (None, " 5 ", 5, ""),
        (None, "", None, ""),
        # §6.3, RFC 9110 §8.6: the same value repeated is that value
        (None, "5, 5", 5, ""),
        (None, "5,5,5", 5, ""),
        (None, "5, 6", None, "contradictory lengths: 5, 6"),
        (None, "5, 5, 6", None, "contradictory lengths: 5, 6"),
        (None, "5, x", None, "contradictory lengths: 5, x"),
        # RFC 9110 §8.6: 1*DIGIT; the digest judges a body without a usable length
        *((None, text, None, "") for text in ("-5", "+5", "5.0", "0x5", "1_0", "x", "²", "5 5")),
        # §6.1, §6.3: chunks have their own end
        ("chunked", None, None, ""),
        ("Chunked", None, None, ""),
        ("chunked", "5", None, ""),
        ("chunked", "5, 6", None, ""),
        ("identity", "5", 5, ""),  # RFC 2616 §3.6; RFC 7230 removed it
        ("identity, chunked", None, None, ""),
        ("", "5", 5, ""),
        # §6.1: only what TE allows, and nothing is chunked twice
        ("gzip", "5", None, f"{NOT_REQUESTED}gzip"),
        ("gzip, chunked", None, None, f"{NOT_REQUESTED}gzip, chunked"),
        ("chunked, chunked", None, None, f"{NOT_REQUESTED}chunked, chunked"),
        ("x", None, None, f"{NOT_REQUESTED}x"),
    ],
)
def test_body_length(coding: str | None, length: str | None, stated: int | None, problem: str) -> None:
    """Transfer-Encoding, Content-Length, and what they say together."""
    headers = {"transfer-encoding": coding, "content-length": length}
    present = {name: text for name, text in headers.items() if text is not None}
    assert framing.body_length(present) == (stated, problem)


@pytest.mark.parametrize(
    ("text", "first", "last", "total"),
    [
        ("bytes 0-9/10", 0, 9, 10),
        ("bytes 5-9/*", 5, 9, None),
        ("bytes */10", None, None, 10),
        ("Bytes 5-9/10", 5, 9, 10),  # §14.1: range units are case-insensitive
        ("bytes 5-/10", 5, None, 10),
        ("bytes 5/10", 5, None, 10),
        ("bytes 5-9", 5, 9, None),
        ("bytes=5-9/10", None, None, None),
        ("items 5-9/10", None, None, None),
        ("bytes -5-9/10", None, None, 10),
        ("bytes x-y/z", None, None, None),
        ("", None, None, None),
    ],
)
def test_content_range(text: str, first: int | None, last: int | None, total: int | None) -> None:
    """What is not a number is unknown; what follows from it is judged elsewhere."""
    assert framing.content_range(text) == (first, last, total)
