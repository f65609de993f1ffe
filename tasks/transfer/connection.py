"""One connection of a download: a body's bytes go to their place in the partial file, and to its digest.

Decides nothing about what comes next: it says in a Verdict how the body ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tasks.network import response
from tasks.network.http import Body
from tasks.network.response import Verdict, Word
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import Piece
from tasks.transfer.streaming_hash import BLOCK, Frontier

SLOW_S = 30.0  # a connection that brings less than SLOW_BYTES in this time is replaced (R27)
SLOW_BYTES = 64 * 1024
SHARE_LEAST = 1024**2  # bytes; less is not worth a request. More than BLOCK, so that no read is cut off
READ_LEAST = 16 * 1024  # bytes asked of a socket at once: few at first, then as many as come in READ_S,
READ_S = 0.05  # because an error loses what had come of them


@dataclass(eq=False)
class Lane:
    """One connection, used by one thread."""

    partial: Partial
    session: Any
    clock: Callable[[], float]
    heard: float  # when something came last
    gate: threading.Lock = field(default_factory=threading.Lock)  # held while it writes
    stopped: bool = False  # it may write no more; set while the gate is held
    piece: Piece | None = None
    since: float = 0.0  # when its piece was begun
    last: int = 0  # bytes of its last piece,
    rate: float = 0.0  # and how many of them a second
    link: str = ""  # the link it asked at
    received: int = 0  # bytes, in its whole life
    mark: int = 0  # the same, when it was last compared with the others
    failures: int = 0  # attempts in a row that brought nothing
    replace: bool = False  # it is much slower than the others
    at_once: int = READ_LEAST
    skipping: bool = False  # it reads what is here already, because the server knows no ranges

    def cut(self) -> None:
        """Give away the second half of what is left of the piece; hold the gate."""
        if self.piece is not None and self.piece.left >= 2 * SHARE_LEAST:
            self.piece.end = self.piece.pos + self.piece.left // 2

    def read(
        self, piece: Piece, body: Body, goes_further: Callable[[Piece], bool], skip: int, unlimited: bool
    ) -> Verdict:
        """Read a body to the end of the piece; DONE when it is here.

        Args:
            goes_further: extends a piece that is here, if it can be.
            skip: bytes before the piece's, which are here already.
            unlimited: nothing says how long the body is.

        Raises:
            TransferError: the connection broke.
            OSError: the file cannot be written.
        """
        mark, brought, self.at_once = self.clock(), self.received, READ_LEAST
        while piece.left or goes_further(piece):
            frontier = (
                self.partial.frontier
            )  # after a restart it is another one, which must not get old bytes
            buffer = frontier.buffer()
            got = self._fill(body, buffer[: min(self.at_once, skip or piece.left)])
            if not got:
                return self._ended(piece, unlimited)
            self.skipping = skip > got
            if skip:
                skip -= got
            elif piece.pos == 0 and response.is_web_page(bytes(buffer[: min(got, 512)])):
                return response.web_page()
            elif unlimited and piece.pos + got == self.partial.plan.size and body.has_more():
                return Verdict(Word.RETRY, f"more than the {self.partial.plan.size} bytes it should have")
            else:
                self._write(piece, buffer, got, frontier)
            if self.replace or self.stopped:
                return Verdict(Word.RETRY, "a connection much slower than the others")
            if self.heard - mark >= SLOW_S:
                if self.received - brought < SLOW_BYTES:
                    return Verdict(Word.RETRY, f"a connection that brings almost nothing for {SLOW_S:.0f} s")
                mark, brought = self.heard, self.received
        return Verdict(Word.DONE)

    def _fill(self, body: Body, view: memoryview) -> int:
        start = self.clock()
        got = body.read_into(view)
        self.heard = self.clock()
        self.received += got
        if got == self.at_once and self.heard - start < READ_S:
            self.at_once = min(BLOCK, 2 * self.at_once)
        elif self.heard - start > 4 * READ_S:
            self.at_once = max(READ_LEAST, self.at_once // 2)
        return got

    def _write(self, piece: Piece, buffer: memoryview, got: int, frontier: Frontier) -> None:
        with self.gate:
            offset, got = piece.pos, min(got, piece.left)  # the rest may be another lane's by now
            if self.stopped or not got:
                return
            self.partial.write(offset, buffer[:got])
            piece.pos += got
        frontier.offer(offset, buffer, got)

    def _ended(self, piece: Piece, unlimited: bool) -> Verdict:
        """The body is over: as announced, as the end of the file, or too early."""
        with self.partial.changed:
            if unlimited and self.partial.plan.size is None:
                self.partial.expect(piece.pos)
            if piece.pos >= min(piece.end, piece.limit) or self.partial.plan.is_complete:
                return Verdict(Word.DONE)
        return Verdict(Word.RETRY, "the connection ended before the file did")
