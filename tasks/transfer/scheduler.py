"""Which bytes a connection fetches next, and which connection shares its piece."""

from __future__ import annotations

from collections.abc import Callable

from tasks.transfer import scaling
from tasks.transfer.connection import SHARE_LEAST, Connection
from tasks.transfer.connection_pool import ConnectionPool
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import UNKNOWN_END, Piece

SHARE_S = 0.4  # a connection that is busy for longer shares the rest of its piece


class PieceScheduler:
    """Hand out the missing pieces of one file until it is complete, failed or stopped.

    Every attribute is guarded by `lock`, which is the partial's `changed`; a
    connection's `write_lock` is only taken while the lock is held, never the other way.

    Attributes:
        error: why the download ended early, None if it did not.
    """

    def __init__(
        self, partial: Partial, pool: ConnectionPool, clock: Callable[[], float]
    ) -> None:
        self.lock = partial.changed
        self.error: BaseException | None = None
        self._partial = partial
        self._tracker = partial.tracker
        self._pool = pool
        self._clock = clock
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        """Whether the file is complete or the download has failed."""
        with self.lock:
            if self._tracker.is_complete:
                return True
            return self.error is not None or self._partial.error is not None

    @property
    def is_stopped(self) -> bool:
        """Whether no connection may continue."""
        with self.lock:
            return self._is_stopped

    def stop(self) -> None:
        """Hand out nothing more, and keep every connection from writing.

        A connection that waits for its socket ends with the next data or with the
        process.
        """
        with self.lock:
            self._is_stopped = True
            connections = list(self._pool.members)
        for connection in connections:
            self.revoke(connection)

    def fail(self, error: BaseException) -> None:
        """End the download with an error."""
        with self.lock:
            self.error = error

    def failure(self) -> BaseException | None:
        """Return why the file is incomplete, None if it is complete."""
        with self.lock:
            if self._tracker.is_complete:
                return None
            return self.error or self._partial.error

    def revoke(self, connection: Connection) -> None:
        """Keep a connection from writing; its piece is fetched by another one."""
        with connection.write_lock:
            connection.stopped = True
        self.put_back(connection)

    def put_back(self, connection: Connection) -> None:
        """Keep what a piece has received, and free the rest of it."""
        with self.lock:
            if connection.piece in self._tracker.active:
                self._tracker.finish(connection.piece)
            connection.piece = None

    def next_piece(self, connection: Connection) -> Piece | None:
        """Return a piece to fetch; None where the connection is no longer needed."""
        now = self._clock()
        with self.lock:
            if self._is_stopped or self.is_over or self._pool.is_surplus(now):
                self._pool.remove(connection)
                return None
            piece = self._tracker.next_piece(self._piece_limit(connection))
            if piece is None:
                piece = self._take_half(connection, now)
            connection.piece = piece
            connection.since = now
            connection.last_received_at = now
            return piece

    def _take_half(self, connection: Connection, now: float) -> Piece | None:
        """Take the second half of what another connection still has to fetch."""
        busiest = self._busiest(now)
        if busiest is None:
            return None
        with busiest.write_lock:
            busiest.split()
        return self._tracker.next_piece(self._piece_limit(connection))

    def extend(self, connection: Connection, piece: Piece) -> bool:
        """Return whether a received piece continues with the same answer."""
        with self.lock:
            if self._pool.is_surplus(connection.last_received_at):
                return False
            return self._tracker.extend(piece, self._piece_limit(connection))

    def has_work(self, now: float) -> bool:
        """Return whether a further connection would get a piece."""
        with self.lock:
            return self._tracker.has_gap or self._busiest(now) is not None

    def _piece_limit(self, connection: Connection) -> int:
        """Return how many bytes one request may ask for."""
        size = self._tracker.size
        if self._pool.is_single or size is None or self._pool.saves_requests:
            return UNKNOWN_END
        missing = size - self._tracker.done
        count = self._pool.count
        return scaling.piece_size(missing, count, connection.last, connection.rate)

    def _busiest(self, now: float) -> Connection | None:
        """Return the connection that should share its piece with an idle one."""
        if self._pool.is_single or self._tracker.size is None:
            return None  # only pinned bytes may come from two answers
        busiest = None
        most_left = 2 * SHARE_LEAST - 1
        for connection in self._pool.members:
            left = _left_for_long(connection, now)
            if left > most_left:
                busiest = connection
                most_left = left
        return busiest


def _left_for_long(connection: Connection, now: float) -> int:
    """Return the missing bytes of a piece that takes longer than SHARE_S, else 0."""
    piece = connection.piece
    if piece is None:
        return 0
    left = piece.left
    rate = (piece.pos - piece.start) / max(now - connection.since, 0.001)
    if 0 < rate * SHARE_S < left:
        return left
    return 0
