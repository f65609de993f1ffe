"""How many connections a download gets, and which of them are replaced. Pure: time is an argument.

Source of the numbers: published measurements of the Hub's edges (each 9 or 70 MB/s; 4 streams hold, 6 fall
over within minutes: huggingface_hub#4893, xet-core#821), so few lanes, doubled only while that pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from urllib.parse import urlsplit

SPLIT_FROM = 64 * 1024**2  # bytes; what is smaller comes over one connection
PIECE = 8 * 1024**2  # bytes that a new lane asks for at once; then twice as many as last time,
PIECE_S = 3.0  # but no more than it brings in this time,
PIECE_MOST = 256 * 1024**2  # never more than this,
PIECE_LEAST = 4 * 1024**2  # and never less than this
PAYS = 1.15  # a doubling has to bring this much more
COLLAPSE = 0.5  # less than this share of the best rate is a collapse
SETTLE_S = 0.05  # not measured: the burst that many servers give to a new connection
WINDOW_S = 0.1  # shortest time over which a rate is measured
DOUBT_S = 1.0  # a doubling is not called useless sooner than that
STEADY_S = 3.0  # time over which a collapse is measured
REFUSALS_S = 1.0  # refusals within this time are one: all of a doubling's lanes were
REFUSED_PAUSE_S = 20.0  # pause before a server that has refused is tried again
TRY_S = 5.0  # lanes that bring nothing in this time were no good
PROBE_FIRST_S = 3.0  # pause after a doubling that did not pay; twice as long after the next one,
PROBE_MOST_S = 60.0  # up to this
ENOUGH = 1000  # more lanes than there ever are
SLOW_SHARE = 0.25  # a lane below this share of the median is replaced
SLOW_LOOK_S = 10.0  # time over which that is measured


def most_lanes(url: str, size: int | None) -> int:
    """The limit for one artifact: 1 for a small one, 4 at the Hub, else 8."""
    if size is not None and size < SPLIT_FROM:
        return 1
    host = urlsplit(url).hostname or ""
    return 4 if f".{host}".endswith((".hf.co", ".huggingface.co")) else 8


def piece_size(missing: int, lanes: int, last: int, rate: float) -> int:
    """Bytes that one lane asks for: soon few requests, yet no large piece that holds the digest up while
    further lanes begin; and less towards the end, so that all lanes, and the digest, end together.

    Args:
        missing: bytes that the file lacks.
        last: bytes of the lane's last piece, 0 for a new lane.
        rate: bytes a second that it brought.
    """
    most = min(PIECE_MOST, 2 * last, int(rate * PIECE_S)) if last else PIECE
    return max(PIECE_LEAST, min(most, missing if lanes == 1 else missing // (2 * lanes)))


def slow_lanes(rates: Mapping[int, float]) -> list[int]:
    """The lanes that bring less than SLOW_SHARE of the median; another connection may meet a better edge."""
    if len(rates) < 2:
        return []
    bar = SLOW_SHARE * median(rates.values())
    return [lane for lane, rate in rates.items() if rate < bar]


class Ramp:
    """The number of lanes over time: begins at 1, doubles while it pays, halves when refused or collapsing.

    Args:
        most: never more than this.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.lanes = 1
        self._before = 0  # lanes before the doubling that is being tried; 0: none is
        self._best = 0.0  # bytes a second
        self._held = 0.0  # the same, measured for long: what a burst brings is nothing to fall from
        self._pause = PROBE_FIRST_S
        self._quiet_until = 0.0
        self._since: float | None = None  # when all lanes were flowing
        self._mark: tuple[float, int] | None = None  # when measuring began, and the bytes received by then
        self._changed = float("-inf")  # when `lanes` was set

    def step(self, now: float, received: int, flowing: int, answer_s: float) -> int:
        """How many lanes there should be.

        Args:
            now: monotonic seconds.
            received: bytes that came so far, over all lanes.
            flowing: lanes that have brought something.
            answer_s: seconds that the slowest lane waited for its first byte.
        """
        if self.lanes > self.most:
            self._before = 0
            self._set(now, self.most)
        if flowing != self.lanes:  # a rate counts only when its lanes bring it, all of them and no others
            self._since = self._mark = None
            if flowing < self.lanes and self._before and now - self._changed > TRY_S:
                self._settle(now, max(1, min(flowing, self._before)))
        elif self._since is None:
            self._since = now
        elif self._mark is None:
            if now - self._since >= max(SETTLE_S, answer_s):
                self._mark = (now, received)
        else:
            elapsed = now - self._mark[0]
            self._judge(now, elapsed, (received - self._mark[1]) / elapsed if elapsed > 0 else 0.0)
        return self.lanes

    def _judge(self, now: float, elapsed: float, rate: float) -> None:
        fallen = self.lanes > 1 and rate < COLLAPSE * self._held
        if self._before:
            if elapsed >= WINDOW_S and rate >= PAYS * self._best:
                self._best, self._pause = rate, PROBE_FIRST_S
                self._double(now)
            elif elapsed >= DOUBT_S:
                self._settle(now, self._before)
        elif now >= self._quiet_until and elapsed >= WINDOW_S and not fallen:
            self._best = rate
            if elapsed >= STEADY_S / 2:
                self._held = rate
            self._double(now)
        elif elapsed >= STEADY_S:
            if fallen:
                self._best = self._held = rate
                self._settle(now, self.lanes // 2)
            else:
                self._held = max(rate, self._held)
                self._best = max(rate, self._best)
                self._mark = None

    def refused(self, now: float, left: int = ENOUGH, wait_s: float = 0.0) -> None:
        """The server does not want so many. Several refusals at once are one.

        Args:
            left: lanes that were not refused; there are not more of them again before the pause is over.
            wait_s: seconds that the server asks to wait.
        """
        if self._before or now - self._changed > REFUSALS_S:
            self._settle(now, self._before or max(1, self.lanes // 2))
        self.lanes = max(1, min(self.lanes, left))
        self._quiet_until = max(self._quiet_until, now + max(wait_s, REFUSED_PAUSE_S))

    def _double(self, now: float) -> None:
        if self.lanes == self.most:
            self._settle(now, self.lanes)
            return
        self._before = self.lanes
        self._set(now, min(self.most, 2 * self.lanes))

    def _settle(self, now: float, lanes: int) -> None:
        self._before, self._quiet_until = 0, now + self._pause
        self._pause = min(PROBE_MOST_S, 2 * self._pause)
        self._set(now, lanes)

    def _set(self, now: float, lanes: int) -> None:
        self.lanes, self._changed = lanes, now
        self._since = self._mark = None
