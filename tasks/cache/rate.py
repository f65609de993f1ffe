"""Record the rate of the last download, to say how long the next one takes."""

from __future__ import annotations

import contextlib
import json
import os

from tasks.system import own_files
from tasks.system.files import write_atomic

MIN_BYTES = 20_000_000  # a shorter download says little about the rate
_NAME = "rate.json"
_MAX_BYTES = 1000  # of the file
# bytes a second that a network can have; the file may have been changed
_SLOWEST = 1_000
_FASTEST = 100_000_000_000


def record_rate(cache: str, count: int, seconds: float) -> None:
    """Record that `count` bytes took some seconds; not where this cannot be written."""
    if count < MIN_BYTES or seconds <= 0:
        return
    text = json.dumps({"bytes_per_s": round(count / seconds)}) + "\n"
    with contextlib.suppress(OSError):
        write_atomic(os.path.join(cache, _NAME), text)


def last_rate(cache: str) -> int | None:
    """Return the bytes a second of the last download; None if they are not known."""
    data = own_files.read_most(os.path.join(cache, _NAME), _MAX_BYTES)
    return parse_rate(data or b"")


def parse_rate(data: bytes) -> int | None:
    """Return the rate in the file's bytes; None if it is not a plausible one."""
    try:
        rate = json.loads(data)["bytes_per_s"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if isinstance(rate, bool) or not isinstance(rate, int):
        return None
    return rate if _SLOWEST <= rate <= _FASTEST else None
