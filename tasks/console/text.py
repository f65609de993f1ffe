"""Make text from outside safe to show: servers, files, engines and other users may have written it. Pure.

A terminal obeys escape sequences, and bidirectional and zero-width characters change how a line reads.
"""

from __future__ import annotations

import hashlib
import re

LINES = "\n\t"  # kept in messages and reports
WORD = ""  # for what has to stay on one line
# emoji and several scripts need the zero-width joiners; they cannot harm a terminal
PROSE = "\n\t\u200c\u200d"

_SPACES = "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


class Styled(str):
    """Text with styles of ours for a terminal; what is from outside in it is safe already."""

    __slots__ = ()


def visible(text: str, keep: str = LINES) -> str:
    r"""Show every character that is not printable as an escape such as \x1b.

    Args:
        keep: further characters that stay as they are.
    """
    if text.isprintable():
        return text

    def shown(found: re.Match[str]) -> str:
        c = found[0]
        return c if c.isprintable() or c in _SPACES or c in keep else _escape(ord(c))

    if "\n" in keep:
        text = text.replace("\r\n", "\n")
    return re.sub("[^ -~]", shown, text)


def digest(text: str) -> str:
    """Return the SHA-256 of text, which may be a path whose bytes are not UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8 (surrogateescape)
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
