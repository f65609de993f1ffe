"""How much of the disk stays free. Pure."""

from __future__ import annotations

SPACE_MARGIN = 64 * 1024**2  # bytes left free beside the file


def space_missing(size: int | None, taken: int, free: int) -> int:
    """Bytes the disk lacks for the rest of the file, 0 if it fits or nobody knows.

    Args:
        taken: bytes of the disk that the partial file has already.
    """
    return max(0, size - taken + SPACE_MARGIN - free) if size is not None else 0
