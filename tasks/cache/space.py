"""Compute the disk space that a file needs. Pure."""

from __future__ import annotations

SPACE_MARGIN = 64 * 1024**2  # bytes that stay free on the disk


def space_missing(size: int | None, taken: int, free: int) -> int:
    """Return how many bytes of disk space are missing, 0 if the file fits.

    Args:
        size: bytes of the file; None if unknown, which counts as fitting.
        taken: bytes that the partial file already occupies.
        free: bytes.
    """
    if size is None:
        return 0
    return max(0, size - taken + SPACE_MARGIN - free)
