"""Damage bytes, JSON and paths, as a disk, a program or an attacker does."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.fuzz.case import FIFO, FOLDER, GONE, LINK, Content

# Short words in a case for what is too long to be read in a report
_DEEP, _HUGE = "@DEEP@", "@HUGE@"
_LONG = {
    b'"@DEEP@"': b"[" * 20_000 + b"]" * 20_000,
    b"@OPEN@": b"[" * 20_000,
    b"@NESTED@": b'{"a":' * 20_000,
    b'"@HUGE@"': b"9" * 5000,  # more digits than int() takes
    b"@LONG@": b"a" * 70_000,
}

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 1.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"),
    2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400, _HUGE,
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "a\x00b", "\ud800", "\x1b]52;c;ZXZpbA==\x07", "\x1b[2J", "\u202e",
    "\r\n", "\xb2", "1e999", "-5", "::error::x", "##[error]x", "\n::add-mask::x",
    "%s %n %d", "{version}", "${HOME}", "~root", "latest", "..", ".", "/", "//",
    "../../victim/new", "x/../../../victim/new", "/etc/passwd", "C:\\x", "\\\\host\\x",
    "file:///dev/zero", "file:///dev/null", "javascript:alert(1)", "http://[",
    "http://[::1", "http://a:b", "http://user:pw@host/x", "http://127.0.0.1:1/x.gguf",
    "http://127.0.0.1:99999/x", "https://", "data:,x", "null", "true", "0x10", "1_000",
    "NaN", "ready", "stopped", "\u017f", "\u0130", "a" * 300, "@LONG@",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *NUMBERS, *TEXTS, None, True, False, [], {}, [[]], {"": ""}, [None],
    {"a": {"a": {}}}, _DEEP, [_DEEP], ["x"] * 300,
)  # fmt: skip


_WHOLE = (b"", b"\0", b"\n", b"@OPEN@", b"@NESTED@", b"\xff\xfe")
_ENDS = ("@WORLD@/victim/precious", "@SELF@", "nowhere", "/dev/null", "/dev/zero")


def dumps(value: Any) -> bytes:
    """JSON, with surrogates as they are escaped; `filled` makes the long words long."""
    return json.dumps(value, indent=1).encode()


def filled(data: bytes) -> bytes:
    """The same bytes, with what the long words stand for."""
    for word, meant in _LONG.items():
        data = data.replace(word, meant)
    return data


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of each value in plain data."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, (dict, list)):
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        for key, inner in pairs:
            found += [(value, key), *nodes(inner)]
    return found


def plain(rng: Random, value: Any) -> Any:
    """Change one to three places of plain data, in place; what it is now."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = nodes(value)
        if not places or rng.random() < 0.03:
            return rng.choice(VALUES)
        _change(rng, *rng.choice(places))
    return value


def _change(rng: Random, container: Any, key: Any) -> None:
    how = rng.random()
    if how < 0.4:  # another value of the same type gets further
        container[key] = rng.choice(_like(container[key]))
    elif how < 0.6:
        container[key] = rng.choice(VALUES)
    elif how < 0.7:
        del container[key]
    elif how < 0.8:
        container[key] = [container[key]] if rng.random() < 0.5 else {"x": container[key]}
    elif how < 0.9 and isinstance(container[key], str):
        container[key] = text(rng, container[key])
    elif isinstance(container, dict):
        container[rng.choice(TEXTS)] = container[key]
    else:
        container.append(container[key])


def _like(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return TEXTS
    if isinstance(value, int):
        return tuple(number for number in NUMBERS if isinstance(number, int))
    return VALUES


def text(rng: Random, word: str) -> str:
    """A word with something nasty in it."""
    at = rng.randint(0, len(word))
    return word[:at] + rng.choice(TEXTS) + word[at + rng.randint(0, 2) :]


def raw(rng: Random, data: bytes) -> bytes:
    """Damage bytes without a thought for what they mean."""
    how, at = rng.randrange(7), rng.randint(0, len(data))
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]
    if how == 2:  # what a loss of power leaves
        return data[:at] + b"\0" * (len(data) - at)
    if how == 3:
        return data[:at] + data[at + rng.randint(1, 30) :]
    if how == 4:
        return data + data[: rng.randint(1, len(data) + 1)]
    if how == 5:
        return rng.choice((*_WHOLE, b"\xef\xbb\xbf" + data))
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def content(rng: Random, data: bytes) -> Content:
    """A file in another state: damaged, gone, a link, a pipe, a folder."""
    if rng.random() < 0.15:
        return rng.choice((GONE, FIFO, FOLDER, *(LINK + end for end in _ENDS)))
    try:
        value = json.loads(data)
    except ValueError:
        return raw(rng, data)
    return dumps(plain(rng, value)) if rng.random() < 0.8 else raw(rng, data)
