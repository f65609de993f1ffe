"""The digest that follows the download: of exactly these bytes, in whatever order they come."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.transfer import streaming_hash
from tasks.transfer.ranges import merge
from tasks.transfer.streaming_hash import BLOCK, WINDOW, StreamingHasher

from tests.support.world import until

SIZE = 50_000
DATA = hashlib.shake_128(b"frontier").digest(SIZE)


class Memory:
    """A file of which spans have been written, and how often it was read back."""

    def __init__(self, size: int = SIZE) -> None:
        self.bytes = bytearray(size)
        self.spans: tuple[tuple[int, int], ...] = ()
        self.read: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def put(self, offset: int, data: bytes | memoryview) -> None:
        with self._lock:
            self.bytes[offset : offset + len(data)] = data
            self.spans = merge((*self.spans, (offset, offset + len(data))))

    def edge(self, at: int) -> int:
        with self._lock:
            return next((end for first, end in self.spans if first <= at < end), at)

    def read_into(self, offset: int, view: memoryview) -> int:
        with self._lock:
            got = self.bytes[offset : offset + len(view)]
            view[: len(got)] = got
            self.read.append((offset, len(got)))
            return len(got)


@contextmanager
def following(memory: Memory) -> Iterator[StreamingHasher]:
    thread = StreamingHasher(memory.edge, memory.read_into)
    thread.start()
    try:
        yield thread
    finally:
        thread.close()
        assert not thread.is_alive()


def wait(thread: StreamingHasher, size: int) -> str:
    """The digest, once so many bytes are hashed."""
    until(lambda: thread.wait(size, 0.1), f"{size} bytes hashed")
    return thread.hexdigest()


def give(thread: StreamingHasher, memory: Memory, offset: int, data: bytes, offered: bool = True) -> None:
    """What a connection does with a block."""
    buffer = thread.buffer()
    buffer[: len(data)] = data
    memory.put(offset, buffer[: len(data)])
    if offered:
        thread.submit(offset, buffer, len(data))


cuts = st.lists(st.integers(1, SIZE - 1), max_size=30, unique=True)


@settings(max_examples=75)
@given(cuts=cuts, order=st.randoms(use_true_random=False), offered=st.sampled_from(["all", "none", "some"]))
def test_any_order_of_blocks(cuts: list[int], order: object, offered: str) -> None:
    """R21: written and offered, or only written; the digest is hashlib's."""
    edges = [0, *sorted(cuts), SIZE]
    blocks = list(itertools.pairwise(edges))
    order.shuffle(blocks)  # type: ignore[attr-defined]
    memory = Memory()
    with following(memory) as thread:
        for number, (first, end) in enumerate(blocks):
            is_offered = offered == "all" or (offered == "some" and number % 2 == 0)
            give(thread, memory, first, DATA[first:end], is_offered)
        assert wait(thread, SIZE) == hashlib.sha256(DATA).hexdigest()
        assert thread.at == SIZE


@settings(max_examples=50)
@given(first=st.integers(0, SIZE), cuts=cuts, seed=st.integers(0, 9))
def test_two_threads_offer(first: int, cuts: list[int], seed: int) -> None:
    """R21: connections at two places, the first bytes were here before."""
    memory = Memory()
    memory.put(0, DATA[:first])
    middle = (first + SIZE) // 2
    with following(memory) as thread:

        def connection(start: int, end: int) -> None:
            edges = [start, *(c for c in sorted(cuts) if start < c < end), end]
            for a, b in itertools.pairwise(edges):
                give(thread, memory, a, DATA[a:b])

        threads = [threading.Thread(target=connection, args=s) for s in ((first, middle), (middle, SIZE))]
        for one in threads[:: 1 if seed % 2 else -1]:
            one.start()
        for one in threads:
            one.join()
        assert wait(thread, SIZE) == hashlib.sha256(DATA).hexdigest()


def test_blocks_that_overlap(  # a connection that fell silent speaks again beside the one that took its rest
) -> None:
    """R21: the same bytes twice are hashed once."""
    memory = Memory()
    with following(memory) as thread:
        give(thread, memory, 1000, DATA[1000:3000])
        give(thread, memory, 2000, DATA[2000:5000])
        give(thread, memory, 500, DATA[500:2500])
        give(thread, memory, 0, DATA[:1500])
        give(thread, memory, 1200, DATA[1200:5000])
        give(thread, memory, 5000, DATA[5000:])
        assert wait(thread, SIZE) == hashlib.sha256(DATA).hexdigest()


