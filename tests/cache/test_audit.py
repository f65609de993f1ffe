"""The verdict on a file that was looked at, or read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.cache.audit import AuditStatus, check_digest, check_size, invalidated
from tasks.catalogue.artifact import Artifact, Stamp, TargetState, compare_target
from tasks.system.file_stat import FileStat

A, B = "a" * 64, "b" * 64
PINNED = Artifact("m", (), "/c/m", A, 10)
NO_SIZE = PINNED._replace(size=None)
UNPINNED = Artifact("m", (), "/c/m")
HERE = FileStat(10, 5, 1, 2, 6)
STAMP = Stamp(HERE, A, "", {"self": "0.8"})
DIGESTS, SIZES = st.none() | st.sampled_from([A, B]), st.none() | st.integers(9, 11)
STAMPS = st.none() | st.builds(
    Stamp,
    st.builds(HERE._replace, size=st.integers(9, 11), mtime_ns=st.integers(4, 6)),
    DIGESTS,
    st.just(""),
    st.just({}),
)
ARTIFACTS = st.builds(lambda sha256, size: Artifact("m", (), "/c/m", sha256, size), DIGESTS, SIZES)


@pytest.mark.parametrize(
    ("artifact", "stamp", "size", "expected"),
    [
        pytest.param(PINNED, STAMP, 10, None, id="as it should be: it is read"),
        pytest.param(PINNED, None, 9, "10 bytes", id="the catalogue's size"),
        pytest.param(NO_SIZE, STAMP, 9, "10 bytes", id="the size that was proven to be the digest's"),
        pytest.param(NO_SIZE, STAMP._replace(sha256=B), 9, None, id="the stamp is of other bytes"),
        pytest.param(NO_SIZE, None, 9, None, id="nobody knows"),
        pytest.param(UNPINNED, STAMP, 9, "10 bytes", id="only the stamp knows"),
        pytest.param(UNPINNED, STAMP._replace(sha256=None), 9, None, id="a stamp that proves nothing"),
        pytest.param(PINNED._replace(size=9), STAMP, 10, None, id="the catalogue's size is a slip, perhaps"),
    ],
)
def test_sizes(artifact: Artifact, stamp: Stamp | None, size: int, expected: str | None) -> None:
    """Issue 5.6: a file of the wrong size needs no reading."""
    result = check_size(artifact, stamp, size)
    assert (result.expected if result else None) == expected
    assert result is None or (result.status, result.got) == (AuditStatus.DIFFERS, f"{size} bytes")


@pytest.mark.parametrize(
    ("artifact", "stamp", "got", "verdict"),
    [
        pytest.param(PINNED, STAMP, A, AuditStatus.OK, id="as pinned"),
        pytest.param(PINNED, None, A, AuditStatus.OK, id="as pinned, never proven"),
        pytest.param(PINNED, STAMP._replace(sha256=B), A, AuditStatus.OK, id="the stamp is of other bytes"),
        pytest.param(PINNED, STAMP, B, AuditStatus.DIFFERS, id="rotten"),
        pytest.param(PINNED, STAMP._replace(sha256=B), B, AuditStatus.DIFFERS, id="the pin moved"),
        pytest.param(UNPINNED, STAMP, A, AuditStatus.UNPINNED, id="as its stamp says"),
        pytest.param(UNPINNED, STAMP, B, AuditStatus.DIFFERS, id="not as its stamp says"),
        pytest.param(UNPINNED, None, B, AuditStatus.UNPINNED, id="nothing is known"),
    ],
)
def test_digests(artifact: Artifact, stamp: Stamp | None, got: str, verdict: AuditStatus) -> None:
    """Issue 5.6: the catalogue's and the lock's digest, else the stamp's."""
    result = check_digest(artifact, stamp, 10, got)
    assert (result.status, result.got) == (verdict, f"sha256:{got}")
    assert result.is_failure is (verdict is AuditStatus.DIFFERS)


def test_a_wrong_size_of_the_catalogue() -> None:
    """Issue 5.6: the bytes are right, and the catalogue has to be mended."""
    result = check_digest(PINNED._replace(size=9), STAMP, 10, A)
    assert (result.status, result.expected, result.got) == (AuditStatus.DIFFERS, "9 bytes", "10 bytes")
    assert result.bytes_are_right
    assert not check_digest(PINNED, STAMP, 10, B).bytes_are_right


@given(ARTIFACTS, STAMPS, st.integers(9, 11), st.sampled_from([A, B]))
def test_what_differs_is_mended(artifact: Artifact, stamp: Stamp | None, size: int, got: str) -> None:
    """Issue 5.6: after the audit a download reads each file that differs, and finds it wrong as well."""
    result = check_size(artifact, stamp, size) or check_digest(artifact, stamp, size, got)
    if not result.is_failure or result.bytes_are_right:
        return
    if artifact.sha256 is None and (stamp is None or stamp.sha256 is None):
        return  # nothing tells right from wrong: the remedy is to delete it
    left = invalidated(stamp) if stamp else None
    assert compare_target(artifact, HERE._replace(size=size), left) is TargetState.UNVERIFIED
    if result.got.startswith("sha256:"):
        assert (artifact.sha256 or (left.sha256 if left else None)) not in (None, got)
