"""Inspect a running download from outside."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tasks.catalogue.artifact import Artifact
from tasks.transfer.journal import load_progress
from tasks.transfer.partial import Partial


@lru_cache
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _artifact(target: Path, data: bytes) -> Artifact:
    return Artifact("m", (), str(target), _sha256(data), len(data))


def claim(target: Path, data: bytes) -> int:
    """Return the bytes that the next run will not fetch again, from the journals."""
    return load_progress(_artifact(target, data)).done


def leave_partial(target: Path, data: bytes, count: int) -> None:
    """Write a partial with the first bytes, as an interrupted download leaves it."""
    with Partial(_artifact(target, data)) as partial:
        piece = partial.tracker.next_piece(count)
        assert piece
        partial.file.write(0, memoryview(data)[:count])
        piece.pos = count


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 90.0) -> None:
    """Wait until `true()` holds; fail with `what` if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)
