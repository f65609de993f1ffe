"""Digests of many files at once."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from tasks.effects.digests import Stopped, sha256_files


def test_files_are_read_side_by_side(tmp_path: Path) -> None:
    """Issue 5.6: the first pipe gets its bytes when the second one's have been read."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    for path in (first, second):
        os.mkfifo(path)

    def feed() -> None:
        for path in (second, first):
            Path(path).write_bytes(path.encode())

    writer = threading.Thread(target=feed, daemon=True)
    writer.start()
    found = dict(sha256_files([first, second], lambda _: None, lambda: False))
    writer.join(10)
    assert found == {path: hashlib.sha256(path.encode()).hexdigest() for path in (first, second)}


def test_what_cannot_be_read_is_a_result(tmp_path: Path) -> None:
    """Issue 5.6: one bad file does not end the others' reading; bytes of all are counted together."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    seen: list[int] = []
    good.write_bytes(b"x" * 3_000_000)
    found = dict(sha256_files([str(bad), str(good)], seen.append, lambda: False))
    assert isinstance(found[str(bad)], FileNotFoundError)
    assert found[str(good)] == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert seen[-1] == 3_000_000


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    """Issue 5.6: also in the middle of a file."""
    path = tmp_path / "long"
    path.touch()
    os.truncate(path, 10**12)
    seen: list[int] = []
    with pytest.raises(Stopped):
        list(sha256_files([str(path)], seen.append, lambda: len(seen) > 1))