def test_what_was_here_is_read_back_and_what_comes_is_not() -> None:
    """R18: a prefix is read; blocks in order are hashed from memory."""
    memory = Memory()
    memory.put(0, DATA[:30_000])
    with following(memory) as thread:
        wait(thread, 30_000)
        assert sum(length for _, length in memory.read) == 30_000
        memory.read.clear()
        for first in range(30_000, SIZE, 1000):
            buffer = thread.buffer()
            buffer[:1000] = DATA[first : first + 1000]
            thread.submit(first, buffer, 1000)  # before the file has it: no one can have read it back
            wait(thread, first + 1000)
        assert memory.read == []
        assert thread.hexdigest() == hashlib.sha256(DATA).hexdigest()


def test_memory_is_bounded() -> None:
    """R22: connections far ahead of the digest keep no bytes in memory; the buffers go round."""
    memory = Memory(0)
    with following(memory) as thread:
        for number in range(1, 4 * WINDOW // BLOCK):
            thread.submit(number * BLOCK, thread.buffer(), BLOCK)
        assert len(thread._fresh) * BLOCK <= WINDOW
        assert len(thread._spare) <= 2 * WINDOW // BLOCK


def test_small_blocks_do_not_fill_more_memory() -> None:
    """R22: a block of one byte holds a whole buffer."""
    memory = Memory(0)
    with following(memory) as thread:
        for number in range(1, 1000):
            thread.submit(number, thread.buffer(), 1)
        assert len(thread._fresh) * BLOCK <= WINDOW


def test_a_buffer_belongs_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """R20: no buffer is given out while it waits to be hashed."""
    memory = Memory()
    with following(memory) as thread:
        held = list[object]()
        for first in range(1000, SIZE, 1000):
            buffer = thread.buffer()
            assert not any(buffer.obj is other for other in held)
            buffer[:1000] = DATA[first : first + 1000]
            memory.put(first, buffer[:1000])
            thread.submit(first, buffer, 1000)
            held = [view.obj for view in thread._fresh.values()]
        give(thread, memory, 0, DATA[:1000])
        assert wait(thread, SIZE) == hashlib.sha256(DATA).hexdigest()


def test_a_file_that_is_shorter_than_the_claim() -> None:
    """R20: an error with a place, for whoever waits; and the thread is over."""
    memory = Memory(1000)
    memory.spans = ((0, 2000),)
    with following(memory) as thread:
        with pytest.raises(OSError, match="the file ends at 1000, expected at least 2000"):
            wait(thread, 2000)
        with pytest.raises(OSError, match="ends at 1000"):  # asked again, the same
            thread.wait(2000, 0)


def test_a_file_that_cannot_be_read() -> None:
    """R19: the system's error comes out where it is waited for, at once."""

    def broken(offset: int, view: memoryview) -> int:
        raise OSError(5, "Input/output error")

    memory = Memory()
    thread = StreamingHasher(memory.edge, broken)
    thread.start()
    memory.put(0, DATA)
    with pytest.raises(OSError, match="Input/output error"):
        thread.wait(SIZE, 10)
    thread.close()


def test_end_while_it_waits() -> None:
    """R14: an interrupted download does not hang on its digest."""
    memory = Memory()
    with following(memory) as thread:
        give(thread, memory, 10, DATA[10:20])
        assert not thread.wait(1, 0.01)
    assert not thread.wait(1, 0.01)


def test_end_before_everything_is_hashed() -> None:
    """R14: it stops after the block it is at."""
    going = threading.Event()

    def slowly(offset: int, view: memoryview) -> int:
        going.set()
        view[:10] = DATA[:10]
        return 10

    thread = StreamingHasher(lambda at: 10**9, slowly)
    thread.start()
    assert going.wait(60)
    thread.close()
    assert 0 < thread.at < 10**9


def test_nothing_is_a_digest_too() -> None:
    """R21: an empty file has one."""
    with following(Memory(0)) as thread:
        assert thread.wait(0, 1)
        assert thread.hexdigest() == hashlib.sha256(b"").hexdigest()


def test_constants_fit() -> None:
    """Whole blocks wait."""
    assert streaming_hash.WINDOW % streaming_hash.BLOCK == 0
