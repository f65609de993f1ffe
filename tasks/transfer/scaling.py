"""Decide how many connections a download uses, and which of them reconnect.

Pure: time is an argument. Source of the numbers: published measurements of the Hub's
edges (9 or 70 MB/s each; 4 streams are stable, 6 fail within minutes:
huggingface_hub#4893, xet-core#821). So connections are few, and doubled only while the
rate grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from urllib.parse import urlsplit

# bytes; a smaller file uses one connection
SPLIT_FROM = 64 * 1024**2
# bytes of a connection's first piece; each following piece is twice as large,
PIECE = 8 * 1024**2
# but takes at most this many seconds,
PIECE_S = 3.0
# and has between PIECE_LEAST and PIECE_MOST bytes
PIECE_MAX = 256 * 1024**2
PIECE_MIN = 4 * 1024**2
# a doubling must raise the rate by this factor
MIN_SPEEDUP = 1.15
# a rate below this share of the best rate is a collapse
COLLAPSE = 0.5
# not measured: the burst that many servers grant to a new connection
SETTLE_S = 0.05
# the shortest time over which a rate is measured
WINDOW_S = 0.1
# the earliest time at which a doubling is reverted
TRIAL_S = 1.0
# the time over which a collapse is measured
STEADY_S = 3.0
# refusals within this time count once: they concern the same doubling
REFUSALS_S = 1.0
# the pause before more connections are tried after a refusal
REFUSED_PAUSE_S = 20.0
# new connections without data after this time are given up
TRY_S = 5.0
# the pause after a reverted doubling; it doubles each time, up to PROBE_MOST_S
PROBE_FIRST_S = 3.0
PROBE_MOST_S = 60.0
# more connections than there ever are
ENOUGH = 1000
# a connection below this share of the median rate reconnects
SLOW_SHARE = 0.25
# the time over which that is measured
SLOW_LOOK_S = 10.0


def max_connections(url: str, size: int | None) -> int:
    """Return the connection limit of a URL.

    1 for a small file, 4 at the Hub, else 8.
    """
    if size is not None and size < SPLIT_FROM:
        return 1
    host = urlsplit(url).hostname or ""
    if f".{host}".endswith((".hf.co", ".huggingface.co")):
        return 4
    return 8


def piece_size(missing: int, connections: int, last: int, rate: float) -> int:
    """Return the bytes that one connection requests next.

    Pieces grow to save requests, but start small: a large piece delays the digest while
    other connections start. They shrink at the end, so that all connections and the
    digest finish together.

    Args:
        missing: missing bytes of the file.
        connections: those at work.
        last: bytes of the connection's last piece, 0 for a new connection.
        rate: bytes a second of that piece.
    """
    limit = PIECE
    if last:
        limit = min(PIECE_MAX, 2 * last, int(rate * PIECE_S))
    share = missing
    if connections > 1:
        share = missing // (2 * connections)
    return max(PIECE_MIN, min(limit, share))


def slow_connections(rates: Mapping[int, float]) -> list[int]:
    """Return the connections below SLOW_SHARE of the median rate.

    A new connection may reach a faster edge.
    """
    if len(rates) < 2:
        return []
    bar = SLOW_SHARE * median(rates.values())
    return [connection for connection, rate in rates.items() if rate < bar]


class ConnectionScaler:
    """Scale the number of connections.

    It starts at 1, doubles while the rate grows, and is halved by a refusal or a
    collapse of the rate.

    Args:
        most: the limit; it may be lowered later.

    Attributes:
        wanted: how many connections there should be.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.wanted = 1
        # connections before the doubling that is on trial, 0 without a trial
        self._before = 0
        # the best rate in bytes a second; and the best over a long time, because the
        # end of a burst is not a collapse
        self._best = 0.0
        self._held = 0.0
        self._pause = PROBE_FIRST_S
        self._quiet_until = 0.0
        # when all connections had received data
        self._since: float | None = None
        # when the measurement started, and the bytes received until then
        self._mark: tuple[float, int] | None = None
        # when `wanted` was set
        self._changed = float("-inf")

    def update(self, now: float, received: int, flowing: int, answer_s: float) -> int:
        """Update and return how many connections there should be.

        Args:
            now: monotonic seconds.
            received: bytes received so far over all connections.
            flowing: connections that have received data.
            answer_s: the longest wait for a response in seconds.
        """
        if self.wanted > self.most:
            self._before = 0
            self._set(now, self.most)
        # a rate counts only while exactly the wanted connections deliver it
        if flowing != self.wanted:
            self._since = self._mark = None
            if flowing < self.wanted and self._before and now - self._changed > TRY_S:
                self._settle(now, max(1, min(flowing, self._before)))
        elif self._since is None:
            self._since = now
        elif self._mark is None:
            if now - self._since >= max(SETTLE_S, answer_s):
                self._mark = (now, received)
        else:
            elapsed = now - self._mark[0]
            rate = 0.0
            if elapsed > 0:
                rate = (received - self._mark[1]) / elapsed
            self._judge(now, elapsed, rate)
        return self.wanted

    def _judge(self, now: float, elapsed: float, rate: float) -> None:
        fallen = self.wanted > 1 and rate < COLLAPSE * self._held
        if self._before:
            if elapsed >= WINDOW_S and rate >= MIN_SPEEDUP * self._best:
                self._best = rate
                self._pause = PROBE_FIRST_S
                self._double(now)
            elif elapsed >= TRIAL_S:
                self._settle(now, self._before)
        elif now >= self._quiet_until and elapsed >= WINDOW_S and not fallen:
            self._best = rate
            if elapsed >= STEADY_S / 2:
                self._held = rate
            self._double(now)
        elif elapsed >= STEADY_S:
            if fallen:
                self._best = self._held = rate
                self._settle(now, self.wanted // 2)
            else:
                self._held = max(rate, self._held)
                self._best = max(rate, self._best)
                self._mark = None

    def on_refused(self, now: float, left: int = ENOUGH, wait_s: float = 0.0) -> None:
        """Reduce the connections, as the server refused one.

        Several refusals at once count once.

        Args:
            left: connections that were not refused: the limit until the pause is over.
            wait_s: seconds that the server asks to wait.
        """
        if self._before or now - self._changed > REFUSALS_S:
            self._settle(now, self._before or max(1, self.wanted // 2))
        self.wanted = max(1, min(self.wanted, left))
        self._quiet_until = max(self._quiet_until, now + max(wait_s, REFUSED_PAUSE_S))

    def _double(self, now: float) -> None:
        if self.wanted == self.most:
            self._settle(now, self.wanted)
            return
        self._before = self.wanted
        self._set(now, min(self.most, 2 * self.wanted))

    def _settle(self, now: float, count: int) -> None:
        self._before = 0
        self._quiet_until = now + self._pause
        self._pause = min(PROBE_MOST_S, 2 * self._pause)
        self._set(now, count)

    def _set(self, now: float, count: int) -> None:
        self.wanted = count
        self._changed = now
        self._since = self._mark = None
