"""Digests of many files at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tasks.cache.digests import CancelledError, sha256_files
from tasks.errors import IntegrityError
from tasks.system.files import Hashed, sha256_file


def test_files_are_read_side_by_side(tmp_path: Path) -> None:
    """Issue 5.6: a short file is done before a long one that was begun first; both are asked for."""
    long, short = tmp_path / "long", tmp_path / "short"
    long.touch()
    os.truncate(long, 10**12)
    short.write_bytes(b"x")
    found = sha256_files([str(long), str(short)], lambda _: None, lambda: False)
    path, got = next(found)
    found.close()  # the long one is left
    assert path == str(short)
    assert isinstance(got, Hashed)
    assert got.sha256 == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "touched"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, how: str) -> None:
    """Issue 11: the digest of what has gone says nothing about what is there."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"y" * 3_000_000)
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))

    def change(_: int) -> None:
        if how == "written":
            with path.open("r+b") as file:
                file.write(b"y")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif how == "replaced":
            if other.exists():
                other.replace(path)
        elif how == "removed":
            path.unlink(missing_ok=True)
        else:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(IntegrityError, match="was changed or replaced while it was read"):
        sha256_file(path, change)


def test_what_cannot_be_read_is_a_result(tmp_path: Path) -> None:
    """Issue 5.6: one bad file does not end the others' reading; bytes of all are counted together."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    seen: list[int] = []
    good.write_bytes(b"x" * 3_000_000)
    found = dict(sha256_files([str(bad), str(good)], seen.append, lambda: False))
    assert isinstance(found[str(bad)], FileNotFoundError)
    right = found[str(good)]
    assert isinstance(right, Hashed)
    assert right.sha256 == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert seen[-1] == 3_000_000


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    """Issue 5.6: also in the middle of a file."""
    path = tmp_path / "long"
    path.touch()
    os.truncate(path, 10**12)
    seen: list[int] = []
    with pytest.raises(CancelledError):
        list(sha256_files([str(path)], seen.append, lambda: len(seen) > 1))
