"""Values in what another program sent, which may have any form. Pure."""

from __future__ import annotations

import json
from typing import Any

MOST_BYTES = 1 << 44  # no file has so many; Source: the limit of ext4
MOST_SLOTS = 1_000_000


def parsed(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError: it is not JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def file_size(value: object) -> int | None:
    """Return the size of a file in bytes; None for a value that cannot be one."""
    return value if type(value) is int and 0 < value < MOST_BYTES else None


def whole_number(text: str | None) -> int | None:
    """Read a number of up to 19 ASCII digits; None for any other text."""
    if not text or not _is_number(text) or len(text) >= 20:
        return None
    return int(text)


def length(text: str | None) -> int | None:
    """Read the length of a file from a header; at least MOST_BYTES for an absurd one."""
    if text and _is_number(text) and len(text) >= 20:
        return 10**20  # Python refuses to read more than 4300 digits
    return whole_number(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def busy_slots(text: bytes) -> int | None:
    """Return how many requests a server works on, by its JSON of /health or /slots.

    Returns:
        None where it does not say.
    """
    try:
        data = parsed(text)
    except ValueError:
        return None
    if isinstance(data, dict):
        count = data.get("slots_processing")
        return count if type(count) is int and 0 <= count <= MOST_SLOTS else None
    if not isinstance(data, list) or not data or not all(isinstance(slot, dict) for slot in data):
        return None
    return sum(bool(slot.get("is_processing", slot.get("state"))) for slot in data)
