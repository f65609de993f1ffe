"""When messages have styles, and which."""

from __future__ import annotations

import pytest
from tasks.console.styles import allows_styles, style_message


@pytest.mark.parametrize(
    ("env", "platform", "expected"),
    [
        ({}, "linux", True),
        ({"TERM": "xterm-256color"}, "darwin", True),
        ({"NO_COLOR": "1"}, "linux", False),
        ({"NO_COLOR": ""}, "linux", True),
        ({"TERM": "dumb"}, "linux", False),
        ({}, "win32", False),
        ({"WT_SESSION": "1"}, "win32", True),
        ({"WT_SESSION": "1", "NO_COLOR": "1"}, "win32", False),
    ],
)
def test_when(env: dict[str, str], platform: str, expected: bool) -> None:
    """no-color.org, a dumb terminal, and an old console of Windows."""
    assert allows_styles(env, platform) is expected


@pytest.mark.parametrize(
    ("text", "url", "expected"),
    [
        ("it works", "", "it works"),
        ("ERROR: it fails", "", "\x1b[1;31mERROR:\x1b[0m it fails"),
        ("an ERROR: it fails", "", "an ERROR: it fails"),
        (
            "m is at http://a:1, at http://a:1",
            "http://a:1",
            "m is at \x1b[1mhttp://a:1\x1b[0m, at http://a:1",
        ),
        ("m is ready", "http://a:1", "m is ready"),
    ],
)
def test_what(text: str, url: str, expected: str) -> None:
    """The word ERROR and the URL of a server."""
    assert style_message(text, url) == expected
