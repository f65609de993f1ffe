"""How untrusted text appears on a terminal."""

from __future__ import annotations

import itertools

import pytest
from tasks.console.text import LINES, PROSE, WORD, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("a\tb\nc\r\nd", "a\tb\nc\nd", id="lines"),
        pytest.param("Größe 模型 ☃ 😀", "Größe 模型 ☃ 😀", id="letters"),
        pytest.param("10\xa0000\u202fkB\u3000x", "10\xa0000\u202fkB\u3000x", id="spaces"),
        pytest.param("\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07", id="clipboard"),
        pytest.param("\x1b[2J\x1b[31m", r"\x1b[2J\x1b[31m", id="clear the screen"),
        pytest.param("old\rnew\x08\x00\x7f", r"old\x0dnew\x08\x00\x7f", id="C0"),
        pytest.param("\x9b31m\x85", r"\x9b31m\x85", id="C1"),
        pytest.param("\u202eabc\u2066\u2069\u200f", r"\u202eabc\u2066\u2069\u200f", id="bidi"),
        pytest.param("a\u200bb\u200db\ufeff\u2028", r"a\u200bb\u200db\ufeff\u2028", id="zero width"),
        pytest.param("n\udce9", r"n\xe9", id="a byte that is not UTF-8"),
        pytest.param("n\ud800", r"n\ud800", id="surrogate"),
        pytest.param("\U000e0041", r"\U000e0041", id="tag"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """Finding 21: what is printable stays, everything else becomes an escape that can be seen."""
    assert visible(text) == shown
    assert visible(shown) == shown


def test_every_character_becomes_printable() -> None:
    """Finding 21: no character of Unicode is left out, and the result can always be encoded.

    Of the planes without assigned characters, 4 to 16 but for 14, the first and the last characters.
    """
    planes = [range(plane, plane + 0x10000, 0x100) for plane in range(0, 0x110000, 0x10000)]
    rows = [plane if at < 4 or at == 14 else (plane[0], plane[-1]) for at, plane in enumerate(planes)]
    for first in itertools.chain(*rows):
        shown = visible("".join(map(chr, range(first, first + 0x100))), WORD)
        assert all(one.isprintable() or one.isspace() for one in shown), hex(first)
        assert not {"\n", "\r", "\x1b"} & set(shown), hex(first)
        assert shown.encode()


def test_what_else_stays() -> None:
    """Finding 21: a word stays on its line; prose keeps the joiners that emoji and scripts need."""
    assert visible("a\nb\t", WORD) == r"a\x0ab\x09"
    assert visible("a\nb", LINES) == "a\nb"
    assert visible("👩\u200d🚀\u200c\u200b", PROSE) == "👩\u200d🚀\u200c\\u200b"
