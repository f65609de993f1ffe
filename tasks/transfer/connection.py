"""Read response bodies over one connection, into the partial file and its digest.

A connection decides nothing about the next request: it returns how the body ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tasks.network import content, response
from tasks.network.http import Body
from tasks.network.response import Action, Decision
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import Piece
from tasks.transfer.streaming_hash import BLOCK, StreamingHasher

# a connection that receives less than SLOW_BYTES in SLOW_S seconds is replaced (R27)
SLOW_S = 30.0
SLOW_BYTES = 64 * 1024
# bytes; a smaller share is not worth a request. More than BLOCK, so that no read is cut
SHARE_LEAST = 1024**2
# bytes of one read: few at first, then as many as arrive in READ_S seconds, because an
# error loses the bytes of the read that it interrupts
READ_LEAST = 16 * 1024
READ_S = 0.05


@dataclass(eq=False)
class Connection:
    """One connection, used by one thread.

    Attributes:
        last_received_at: when data arrived last, in monotonic seconds.
        write_lock: held while it writes.
        stopped: whether it must not write again; set while the write lock is held.
        since: when its piece was started.
        last: bytes of its last piece.
        rate: bytes a second of its last piece.
        link: the link that it has requested, "" for the origin.
        received: bytes in total.
        mark: `received` when it was last compared with the others.
        failures: attempts in a row without data.
        replace: whether it must reconnect, because it is much slower than the others.
        at_once: bytes of the next read.
        skipping: whether it reads bytes that exist, as the server ignores ranges.
    """

    partial: Partial
    session: Any
    clock: Callable[[], float]
    last_received_at: float
    write_lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False
    piece: Piece | None = None
    since: float = 0.0
    last: int = 0
    rate: float = 0.0
    link: str = ""
    received: int = 0
    mark: int = 0
    failures: int = 0
    replace: bool = False
    at_once: int = READ_LEAST
    skipping: bool = False
    # clock and `received` when its speed was last checked
    _checked: tuple[float, int] = (0.0, 0)

    def split(self) -> None:
        """Release the second half of what is left of the piece.

        The caller holds the write lock.
        """
        if self.piece is not None and self.piece.left >= 2 * SHARE_LEAST:
            self.piece.end = self.piece.pos + self.piece.left // 2

    def read(
        self,
        piece: Piece,
        body: Body,
        goes_further: Callable[[Piece], bool],
        skip: int,
        unlimited: bool,
        is_page: Callable[[bytes], bool] = content.is_web_page,
    ) -> Decision:
        """Read a body to the end of the piece, and return how it ended.

        Args:
            goes_further: extends a complete piece; false where that is impossible.
            skip: bytes of the body before the piece, which are in the file already.
            unlimited: whether the length of the body is unknown.
            is_page: whether the first bytes of a body that is the whole file, or begins
                as it does, belong to a web page.

        Raises:
            TransferError: the connection broke.
            OSError: the file cannot be written.
        """
        self._checked = (self.clock(), self.received)
        self.at_once = READ_LEAST
        is_first = skip > 0 or piece.pos == 0
        while piece.left or goes_further(piece):
            # before the read: a restart replaces it, and the new one must not get
            # bytes from before the restart
            hasher = self.partial.hasher
            buffer = hasher.buffer()
            got = self._fill(body, buffer[: min(self.at_once, skip or piece.left)])
            if not got:
                return self._ended(piece, unlimited)
            self.skipping = skip > got
            if is_first and is_page(bytes(buffer[: min(got, content.HEAD_BYTES)])):
                return response.web_page()
            is_first = False
            if skip:
                skip -= got
            elif unlimited and self._is_too_long(piece.pos + got, body):
                size = self.partial.tracker.size
                return Decision(Action.RETRY, f"more than the expected {size} bytes")
            else:
                self._write(piece, buffer, got, hasher)
            if reason := self._reason_to_stop():
                return Decision(Action.RETRY, reason)
        return Decision(Action.DONE)

    def _is_too_long(self, end: int, body: Body) -> bool:
        """Return whether a body of unknown length goes on after the file's end."""
        return end == self.partial.tracker.size and body.has_more()

    def _reason_to_stop(self) -> str:
        """Return why the connection is too slow, or an empty string."""
        if self.replace or self.stopped:
            return "a connection much slower than the others"
        checked_at, received_before = self._checked
        if self.last_received_at - checked_at < SLOW_S:
            return ""
        if self.received - received_before < SLOW_BYTES:
            return f"almost no data for {SLOW_S:.0f} s"
        self._checked = (self.last_received_at, self.received)
        return ""

    def _fill(self, body: Body, view: memoryview) -> int:
        start = self.clock()
        got = body.read_into(view)
        self.last_received_at = self.clock()
        self.received += got
        if got == self.at_once and self.last_received_at - start < READ_S:
            self.at_once = min(BLOCK, 2 * self.at_once)
        elif self.last_received_at - start > 4 * READ_S:
            self.at_once = max(READ_LEAST, self.at_once // 2)
        return got

    def _write(
        self, piece: Piece, buffer: memoryview, got: int, hasher: StreamingHasher
    ) -> None:
        with self.write_lock:
            offset = piece.pos
            got = min(got, piece.left)  # another connection may have taken the rest
            if self.stopped or not got:
                return
            self.partial.write(offset, buffer[:got])
            piece.pos += got
        hasher.submit(offset, buffer, got)

    def _ended(self, piece: Piece, unlimited: bool) -> Decision:
        """Return how a body ended: as announced, with the file, or too early."""
        with self.partial.changed:
            if unlimited and self.partial.tracker.size is None:
                self.partial.set_size(piece.pos)
            if (
                piece.pos >= min(piece.end, piece.limit)
                or self.partial.tracker.is_complete
            ):
                return Decision(Action.DONE)
        return Decision(Action.RETRY, "the connection ended before the file did")
