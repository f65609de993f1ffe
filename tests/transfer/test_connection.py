"""One connection and its digest: bytes of before a restart count for nothing after it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.network.response import Action
from tasks.transfer.connection import Connection
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import Piece

from tests.support.world import DATA, OTHER, SIZE, until, wanted


class Bytes:
    """A body with these bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read_into(self, view: memoryview) -> int:
        part = self._data[self._at : self._at + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)


class Gate:
    """A connection's write lock that calls `then` when released: the block is written, but not hashed yet."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._lock, self._then = threading.Lock(), then

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._then()


def whole(partial: Partial) -> Piece:
    """The piece that is everything."""
    with partial.changed:
        piece = partial.tracker.next_piece(SIZE)
    assert piece
    return piece


def test_an_old_block_does_not_reach_a_new_digest(tmp_path: Path) -> None:
    """R20, R21: wrong bytes are dropped after a connection wrote a block and before it was hashed.

    The block is not hashed together with the right bytes, which come to the same place.
    """

    def dropped() -> None:  # what Source and _Run do about wrong bytes, from another thread
        late.stopped = True
        with partial.changed:
            partial.tracker.finish(piece)
        partial.restart()

    with Partial(wanted(tmp_path)) as partial:
        gate: Any = Gate(dropped)
        late = Connection(partial, None, time.monotonic, last_received_at=time.monotonic(), write_lock=gate)
        piece, body = whole(partial), Bytes(OTHER)
        decision = late.read(piece, body, lambda _: False, skip=0, unlimited=False)  # type: ignore[arg-type]
        assert decision.action is Action.RETRY
        assert (late.received > 0, partial.restarts, partial.done) == (True, 1, 0)
        again = whole(partial)
        partial.write(0, memoryview(DATA))  # and not offered: a later offer would hide an earlier one
        again.pos = SIZE
        until(lambda: partial.hasher.wait(SIZE, 0.1), "everything is hashed")
        assert partial.hasher.hexdigest() == hashlib.sha256(DATA).hexdigest()
