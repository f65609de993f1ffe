"""Track which bytes of a file exist, which are requested, and which come next.

Pure, without threads. Threads that share a Plan hold a lock around every call; only the
connection that owns a piece may move `Piece.pos` without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Span = tuple[int, int]  # the first byte, and the byte after the last

UNKNOWN_END = 1 << 62  # the end of a file of unknown size


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same bytes as sorted spans with gaps between them."""
    merged: list[Span] = []
    for first, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return tuple(merged)


def count(spans: Iterable[Span]) -> int:
    """Return how many bytes merged spans cover."""
    return sum(end - first for first, end in spans)


def parse_spans(data: Any, most: int) -> tuple[Span, ...]:
    """Return the spans from a journal's JSON.

    Args:
        most: the size of the file in bytes.

    Raises:
        TypeError, ValueError: the data is not a list of spans within the file.
    """
    if not isinstance(data, (list, tuple)):
        raise TypeError("not a list of spans")
    spans: list[Span] = []
    for first, end in data:
        if type(first) is not int or type(end) is not int:
            raise ValueError(f"{first} and {end} are not integers")
        if not 0 <= first < end <= most:
            raise ValueError(f"{first} to {end} in a file of {most} bytes")
        spans.append((first, end))
    return merge(spans)


class Piece:
    """The bytes [start, end) that one connection fetches; it has [start, pos).

    `end` shrinks when another connection takes the rest; `limit` is the end of the
    response that is being read.
    """

    __slots__ = ("end", "limit", "pos", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = self.pos = start
        self.end = self.limit = end

    @property
    def left(self) -> int:
        """The missing bytes."""
        return max(0, self.end - self.pos)


class RangeTracker:
    """Track the bytes of one file.

    Args:
        size: bytes of the whole file, None while it is unknown.
        have: spans that exist.
    """

    def __init__(self, size: int | None, have: Iterable[Span] = ()) -> None:
        self.size = size
        self.active: list[Piece] = []
        self._have = merge(have)

    def spans(self) -> tuple[Span, ...]:
        """Return the existing bytes, those of active pieces included."""
        return merge((*self._have, *((p.start, p.pos) for p in self.active)))

    @property
    def done(self) -> int:
        """The number of existing bytes."""
        return count(self.spans())

    @property
    def is_complete(self) -> bool:
        """Whether every byte exists."""
        return self.size is not None and (
            self.size == 0 or self.contiguous_end(0) >= self.size
        )

    def contiguous_end(self, at: int) -> int:
        """Return the first missing byte from `at` on."""
        return next((end for first, end in self.spans() if first <= at < end), at)

    def _gaps(self) -> Iterator[Span]:
        """Yield the spans that are neither present nor requested."""
        requested = ((piece.start, max(piece.pos, piece.end)) for piece in self.active)
        at = 0
        for first, end in merge((*self._have, *requested)):
            if at < first:
                yield at, first
            at = end
        if at < self._end:
            yield at, self._end

    @property
    def _end(self) -> int:
        return UNKNOWN_END if self.size is None else self.size

    @property
    def has_gap(self) -> bool:
        """Whether any missing bytes are not requested."""
        return next(self._gaps(), None) is not None

    def next_piece(self, most: int) -> Piece | None:
        """Return a piece of the lowest bytes that are not requested, None without any.

        The lowest, because the digest needs the bytes in order.

        Args:
            most: the maximum length of the piece in bytes.
        """
        gap = next(self._gaps(), None)
        if gap is None:
            return None
        piece = Piece(gap[0], min(gap[1], gap[0] + most))
        self.active.append(piece)
        return piece

    def extend(self, piece: Piece, most: int) -> bool:
        """Extend a piece within its response; return False where that is impossible.

        Args:
            most: the maximum of additional bytes.
        """
        gap = next((span for span in self._gaps() if span[0] == piece.end), None)
        if gap is None or piece.end >= piece.limit:
            return False
        piece.end = min(gap[1], piece.limit, piece.end + most)
        return True

    def finish(self, piece: Piece) -> None:
        """Keep what a piece has received; its missing bytes become a gap."""
        self.active.remove(piece)
        self._have = merge((*self._have, (piece.start, piece.pos)))

    def reset(self, size: int | None) -> None:
        """Forget every byte; `active` stays."""
        self.size = size
        self._have = ()
