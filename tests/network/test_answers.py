"""Values that other programs sent (security 16, 18, 26)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.network.answers import busy_slots, file_size, length, parse_json, whole_number


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 500_000, '{"a":' * 100_000, "nope", "9" * 5000, b"\xff\xfe", "\ufeff{}"]
)
def test_what_is_not_json(text: str | bytes) -> None:
    """One exception, also for what is nested too deeply or has a number that is too long."""
    with pytest.raises(ValueError):  # noqa: PT011  # its text is Python's
        parse_json(text)


@pytest.mark.parametrize("value", [0, -5, True, 1.0, float("inf"), "5", None, [5], 1 << 44, 10**400])
def test_what_is_not_a_size(value: object) -> None:
    """A file has at least one byte and less than ext4 allows."""
    assert file_size(value) is None


@pytest.mark.parametrize("text", ["", None, "-5", "+5", "²", "٣", "1e3", "0x1", " 5", "5 ", "1_000", "NaN"])
def test_what_is_not_a_number(text: str | None) -> None:
    """ASCII digits alone; int() takes more."""
    assert whole_number(text) is None
    assert length(text) is None


@pytest.mark.parametrize("digits", [20, 5000])
def test_an_absurd_length_is_not_an_unknown_one(digits: int) -> None:
    """Python reads no number of more than 4300 digits."""
    assert whole_number("9" * digits) is None
    assert length("9" * digits) == 10**20
    assert length("12") == whole_number("12") == 12


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b'{"slots_processing": 2}', 2),
        (b'[{"is_processing": true}, {"is_processing": false}, {"state": 1}]', 2),
        (b'{"slots_processing": true}', None),
        (b'{"slots_processing": -1}', None),
        (b'{"slots_processing": 1e999}', None),
        (b'{"slots_processing": ' + b"9" * 4000 + b"}", None),
        (b"[]", None),
        (b"[1]", None),
        (b"null", None),
        (b"[" * 500_000, None),
        (b"\xff", None),
    ],
)
def test_busy_slots(text: bytes, count: int | None) -> None:
    """What a server says of its slots, in the shapes of both generations and in any other."""
    assert busy_slots(text) == count


@given(st.binary() | st.text().map(str.encode))
def test_whatever_a_server_says_of_its_slots(text: bytes) -> None:
    """Never an exception."""
    busy_slots(text)
