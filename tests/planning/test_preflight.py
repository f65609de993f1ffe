"""What is said before a large download, and what the rate of the last one is."""

from __future__ import annotations

import pytest
from tasks.cache.rate import parse_rate
from tasks.planning.estimate import FilePlan
from tasks.planning.preflight import size_lines

GB = 10**9
BIG = FilePlan("m", "/c/m", "fetch", "https://hub.example/m.gguf", 5 * GB)
REST = FilePlan("m", "/c/m", "resume", "https://hub.example/m.gguf", 5 * GB, 4 * GB)
EXE = FilePlan("llamafile 1", "/c/l", "fetch", "https://git.example/l", None)


@pytest.mark.parametrize(
    ("needs", "free", "rate", "last"),
    [
        ([BIG], 9 * GB, None, "to download: 5.00 GB; 4.00 GB of the disk stay free"),
        ([BIG], 9 * GB, 50_000_000, "to download: 5.00 GB, about 100 s at the rate of the last download; "),
        ([REST], 9 * GB, 50_000_000, "to download: 1.00 GB, about 20 s at the rate of the last download; "),
        ([BIG, EXE], 9 * GB, 50_000_000, "to download: at least 5.00 GB; at most 4.00 GB of the disk stay "),
        ([EXE], 9 * GB, 50_000_000, "to download: unknown size; 9.00 GB of the disk are free"),
        ([BIG], 1 * GB, None, "0 B of the disk stay free"),
    ],
)
def test_what_a_download_takes(needs: list[FilePlan], free: int, rate: int | None, last: str) -> None:
    """Issue 14.2: bytes, time and disk."""
    lines = size_lines(needs, free, rate)
    assert last in lines[-1]
    said = {BIG: "m: 5.00 GB from hub.example", REST: "m: 1.00 GB from hub.example",
            EXE: "llamafile 1: unknown size from git.example"}  # fmt: skip
    assert lines[:-1] == [said[need] for need in needs]


@pytest.mark.parametrize(
    ("data", "rate"),
    [
        (b'{"bytes_per_s": 50000000}', 50_000_000),
        (b'{"bytes_per_s": 1000}', 1000),
        (b'{"bytes_per_s": 999}', None),
        (b'{"bytes_per_s": 0}', None),
        (b'{"bytes_per_s": -5}', None),
        (b'{"bytes_per_s": 1e99}', None),
        (b'{"bytes_per_s": true}', None),
        (b'{"bytes_per_s": "9999"}', None),
        (b'{"bytes_per_s": 100000000001}', None),
        (b"{}", None),
        (b"[]", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"[" * 999, None),
    ],
)
def test_a_rate_that_was_changed_is_not_used(data: bytes, rate: int | None) -> None:
    """Issue 14.2: the file may be another user's, or damaged."""
    assert parse_rate(data) == rate
