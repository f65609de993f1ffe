"""Count the connections of one source, and find those that must be replaced."""

from __future__ import annotations

from tasks.transfer import scaling
from tasks.transfer.connection import Connection
from tasks.transfer.partial import Partial

STALL_S = 4.0  # a connection without data for so long, beside others, is given up


class ConnectionPool:
    """Count and compare the connections of one source.

    Every attribute is guarded by `lock`, which is the partial's `changed`. A caller
    that combines several calls into one decision holds the lock around them.

    Args:
        limit: the most connections that may exist.
        now: monotonic seconds.

    Attributes:
        members: the connections at work.
    """

    def __init__(self, partial: Partial, limit: int, now: float) -> None:
        self.lock = partial.changed
        self.members: list[Connection] = []
        self._scaler = scaling.ConnectionScaler(limit)
        self._is_rate_limited = False
        self._received_before = 0  # bytes of connections that have left
        self._longest_answer_s = 0.0
        self._compared_at = now

    @property
    def count(self) -> int:
        """The number of connections at work."""
        with self.lock:
            return len(self.members)

    @property
    def is_single(self) -> bool:
        """Whether there will never be a second connection."""
        with self.lock:
            return self._scaler.most == 1

    @property
    def have_others_delivered(self) -> bool:
        """Whether connections that have left had received data."""
        with self.lock:
            return self._received_before > 0

    @property
    def saves_requests(self) -> bool:
        """Whether the only connection should make as few requests as possible."""
        with self.lock:
            return self._is_rate_limited and len(self.members) == 1

    def limit(self, most: int) -> None:
        """Lower the number of connections that may exist."""
        with self.lock:
            self._scaler.most = min(self._scaler.most, most)

    def add(self, connection: Connection) -> None:
        """Count a connection that begins."""
        with self.lock:
            self.members.append(connection)

    def remove(self, connection: Connection) -> None:
        """Stop counting a connection, and wake the waiting thread."""
        with self.lock:
            if connection in self.members:
                self.members.remove(connection)
                self._received_before += connection.received
            self.lock.notify_all()

    def wanted(self, now: float) -> int:
        """Return how many connections there should be now."""
        with self.lock:
            received = [connection.received for connection in self.members]
            flowing = sum(count > 0 for count in received)
            total = self._received_before + sum(received)
            return self._scaler.update(now, total, flowing, self._longest_answer_s)

    def is_surplus(self, now: float) -> bool:
        """Return whether more connections deliver data than are wanted.

        Those without data so far, or without recent data, do not count, because they
        may never deliver.
        """
        with self.lock:
            delivering = sum(
                connection.received > 0 and now - connection.last_received_at < STALL_S
                for connection in self.members
            )
            return delivering > max(1, self._scaler.wanted)

    def record_answer(self, waited_s: float) -> None:
        """Record how long a connection waited for an answer."""
        with self.lock:
            self._longest_answer_s = max(self._longest_answer_s, waited_s)

    def record_rate_limit(self) -> None:
        """Record that the server refused a request because there were too many."""
        with self.lock:
            self._is_rate_limited = True

    def on_refused(self, now: float, wait_s: float = 0.0) -> None:
        """Aim at fewer connections, after one of them was refused and has left."""
        with self.lock:
            self._scaler.on_refused(now, len(self.members), wait_s)

    def silent(self, now: float) -> list[Connection]:
        """Return the connections that wait for data for longer than STALL_S."""
        with self.lock:
            return [
                connection
                for connection in self.members
                if connection.piece and now - connection.last_received_at > STALL_S
            ]

    def replace_slow(self, now: float) -> None:
        """Ask slow connections to reconnect: another one may reach a faster edge."""
        with self.lock:
            elapsed_s = now - self._compared_at
            if elapsed_s < scaling.SLOW_LOOK_S:
                return
            self._compared_at = now
            rates = {
                index: (connection.received - connection.mark) / elapsed_s
                for index, connection in enumerate(self.members)
                if connection.mark
            }
            for index in scaling.slow_connections(rates):
                self.members[index].replace = True
            for connection in self.members:
                connection.mark = connection.received
