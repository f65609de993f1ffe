"""Read values that another program sent and that may be malformed. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_BYTES = 1 << 44  # of a file; Source: the limit of ext4
MAX_SLOTS = 1_000_000  # requests that a server works on at once


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError: it is not JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def file_size(value: object) -> int | None:
    """Return a value that is a plausible file size in bytes; None for any other."""
    if type(value) is int and 0 < value < MAX_BYTES:  # a bool is not a size
        return value
    return None


def whole_number(text: str | None) -> int | None:
    """Read a number of up to 19 ASCII digits; None for any other text."""
    if not text or not _is_number(text) or len(text) >= 20:
        return None
    return int(text)


def length(text: str | None) -> int | None:
    """Read a file's length from a header; an absurd one is at least MOST_BYTES."""
    if text and _is_number(text) and len(text) >= 20:
        return 10**20  # Python refuses to parse more than 4300 digits
    return whole_number(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def busy_slots(text: bytes) -> int | None:
    """Return how many requests a server works on, from the JSON of /health or /slots.

    Returns:
        None if the JSON does not say.
    """
    try:
        data = parse_json(text)
    except ValueError:
        return None
    if isinstance(data, dict):
        return _slot_count(data.get("slots_processing"))
    if not isinstance(data, list) or not data:
        return None
    if not all(isinstance(slot, dict) for slot in data):
        return None
    return sum(bool(slot.get("is_processing", slot.get("state"))) for slot in data)


def requests_in_metrics(text: bytes) -> int | None:
    """Return how many requests a server works on or defers, from its /metrics.

    Returns:
        None if the text does not say.
    """
    found = re.findall(rb"^llamacpp:requests_(?:processing|deferred) (\S+)", text, re.M)
    counts = [whole_number(value.decode("latin-1")) for value in found]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    return sum(known)


def _slot_count(value: object) -> int | None:
    if type(value) is int and 0 <= value <= MAX_SLOTS:
        return value
    return None
