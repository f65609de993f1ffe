"""Which bytes are here, which are on their way, which are fetched next: never one lost, never one twice."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tasks.transfer.ranges import UNKNOWN_END, Piece, RangeTracker, Span, count, merge, parse_spans

MODEL = 40_000_000_000  # bytes of a large one


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        pytest.param([], (), id="none"),
        pytest.param([(3, 3)], (), id="an empty one is none"),
        pytest.param([(0, 3), (3, 5)], ((0, 5),), id="they touch"),
        pytest.param([(0, 3), (4, 5)], ((0, 3), (4, 5)), id="a byte is between them"),
        pytest.param([(4, 9), (0, 6)], ((0, 9),), id="they overlap, the later one first"),
        pytest.param([(0, 9), (2, 4)], ((0, 9),), id="one inside another"),
        pytest.param([(0, 9), (0, 9)], ((0, 9),), id="the same twice"),
        pytest.param([(0, MODEL), (MODEL, MODEL + 1)], ((0, MODEL + 1),), id="large ones"),
    ],
)
def test_merge(spans: list[Span], merged: tuple[Span, ...]) -> None:
    """Sorted, with gaps between them, and counted once."""
    assert merge(spans) == merged
    assert count(merge(spans)) == sum(end - first for first, end in merged)


# ---- the journal (R18, R20): what was written is read back, and nothing else is


@st.composite
def _journals(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    most = draw(st.integers(0, 50))
    first = st.integers(0, most)
    pairs = draw(st.lists(st.tuples(first, first).map(sorted), max_size=6))
    return [pair for pair in pairs if pair[0] < pair[1]], most


@given(_journals())
def test_a_journal_is_read_back(journal: tuple[list[list[int]], int]) -> None:
    """R18: in any order, overlapping or not, up to the last byte there is."""
    spans, most = journal
    parsed = parse_spans(json.loads(json.dumps(spans)), most)
    assert parsed == merge((first, end) for first, end in spans)
    assert _bytes(parsed) == {b for first, end in spans for b in range(first, end)}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([[-1, 5]], id="from below 0"),
        pytest.param([[-5, -2]], id="all below 0"),
        pytest.param([[-5, -7]], id="below 0 and backwards"),
        pytest.param([[5, 3]], id="backwards"),
        pytest.param([[0, 4], [9, 7]], id="backwards behind a good one"),
        pytest.param([[0, 101]], id="a byte more than the file has"),
        pytest.param([[0, 3], [100, 101]], id="the byte behind the last"),
        pytest.param([[0, 10**30]], id="far too large"),
        pytest.param([["0", "3"]], id="numbers as text"),
        pytest.param(["03"], id="text of two digits"),
        pytest.param([["a", "b"]], id="words"),
        pytest.param([[0.5, 2.7]], id="fractions of a byte"),
        pytest.param([[0, float("inf")]], id="without end"),
        pytest.param([[0, float("nan")]], id="no number"),
        pytest.param([[False, True]], id="false and true"),
        pytest.param([[None, 3]], id="null"),
        pytest.param([[[0], 3]], id="nested"),
        pytest.param([[[0, 3]]], id="nested deeper"),
        pytest.param([[0]], id="one number"),
        pytest.param([[0, 3, 5]], id="three numbers"),
        pytest.param([3], id="a number"),
        pytest.param({"03": 1}, id="an object"),
        pytest.param([{"0": 1, "3": 1}], id="an object as span"),
        pytest.param("03", id="text"),
        pytest.param(None, id="nothing"),
        pytest.param(7, id="one number alone"),
    ],
)
def test_no_spans(data: Any) -> None:
    """R20: a damaged journal claims nothing; these are the errors its reader knows."""
    with pytest.raises((ValueError, TypeError)):
        parse_spans(data, 100)


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 60) | st.floats() | st.text("0123-e", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("01", max_size=2), inner, max_size=2),
    max_leaves=8,
)


_ENDS = st.integers(-3, 60) | st.floats() | st.booleans() | st.none() | st.text("0123", max_size=2)


@given(_JUNK | st.lists(st.lists(_ENDS, min_size=2, max_size=2), max_size=3), st.integers(0, 50))
def test_whatever_stands_in_a_journal(data: Any, most: int) -> None:
    """Spans inside the file, or one of the errors that its reader knows."""
    try:
        spans = parse_spans(data, most)
    except (ValueError, TypeError):
        return
    assert spans == merge(spans)
    assert all(0 <= first < end <= most for first, end in spans)


# ---- the plan, by example


def plan(size: int | None, *have: Span) -> RangeTracker:
    return RangeTracker(size, have)


@pytest.mark.parametrize(
    ("made", "most", "piece"),
    [
        pytest.param(plan(100), 30, (0, 30), id="from the beginning"),
        pytest.param(plan(100), 100, (0, 100), id="all of it"),
        pytest.param(plan(100), UNKNOWN_END, (0, 100), id="no more than there is"),
        pytest.param(plan(100, (0, 40)), 30, (40, 70), id="behind what is here"),
        pytest.param(plan(100, (40, 60)), 70, (0, 40), id="up to what is here"),
        pytest.param(plan(100, (0, 20), (30, 40)), 5, (20, 25), id="the lowest gap first"),
        pytest.param(plan(100, (0, 100)), 30, None, id="everything is here"),
        pytest.param(plan(0), 30, None, id="an empty file"),
        pytest.param(plan(1), 30, (0, 1), id="one byte"),
        pytest.param(plan(None), 30, (0, 30), id="nobody knows the size"),
        pytest.param(plan(None), UNKNOWN_END, (0, UNKNOWN_END), id="nobody knows it, all there is"),
        pytest.param(
            plan(None, (0, 9)), UNKNOWN_END, (9, UNKNOWN_END + 9), id="the same behind what is here"
        ),
        pytest.param(plan(MODEL, (0, MODEL - 1)), 30, (MODEL - 1, MODEL), id="the last byte of 40 GB"),
    ],
)
def test_take(made: RangeTracker, most: int, piece: Span | None) -> None:
    """R18: what is fetched next is the lowest that is missing."""
    assert made.has_gap == (piece is not None)
    got = made.next_piece(most)
    if piece is None:
        assert got is None
        return
    assert got is not None
    assert got.start == got.pos == piece[0]
    assert got.end == got.limit == min(piece[1], UNKNOWN_END)
    assert got in made.active


@pytest.mark.parametrize(
    ("made", "done", "edge", "complete"),
    [
        pytest.param(plan(100), 0, 0, False, id="nothing"),
        pytest.param(plan(100, (0, 99)), 99, 99, False, id="all but the last byte"),
        pytest.param(plan(100, (1, 100)), 99, 0, False, id="all but the first byte"),
        pytest.param(plan(100, (0, 40), (41, 100)), 99, 40, False, id="all but one in the midst"),
        pytest.param(plan(100, (0, 40), (40, 100)), 100, 100, True, id="everything, in two"),
        pytest.param(plan(0), 0, 0, True, id="an empty file is whole"),
        pytest.param(plan(1), 0, 0, False, id="one byte is missing"),
        pytest.param(plan(1, (0, 1)), 1, 1, True, id="one byte is here"),
        pytest.param(plan(None), 0, 0, False, id="nobody knows the size"),
        pytest.param(plan(None, (0, 7)), 7, 7, False, id="nobody knows whether that is all"),
        pytest.param(plan(MODEL, (0, MODEL - 1)), MODEL - 1, MODEL - 1, False, id="40 GB but for a byte"),
        pytest.param(plan(MODEL, (0, MODEL)), MODEL, MODEL, True, id="40 GB"),
    ],
)
def test_how_far(made: RangeTracker, done: int, edge: int, complete: bool) -> None:
    """R20: whole is only what has every byte."""
    assert (made.done, made.contiguous_end(0), made.is_complete) == (done, edge, complete)


@pytest.mark.parametrize(
    ("at", "edge"),
    [
        pytest.param(0, 10, id="the beginning"),
        pytest.param(9, 10, id="the last byte of a span"),
        pytest.param(10, 10, id="a byte that is missing"),
        pytest.param(25, 40, id="of a piece on its way: what has come"),
        pytest.param(50, 50, id="of a piece on its way: what has not"),
    ],
)
def test_edge(at: int, edge: int) -> None:
    """How far the digest may read."""
    made = plan(100, (0, 10), (20, 30))
    made.next_piece(10)
    piece = made.next_piece(60)
    assert piece is not None
    piece.pos = 40
    assert made.contiguous_end(at) == edge


def taken(made: RangeTracker, most: int) -> Piece:
    piece = made.next_piece(most)
    assert piece is not None
    return piece


@pytest.mark.parametrize(
    ("size", "have", "limit", "most", "end"),
    [
        pytest.param(100, [], 100, 30, 40, id="the answer goes on, and so does the piece"),
        pytest.param(100, [], 100, UNKNOWN_END, 100, id="to the end of the file"),
        pytest.param(100, [], 25, 30, 25, id="to the end of the answer"),
        pytest.param(100, [], 10, 30, None, id="the answer ends here"),
        pytest.param(100, [(20, 30)], 100, 30, 20, id="up to what is here"),
        pytest.param(100, [(10, 30)], 100, 30, None, id="what follows is here"),
        pytest.param(10, [], 10, 30, None, id="nothing follows"),
        pytest.param(None, [], UNKNOWN_END, 30, 40, id="nobody knows the size"),
    ],
)
def test_extend(size: int | None, have: list[Span], limit: int, most: int, end: int | None) -> None:
    """A piece of ten bytes goes on with the same answer where nobody else fetches."""
    made = plan(size, *have)
    piece = taken(made, 10)
    piece.pos, piece.limit = 10, limit
    assert made.extend(piece, most) is (end is not None)
    assert (piece.start, piece.pos, piece.end) == (0, 10, end or 10)


def test_what_another_lane_fetches_is_not_extended_into() -> None:
    """Two connections never ask for the same bytes."""
    made = plan(100)
    first, second = taken(made, 10), taken(made, 10)
    first.pos, first.limit = 10, 100
    assert not made.extend(first, 10)
    made.finish(second)
    assert made.extend(first, 10)
    assert first.end == 20


def test_the_rest_of_a_slow_lane() -> None:
    """An idle connection takes what a busy one gives up; bytes that come twice count once."""
    made = plan(100)
    slow = taken(made, 100)
    slow.pos, slow.end = 10, 50
    assert slow.left == 40
    quick = taken(made, 100)
    assert (quick.start, quick.end) == (50, 100)
    slow.pos = 60  # it was reading when its end was moved
    assert slow.left == 0
    quick.pos = 70
    assert (made.done, made.spans()) == (70, ((0, 70),))
    made.finish(slow)
    made.finish(quick)
    assert taken(made, 100).start == 70


def test_a_lane_beyond_its_moved_end() -> None:
    """What it read of the buffer it had begun is here, and is not fetched again."""
    made = plan(100)
    slow = taken(made, 100)
    slow.pos, slow.end = 10, 50
    slow.pos = 60
    assert taken(made, 100).start == 60


def test_what_a_piece_did_not_bring_is_fetched_again() -> None:
    """R18: a connection that breaks costs what had not come, and no more."""
    made = plan(100)
    broken, other = taken(made, 40), taken(made, 40)
    broken.pos = 15
    made.finish(broken)
    again = taken(made, 40)
    assert (again.start, again.end) == (15, 40)
    made.finish(again)
    made.finish(other)
    assert (made.spans(), made.active) == (((0, 15),), [])


def test_reset() -> None:
    """Nothing is here any more, and the size may be another one."""
    made = plan(100, (0, 40))
    made.reset(7)
    assert (made.size, made.done, made.spans()) == (7, 0, ())
    assert taken(made, UNKNOWN_END).end == 7


# ---- the plan, by any sequence of steps


def _bytes(spans: tuple[Span, ...]) -> set[int]:
    return {b for first, end in spans for b in range(first, end)}


class Connections(RuleBasedStateMachine):
    """Connections over one small file; `here` is what they wrote, byte for byte."""

    pieces = Bundle("pieces")

    @initialize(
        size=st.none() | st.sampled_from([0, 1, 2]) | st.integers(3, 60),
        have=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4),
    )
    def begin(self, size: int | None, have: list[Span]) -> None:
        self.size = size
        self.end = UNKNOWN_END if size is None else size
        have = [(a, b) for a, b in have if a < b <= self.end]
        self.tracker = RangeTracker(size, have)
        self.here = _bytes(tuple(have))
        self.reach: dict[Piece, int] = {}  # how far a connection may still write although its end was moved

    def coming(self, but: Piece | None = None) -> set[int]:
        """What connections are about to write."""
        ends = ((p.start, min(max(p.pos, p.end), 200)) for p in self.tracker.active if p is not but)
        return _bytes(tuple(ends))

    def lowest(self, start: int) -> int:
        """The first byte from `start` on that is neither here nor on its way."""
        known = self.here | self.coming()
        return next((b for b in range(start, 201) if b not in known), 200)

    @rule(target=pieces, most=st.integers(1, 80) | st.just(UNKNOWN_END))
    def take(self, most: int) -> Any:
        """The lowest gap, whole or as much as is asked for."""
        first = self.lowest(0)
        most = UNKNOWN_END if first >= 120 else most  # what lies far behind is nobody's but one piece's
        known = self.here | self.coming()
        expects = first < min(self.end, 200)
        assert self.tracker.has_gap == (expects or self.gap_beyond())
        piece = self.tracker.next_piece(most)
        if piece is None:
            assert not expects
            return Piece(0, 0)
        if piece.start >= 200:
            return Piece(0, 0)
        assert piece.start == piece.pos == first
        assert piece.start < piece.end == piece.limit <= self.end
        assert not known & set(range(piece.start, min(piece.end, 200)))
        others = [p.start for p in self.tracker.active if first < p.start < max(p.pos, p.end)]
        behind = min([*others, *(b for b in self.here if b > first)], default=self.end)
        assert piece.end == min(behind, self.end, first + most)
        self.reach[piece] = piece.end
        return piece

    def gap_beyond(self) -> bool:
        """A file without an end has gaps beyond the bytes that this test follows."""
        return self.size is None and all(p.end < UNKNOWN_END for p in self.tracker.active)

    @rule(piece=pieces, steps=st.integers(1, 30))
    def advance(self, piece: Piece, steps: int) -> None:
        """A connection writes; a buffer it had begun to read may go beyond an end that was moved."""
        if piece not in self.tracker.active:
            return
        pos = min(piece.pos + steps, self.reach[piece], 130)
        self.here |= set(range(piece.pos, pos))
        piece.pos = max(piece.pos, pos)

    @rule(piece=pieces, at=st.integers(0, 60))
    def shrink(self, piece: Piece, at: int) -> None:
        """Another connection is to have the rest."""
        if piece in self.tracker.active and piece.pos < piece.end and piece.start < 120:
            piece.end = min(piece.pos + at, piece.end)

    @rule(piece=pieces, limit=st.integers(0, 80), most=st.integers(1, 40) | st.just(UNKNOWN_END))
    def extend(self, piece: Piece, limit: int, most: int) -> None:
        """A piece goes on where its answer does and nobody else fetches."""
        if piece not in self.tracker.active or piece.end >= 150:
            return
        piece.limit = max(piece.end, min(piece.start + limit, self.end))
        before, known = piece.end, self.here | self.coming()
        free = piece.end < self.end and piece.end not in known and piece.pos <= piece.end
        extended = self.tracker.extend(piece, most)
        if piece.start < before:  # one that was cut to nothing may end instead
            assert extended == (free and before < piece.limit)
        assert not extended or free
        assert before <= piece.end <= max(before, min(piece.limit, before + most))
        assert (piece.end > before) == extended
        assert not known & set(range(before, min(piece.end, 200)))
        self.reach[piece] = max(self.reach[piece], piece.end)

    @rule(piece=consumes(pieces))
    def finish(self, piece: Piece) -> None:
        """A connection ends, or its connection breaks: what it wrote stays, the rest is free again."""
        if piece not in self.tracker.active:
            return
        self.tracker.finish(piece)
        assert piece not in self.tracker.active

    @invariant()
    def no_byte_is_lost(self) -> None:
        """What is claimed is what was written, neither more nor less (R20)."""
        spans = self.tracker.spans()
        assert _bytes(spans) == self.here
        assert spans == merge(spans)
        assert all(end < first for (_, end), (first, _) in pairwise(spans))
        assert self.tracker.done == len(self.here)

    @invariant()
    def the_edge_is_right(self) -> None:
        """The digest reads what is here, and stops where it is not."""
        missing = next(b for b in range(201) if b not in self.here)
        assert self.tracker.contiguous_end(0) == missing
        assert self.tracker.contiguous_end(missing) == missing
        whole = self.size is not None and self.here >= set(range(self.size))
        assert self.tracker.is_complete == whole

    @invariant()
    def every_byte_is_somebodys(self) -> None:
        """Here, on its way, or free to be taken: that is all there is."""
        known = self.here | self.coming()
        if self.size is not None:
            assert self.tracker.has_gap == (not known >= set(range(self.size)))
            assert max(known, default=0) < max(1, self.size)


TestAnySequence = pytest.mark.once(Connections.TestCase)
TestAnySequence.settings = settings(max_examples=50, stateful_step_count=30)
