"""Which bytes of a file are here, which are on their way, and which are fetched next. Pure, no threads.

Whoever shares a Plan between threads holds a lock around every call; only `Piece.pos` may be moved without
it, by the one lane that owns the piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Span = tuple[int, int]  # first byte, and the one behind the last

ENDLESS = 1 << 62  # stands for the end of a file whose size nobody knows


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same bytes as sorted spans with gaps between them."""
    out: list[Span] = []
    for first, end in sorted(s for s in spans if s[0] < s[1]):
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((first, end))
    return tuple(out)


def count(spans: Iterable[Span]) -> int:
    """How many bytes merged spans have."""
    return sum(end - first for first, end in spans)


def parse_spans(data: Any, most: int) -> tuple[Span, ...]:
    """Spans from a journal's JSON. Raises ValueError, TypeError: they are none, or reach beyond `most`."""
    spans: list[Span] = []
    for first, end in data if isinstance(data, (list, tuple)) else [(None, None)]:
        if type(first) is not int or type(end) is not int or not 0 <= first < end <= most:
            raise ValueError(f"{first} to {end} in a file of {most} bytes")
        spans.append((first, end))
    return merge(spans)


class Piece:
    """What one connection fetches: the bytes [start, end), of which [start, pos) are here.

    `end` may shrink while it is fetched, when another lane takes the rest; `limit` is how far the answer
    that is being read reaches.
    """

    __slots__ = ("end", "limit", "pos", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = self.pos = start
        self.end = self.limit = end

    @property
    def left(self) -> int:
        """Bytes still to come."""
        return max(0, self.end - self.pos)


class Plan:
    """The bytes of one file.

    Args:
        size: bytes of the whole, None where nobody says.
        have: spans that are here.
    """

    def __init__(self, size: int | None, have: Iterable[Span] = ()) -> None:
        self.size = size
        self.active: list[Piece] = []
        self._have = merge(have)

    def spans(self) -> tuple[Span, ...]:
        """Everything that is here, also of pieces on their way."""
        return merge((*self._have, *((p.start, p.pos) for p in self.active)))

    @property
    def done(self) -> int:
        """How many bytes are here."""
        return count(self.spans())

    @property
    def is_complete(self) -> bool:
        """Whether every byte is here."""
        return self.size is not None and (self.size == 0 or self.edge(0) >= self.size)

    def edge(self, at: int) -> int:
        """The first byte from `at` on that is not here."""
        return next((end for first, end in self.spans() if first <= at < end), at)

    def _gaps(self) -> Iterator[Span]:
        """What is neither here nor on its way."""
        at = 0
        for first, end in merge((*self._have, *((p.start, max(p.pos, p.end)) for p in self.active))):
            if at < first:
                yield at, first
            at = end
        if at < self._end:
            yield at, self._end

    @property
    def _end(self) -> int:
        return ENDLESS if self.size is None else self.size

    @property
    def has_gap(self) -> bool:
        """Whether there are bytes that nobody fetches."""
        return next(self._gaps(), None) is not None

    def take(self, most: int) -> Piece | None:
        """The lowest bytes that nobody fetches, `most` of them at most: the digest follows from below."""
        gap = next(self._gaps(), None)
        if gap is None:
            return None
        piece = Piece(gap[0], min(gap[1], gap[0] + most))
        self.active.append(piece)
        return piece

    def extend(self, piece: Piece, most: int) -> bool:
        """Let a piece go on where its answer goes on and nobody else fetches; False where neither holds."""
        gap = next((g for g in self._gaps() if g[0] == piece.end), None)
        if gap is None or piece.end >= piece.limit:
            return False
        piece.end = min(gap[1], piece.limit, piece.end + most)
        return True

    def finish(self, piece: Piece) -> None:
        """Keep what a piece has brought; what it has not is to be fetched again."""
        self.active.remove(piece)
        self._have = merge((*self._have, (piece.start, piece.pos)))

    def reset(self, size: int | None) -> None:
        """Nothing is here any more."""
        self.size, self._have = size, ()
