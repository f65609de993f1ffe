"""Decide what reading a file again shows. Pure: sizes and digests are arguments."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact, Stamp


class AuditStatus(str, Enum):
    """The result of auditing one file."""

    OK = "ok"
    DIFFERS = "differs"
    UNREADABLE = "unreadable"
    UNPINNED = "not pinned"  # it matches its stamp, and the catalogue pins nothing
    MISSING = "missing"


class AuditResult(NamedTuple):
    """The verdict on one file, with the values that were compared."""

    status: AuditStatus
    expected: str = ""
    got: str = ""
    bytes_are_right: bool = False  # the digest matches: the catalogue's size is wrong

    @property
    def is_failure(self) -> bool:
        """Whether the audit fails because of this file."""
        return self.status in (AuditStatus.DIFFERS, AuditStatus.UNREADABLE)


def check_size(
    artifact: Artifact, stamp: Stamp | None, size: int
) -> AuditResult | None:
    """Return a verdict if the size alone decides it; the file need not be read then.

    A size that was verified together with the expected digest takes precedence over the
    catalogue's size, which may be a typing error.

    Args:
        size: bytes.
    """
    expected = artifact.size
    if stamp and stamp.sha256 and artifact.sha256 in (None, stamp.sha256):
        expected = stamp.stat.size
    if expected in (None, size):
        return None
    return _differs(f"{expected} bytes", f"{size} bytes")


def check_digest(
    artifact: Artifact, stamp: Stamp | None, size: int, got: str
) -> AuditResult:
    """Return the verdict on a file that was read.

    Args:
        size: bytes.
        got: SHA-256 of its bytes, in hexadecimal.
    """
    expected = artifact.sha256 or (stamp.sha256 if stamp else None)
    if expected not in (None, got):
        return _differs(f"sha256:{expected}", f"sha256:{got}")
    if artifact.size not in (None, size):
        result = _differs(f"{artifact.size} bytes", f"{size} bytes")
        return result._replace(bytes_are_right=True)
    verdict = AuditStatus.OK if artifact.sha256 else AuditStatus.UNPINNED
    return AuditResult(verdict, f"sha256:{got}", f"sha256:{got}")


def _differs(expected: str, got: str) -> AuditResult:
    return AuditResult(AuditStatus.DIFFERS, expected, got)


def invalidated(stamp: Stamp) -> Stamp:
    """Return the stamp with a time that matches no file, so that it proves nothing.

    The next download reads the file. The digest stays: if nothing else pins the file,
    it is the only record of its bytes.
    """
    return stamp._replace(stat=stamp.stat._replace(mtime_ns=-1))
