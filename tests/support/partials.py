"""Looking at a download that is under way, from outside."""

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
    """Bytes that the next run will not fetch again, as the journals beside the target say."""
    return load_progress(_artifact(target, data)).done


def leave_partial(target: Path, data: bytes, count: int) -> None:
    """Leave the first bytes behind, as an interrupted download does."""
    with Partial(_artifact(target, data)) as partial:
        piece = partial.tracker.next_piece(count)
        assert piece
        partial.file.write(0, memoryview(data)[:count])
        piece.pos = count


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 90.0) -> None:
    """Return once it is so; an AssertionError that says what was not, if it never is."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)
