"""What re-reading a file says about it. Pure: sizes and digests are arguments."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact, Stamp


class Verdict(str, Enum):
    """What a file is."""

    OK = "ok"
    DIFFERS = "differs"
    UNREADABLE = "unreadable"
    UNPINNED = "not pinned"  # it is what its stamp says, and nothing else is known
    MISSING = "missing"


class Finding(NamedTuple):
    """The verdict on one file, and why."""

    verdict: Verdict
    expected: str = ""
    got: str = ""
    bytes_are_right: bool = False  # it differs, and the catalogue is what is wrong

    @property
    def is_failure(self) -> bool:
        """Whether something has to be done."""
        return self.verdict in (Verdict.DIFFERS, Verdict.UNREADABLE)


def judge_size(artifact: Artifact, stamp: Stamp | None, size: int) -> Finding | None:
    """The verdict where the size alone gives it: such a file need not be read.

    A size that was proven to be the expected digest's goes before the catalogue's, which may be a slip.
    """
    proven = stamp is not None and stamp.sha256 is not None and artifact.sha256 in (None, stamp.sha256)
    known = stamp.stat.size if stamp and proven else artifact.size
    return None if known in (None, size) else _differs(f"{known} bytes", f"{size} bytes")


def judge_digest(artifact: Artifact, stamp: Stamp | None, size: int, got: str) -> Finding:
    """The verdict on a file of so many bytes that was read.

    Args:
        got: SHA-256 of its bytes, hexadecimal.
    """
    expected = artifact.sha256 or (stamp.sha256 if stamp else None)
    if expected not in (None, got):
        return _differs(f"sha256:{expected}", f"sha256:{got}")
    if artifact.size not in (None, size):
        return _differs(f"{artifact.size} bytes", f"{size} bytes")._replace(bytes_are_right=True)
    return Finding(
        Verdict.OK if artifact.sha256 else Verdict.UNPINNED, f"sha256:{expected or got}", f"sha256:{got}"
    )


def _differs(expected: str, got: str) -> Finding:
    return Finding(Verdict.DIFFERS, expected, got)


def void(stamp: Stamp) -> Stamp:
    """The same stamp, proving nothing any more: the next download reads the file, whatever its time says.

    What was proven before stays in it: for a file that nothing else pins it is all that is known.
    """
    return stamp._replace(stat=stamp.stat._replace(mtime_ns=-1))
