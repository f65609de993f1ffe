"""Make untrusted text safe to show. Pure.

Servers, files, engines and other users may have written it. A terminal executes escape
sequences; bidirectional and zero-width characters change how a line reads.
"""

from __future__ import annotations

import hashlib
import re

LINES = "\n\t"  # kept in messages and reports
WORD = ""  # for text that must stay on one line
# emoji and several scripts need the zero-width joiners; they cannot harm a terminal
PROSE = "\n\t\u200c\u200d"

# every space of Unicode but U+0020
_SPACES = "\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class Styled(str):
    """Text with terminal styles of the recipe; untrusted parts are already safe."""

    __slots__ = ()


def visible(text: str, keep: str = LINES) -> str:
    r"""Replace each character that is not printable by an escape such as \x1b.

    Args:
        keep: further characters that stay as they are.
    """
    if text.isprintable():
        return text

    def replacement(match: re.Match[str]) -> str:
        character = match[0]
        if character.isprintable() or character in _SPACES or character in keep:
            return character
        return _escape(ord(character))

    if "\n" in keep:
        text = text.replace("\r\n", "\n")
    return re.sub("[^ -~]", replacement, text)


def digest(text: str) -> str:
    """Return the SHA-256 of text, which may be a path whose bytes are not UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8 (surrogateescape)
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"
