"""Find where the body of a response ends, and which part of a file it is. Pure.

Source: RFC 9112 §6 (framing), RFC 9110 §8.6 (Content-Length), §14.4 (Content-Range).
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.network.answers import length, whole_number


def body_length(headers: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the stated length of a body, and why its end cannot be found.

    Args:
        headers: with lower-case names; repeated fields are joined by commas.

    Returns:
        None for the length if the response does not state one, and "" if its end can be
        found.
    """
    codings = [
        word for word in _words(headers, "transfer-encoding") if word != "identity"
    ]
    if codings == ["chunked"]:
        return None, ""  # RFC 9112 §6.3: it overrides Content-Length
    if codings:
        return None, f"a transfer coding that was not requested: {', '.join(codings)}"
    lengths = list(dict.fromkeys(_words(headers, "content-length")))
    if len(lengths) > 1:
        return None, f"contradictory lengths: {', '.join(lengths)}"
    return length("".join(lengths)), ""


def content_range(text: str) -> tuple[int | None, int | None, int | None]:
    """Read first, last and total of `bytes 0-9/10`; None for what is missing."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    if unit.lower() != "bytes":
        return None, None, None
    return (
        whole_number(first.strip()),
        whole_number(last.strip()),
        length(total.strip()),
    )


def _words(headers: Mapping[str, str], name: str) -> list[str]:
    """Return the elements of a list (RFC 9110 §5.6.1) in lower case."""
    words = [word.strip().lower() for word in headers.get(name, "").split(",")]
    return [word for word in words if word]
