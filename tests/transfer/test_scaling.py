"""How many connections a download gets: a simulated network is the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.transfer import scaling
from tasks.transfer.scaling import (
    PROBE_FIRST_S,
    SPLIT_FROM,
    ConnectionScaler,
    max_connections,
    slow_connections,
)

MB = 1_000_000
MiB = 1024**2
TICK_S = 0.1  # the engine's own: tasks/transfer/segmented.py, TICK_S
STEP_S = 0.02


@dataclass(eq=False)
class Connection:
    """One connection's."""

    opened: float  # when it was asked for
    answers: float  # when its first byte may come
    refused: bool
    got: float = 0.0


Rates = Callable[[float, list[Connection]], list[float]]


class Network(NamedTuple):
    """What is between us and the file."""

    rates: Rates  # bytes a second that each open connection may bring now
    answer_s: float = 0.05  # from a request to its first byte
    takes: int = 99  # connections the server answers, further ones are refused
    refusal_s: Callable[[int], float] = lambda index: 0.05  # after which time the n-th one is


class Run(NamedTuple):
    """What a scaler made of a network."""

    counts: list[int]  # at each tick
    received: float

    def at(self, second: float) -> int:
        return self.counts[round(second / TICK_S)]

    def first(self, count: int) -> float:
        """When there were so many for the first time."""
        return next((i * TICK_S for i, n in enumerate(self.counts) if n == count), float("inf"))

    def share(self, count: int, since: float) -> float:
        """Of the time since then, how much with so many."""
        rest = self.counts[round(since / TICK_S) :]
        return Counter(rest)[count] / len(rest)

    def changes(self, since: float) -> int:
        rest = self.counts[round(since / TICK_S) :]
        return sum(a != b for a, b in pairwise(rest))


def run(network: Network, most: int = 8, seconds: float = 60.0) -> Run:
    """Let a scaler open connections, and close those that it does not want any more."""
    scaler, history = ConnectionScaler(most), []
    open_: list[Connection] = []
    ended, answer_s = 0.0, 0.0
    for tick in range(round(seconds / TICK_S)):
        now = tick * TICK_S
        flowing = sum(c.got > 0 for c in open_)
        wanted = scaler.update(now, int(ended + sum(c.got for c in open_)), flowing, answer_s)
        assert 1 <= wanted <= most
        history.append(wanted)
        for connection in [c for c in reversed(open_) if c.got > 0][: max(0, len(open_) - wanted)]:
            open_.remove(connection)  # one that still waits for its answer hears it first
            ended += connection.got
        while len(open_) < wanted:
            served = sum(not c.refused for c in open_)
            delay = network.answer_s if served < network.takes else network.refusal_s(len(open_) - served)
            open_.append(Connection(now, now + delay, served >= network.takes))
        for step in range(round(TICK_S / STEP_S)):
            then = now + step * STEP_S
            for connection in [c for c in open_ if c.refused and then >= c.answers]:
                open_.remove(connection)
                scaler.on_refused(then)
            answered = [c for c in open_ if not c.refused and then >= c.answers]
            if answered:
                answer_s = max(answer_s, network.answer_s)
            for connection, rate in zip(answered, network.rates(then, answered), strict=True):
                connection.got += rate * STEP_S
    return Run(history, ended + sum(c.got for c in open_))


# ---- networks


def each(rate: float) -> Rates:
    """Every connection has its own limit."""
    return lambda now, open_: [rate * MB] * len(open_)


def line(total: float, most_each: float = 1e9) -> Rates:
    """All share one line."""
    return lambda now, open_: [min(total / len(open_), most_each) * MB for _ in open_]


def crowd(limit: int, good: float, bad: float, since: float = 0.0) -> Rates:
    """More than `limit` connections get in each other's way (huggingface_hub#4893)."""

    def rates(now: float, open_: list[Connection]) -> list[float]:
        if len(open_) > limit and now >= since:
            return [bad * MB / len(open_)] * len(open_)
        return [good * MB] * len(open_)

    return rates


def bucket(rate: float, whole_seconds: bool) -> Rates:
    """nginx's limit_rate: what a second allows comes at once, also the first one's, then nothing comes.

    Args:
        whole_seconds: its clock has seconds only, so that all connections burst together.
    """

    def rates(now: float, open_: list[Connection]) -> list[float]:
        out = []
        for c in open_:
            passed = int(now) - int(c.answers) if whole_seconds else int(now - c.answers)
            allowed = rate * MB * (passed + 1) - c.got
            out.append(max(0.0, min(1000 * MB, allowed / STEP_S)))
        return out

    return rates


def slow_start(first: float, cap: float, total: float = 1e9) -> Rates:
    """TCP: each connection doubles its rate every 0.2 s up to a cap; all share one line."""

    def rates(now: float, open_: list[Connection]) -> list[float]:
        own = [min(cap, first * 2.0 ** min(30.0, (now - c.answers) / 0.2)) for c in open_]
        fit = min(1.0, total / sum(own)) if own else 1.0
        return [rate * fit * MB for rate in own]

    return rates


def only(flowing: int, rate: float) -> Rates:
    """Some connections are answered and bring nothing."""
    return lambda now, open_: [rate * MB if i < flowing else 0.0 for i, _ in enumerate(open_)]


def until(second: float, before: Rates, after: Rates) -> Rates:
    return lambda now, open_: (before if now < second else after)(now, open_)


def uneven(rates: Rates) -> Rates:
    """The same, half a second with a third more and half a second with a third less."""

    def out(now: float, open_: list[Connection]) -> list[float]:
        return [r * (1.33 if int(now * 2 + i) % 2 else 0.67) for i, r in enumerate(rates(now, open_))]

    return out


def gusts(rates: Rates) -> Rates:
    """The same, two seconds with a twentieth more and two with one less, for all at once."""
    return lambda now, open_: [r * (1.05 if int(now / 2) % 2 else 0.95) for r in rates(now, open_)]


@pytest.mark.parametrize(
    ("network", "most", "count", "within_s"),
    [
        # download.md §3: with a limit on each connection, connections are everything
        pytest.param(Network(each(10)), 8, 8, 3, id="a limit on each connection"),
        pytest.param(Network(each(10)), 4, 4, 2, id="the same, four at most"),
        pytest.param(Network(each(10)), 3, 3, 2, id="the same, three at most"),
        pytest.param(Network(each(10)), 2, 2, 1, id="the same, two at most"),
        pytest.param(Network(each(10)), 1, 1, 0, id="one connection is one connection"),
        pytest.param(Network(each(0.01)), 8, 8, 3, id="a limit on each connection, crawling"),
        pytest.param(Network(uneven(each(10))), 8, 8, 6, id="a limit on each connection, uneven"),
        # and on a line that one connection fills, they are nothing
        pytest.param(Network(line(100)), 8, 1, 3, id="one connection fills the line"),
        pytest.param(Network(gusts(line(100))), 8, 1, 3, id="one fills the line, in gusts"),
        pytest.param(Network(line(60, 20)), 8, 4, 4, id="four fill the line"),
        pytest.param(Network(line(48, 20)), 8, 4, 4, id="four bring a fifth more than two"),
        pytest.param(Network(line(42, 20)), 8, 2, 4, id="four bring hardly more than two"),
        # hub#4893: 4 streams hold, 6 fall over
        pytest.param(Network(crowd(4, 10, 8)), 8, 4, 4, id="more than four fall over"),
        pytest.param(Network(crowd(1, 10, 8)), 8, 1, 3, id="more than one fall over"),
        pytest.param(
            Network(crowd(4, 10, 8, since=30)), 8, 4, 36, id="eight hold for half a minute, then fall over"
        ),
        # issue 3: works when the server allows only one connection
        pytest.param(Network(each(10), takes=1), 8, 1, 1, id="one connection, others are refused"),
        pytest.param(Network(only(1, 10)), 8, 1, 7, id="one connection, others are never served"),
        pytest.param(Network(each(10), takes=2), 8, 2, 2, id="two connections, others are refused"),
        pytest.param(Network(each(10), takes=4), 8, 4, 3, id="four connections, others are refused"),
        pytest.param(Network(each(10), takes=5), 8, 4, 3, id="five connections, others are refused"),
        pytest.param(
            Network(each(10), takes=4, refusal_s=lambda n: 0.1 + 0.3 * n),
            8,
            4,
            4,
            id="four connections, others are refused one after another",
        ),
        pytest.param(Network(only(2, 10)), 8, 2, 8, id="two are served"),
        pytest.param(Network(only(3, 10)), 8, 2, 8, id="three are served"),
        # nginx's limit_rate is what the bench and many mirrors have
        pytest.param(Network(bucket(10, True)), 8, 8, 8, id="a bucket of one second"),
        pytest.param(Network(bucket(10, False)), 8, 8, 8, id="a bucket for each connection"),
        pytest.param(Network(bucket(10, True)), 4, 4, 8, id="a bucket of one second, four at most"),
        # TCP
        pytest.param(Network(slow_start(0.5, 20)), 8, 8, 4, id="slow start"),
        pytest.param(Network(each(10), answer_s=0.6), 8, 8, 6, id="a long way"),
        pytest.param(Network(line(100), answer_s=0.6), 8, 1, 4, id="a long way that one fills"),
    ],
)
def test_lanes_of_a_network(network: Network, most: int, count: int, within_s: float) -> None:
    """Issue 3: as many as pay, soon, and then they stay; what does not pay is tried less and less often."""
    found = run(network, most)
    assert found.first(count) <= within_s
    assert found.share(count, within_s) >= 0.6, Counter(found.counts)
    assert found.changes(within_s) <= 10
    assert found.changes(30) <= 4
    assert run(network, most).counts == found.counts  # nothing but its arguments


@pytest.mark.parametrize(
    ("network", "before", "second", "after", "by_s"),
    [
        pytest.param(until(20, line(30), each(30)), 1, 18, 8, 50, id="the line gets wider"),
        pytest.param(until(400, line(30), each(30)), 1, 395, 8, 470, id="the line gets wider after minutes"),
    ],
)
def test_another_weather(network: Rates, before: int, second: float, after: int, by_s: float) -> None:
    """What paid once is measured again, at the latest after a minute."""
    found = run(Network(network), seconds=by_s + 10)
    assert found.at(second) == before
    assert after in found.counts[round(second / TICK_S) : round(by_s / TICK_S) + 1]


@pytest.mark.once
def test_a_collapse_is_seen_whenever_it_comes() -> None:
    """hub#4893: more than four fall over after a while; half of them are left within seconds."""
    unseen = []
    for since in range(5, 61):
        found = run(Network(crowd(4, 10, 5, since)), seconds=since + 30)
        assert found.at(since) == 8
        if found.share(4, since + 10) < 0.6:
            unseen.append(since)
    assert unseen == []


@pytest.mark.parametrize(
    ("network", "rate", "share"),
    [
        pytest.param(Network(each(10)), 80, 0.9, id="a limit on each connection"),
        pytest.param(Network(line(80)), 80, 0.99, id="one fills the line"),
        pytest.param(Network(each(10), takes=1), 10, 0.99, id="one connection"),
        pytest.param(Network(each(10), takes=4), 40, 0.9, id="four connections"),
        pytest.param(Network(crowd(4, 10, 8)), 40, 0.8, id="more than four fall over"),
        pytest.param(Network(slow_start(0.5, 200, 50)), 50, 0.9, id="slow start into a full line"),
        pytest.param(Network(bucket(10, True)), 80, 0.85, id="a bucket of one second"),
    ],
)
def test_trying_costs_little(network: Network, rate: float, share: float) -> None:
    """In the first half minute, of what the best number of connections would have brought."""
    assert run(network, seconds=30).received >= share * rate * MB * 30


def test_silence_is_no_reason_for_more() -> None:
    """Nothing comes: there is one connection until something does."""
    assert set(run(Network(each(0)), seconds=30).counts) == {1}


# ---- refusals


def grown(most: int = 8, count: int = 8) -> tuple[ConnectionScaler, float]:
    """A scaler that has grown to so many connections, and the time."""
    scaler, now, received = ConnectionScaler(most), 0.0, 0
    while scaler.wanted < count:
        received += scaler.wanted * MB
        now += TICK_S
        scaler.update(now, received, scaler.wanted, 0.0)
        assert now < 10
    return scaler, now


def fed(
    scaler: ConnectionScaler, now: float, seconds: float, rate: float = 1.0, flowing: int | None = None
) -> list[int]:
    """Connections over time while all of them bring `rate` MB a tick together."""
    received, seen = 0, []
    for _ in range(round(seconds / TICK_S)):
        now += TICK_S
        received += round(rate * MB)
        seen.append(scaler.update(now, received, scaler.wanted if flowing is None else flowing, 0.0))
    return seen


@pytest.mark.parametrize(
    ("times", "left"),
    [
        pytest.param([0.1], 4, id="one: the doubling is taken back"),
        pytest.param([0.1, 0.1, 0.1, 0.1], 4, id="four at the same moment"),
        pytest.param([0.1, 0.15, 0.2, 0.29], 4, id="four in a row"),
        pytest.param([0.1, 2.0], 2, id="and one later: half"),
        pytest.param([0.1, 2.0, 2.1], 2, id="and two later"),
        pytest.param([0.1, 2.0, 4.0, 6.0, 8.0], 1, id="again and again: never below one"),
    ],
)
def test_refusals(times: list[float], left: int) -> None:
    """Issue 3: half on 429; several at once are one."""
    scaler, now = grown()
    for after in times:
        scaler.on_refused(now + after)
    assert scaler.wanted == left


def test_a_refusal_takes_back_the_doubling() -> None:
    """Of three at most: from two to three, and back to two, not to one."""
    scaler, now = grown(most=3, count=3)
    scaler.on_refused(now + 0.3)
    assert scaler.wanted == 2


def test_lanes_that_bring_nothing() -> None:
    """Eight were tried, and three of them flow, so the server has less for us than before: three are left."""
    scaler, now = grown()
    seen = fed(scaler, now, 10, flowing=3)
    assert seen[round((scaling.TRY_S - 0.5) / TICK_S)] == 8
    assert seen[round((scaling.TRY_S + 0.5) / TICK_S)] == 3


def test_a_rate_is_not_measured_before_all_have_answered() -> None:
    """On a long way the first bytes come late, and the rate is that of the connections before."""
    assert _seconds_to_two(answer_s=0.0) < 1
    assert _seconds_to_two(answer_s=2.0) > 2


def _seconds_to_two(answer_s: float) -> float:
    scaler, now = ConnectionScaler(8), 0.0
    while scaler.wanted == 1:
        now += TICK_S
        scaler.update(now, round(now * MB), 1, answer_s)
    return now


def test_what_pays_makes_patient() -> None:
    """After a doubling that paid, the next pause is the first again."""
    scaler, now, received = ConnectionScaler(8), 0.0, 0

    def until_lanes(count: int, each_: bool) -> float:
        nonlocal now, received
        start = now
        while scaler.wanted != count:
            now, received = now + TICK_S, received + MB * (scaler.wanted if each_ else 1)
            scaler.update(now, received, scaler.wanted, 0.0)
        return now - start

    for _ in range(5):
        until_lanes(2, False)
        until_lanes(1, False)
    assert until_lanes(2, True) > 4 * PROBE_FIRST_S
    until_lanes(4, True)
    scaler.on_refused(now + 0.3)
    assert scaler.wanted == 2
    assert until_lanes(4, True) < scaling.REFUSED_PAUSE_S + 1  # not the minute that it had grown to


def test_a_refusal_of_lanes_that_were_settled() -> None:
    """All eight had been flowing for a while: half of them."""
    scaler, now = grown()
    assert fed(scaler, now, 20, rate=8)[-1] == 8
    scaler.on_refused(now + 20)
    assert scaler.wanted == 4


def test_quiet_after_a_refusal() -> None:
    """A server that said no is not asked again at once, and every time later, up to a minute."""
    scaler, now = grown(count=2)
    pauses, received = [], 0
    for _ in range(8):
        scaler.on_refused(now + 0.3)
        assert scaler.wanted == 1
        start = now
        while scaler.wanted == 1:
            now, received = now + TICK_S, received + MB
            scaler.update(now, received, scaler.wanted, 0.0)
        pauses.append(now - start)
    assert scaling.REFUSED_PAUSE_S < pauses[0] < scaling.REFUSED_PAUSE_S + 1
    assert all(b >= a - TICK_S for a, b in pairwise(pauses))
    assert scaling.PROBE_MOST_S < pauses[-1] < scaling.PROBE_MOST_S + 1


def test_lanes_on_their_way_out() -> None:
    """A rate counts only when the wanted connections bring it.

    Four are wanted, but eight still run: a connection ends with its piece.
    """
    scaler, now = grown()
    fed(scaler, now, 20, rate=4)
    assert scaler.wanted == 4
    assert set(fed(scaler, now + 20, 2, rate=4)) == {4}
    assert min(fed(scaler, now + 22, 10, rate=0.5, flowing=8)) == 4


@pytest.mark.parametrize(
    ("count", "most"),
    [
        pytest.param(8, 4, id="eight, then four"),
        pytest.param(8, 1, id="eight, then one: the server ignores ranges"),
        pytest.param(2, 1, id="two, then one"),
    ],
)
def test_a_limit_that_is_lowered(count: int, most: int) -> None:
    """`most` means never more than this, also from now on: source.py lowers it when ranges are ignored."""
    scaler, now = grown(count=count)
    scaler.most = most
    seen = fed(scaler, now, 30)
    assert max(seen) <= most


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "step", "refused"]),
        st.floats(0, 5),
        st.integers(0, 10**9),
        st.integers(0, 10),
        st.floats(0, 2),
    ),
    max_size=60,
)


@given(st.integers(1, 9), _EVENTS)
def test_never_more_never_less(most: int, events: list[tuple[str, float, int, int, float]]) -> None:
    """Whatever comes, and however the clock goes: from one to the most, and twice as many at a time."""
    scaler, now, received = ConnectionScaler(most), 0.0, 0
    for kind, passed, got, flowing, answer_s in events:
        now, received, before = now + passed, received + got, scaler.wanted
        if kind == "refused":
            scaler.on_refused(now)
            assert scaler.wanted <= before
        else:
            assert scaler.update(now, received, flowing, answer_s) == scaler.wanted
            assert scaler.wanted <= 2 * before
        assert 1 <= scaler.wanted <= most


# ---- limits, and connections that are replaced


@pytest.mark.parametrize(
    ("url", "most"),
    [
        # download.md §2: the hosts of the Hub's files; its documentation says that they change
        pytest.param("https://huggingface.co/a/b/resolve/main/c", 4, id="the Hub"),
        pytest.param("https://HuggingFace.CO/a", 4, id="the Hub in capitals"),
        pytest.param("https://huggingface.co:443/a", 4, id="the Hub with its port"),
        pytest.param("https://hf.co/a/b", 4, id="the Hub's short name"),
        pytest.param("https://us.aws.cdn.hf.co/xet-bridge-us/a?Expires=1", 4, id="the Hub's files"),
        pytest.param("https://cas-bridge.xethub.hf.co/a", 4, id="the Hub's files, 2025"),
        pytest.param("https://cdn-lfs.huggingface.co/a", 4, id="the Hub's files, earlier"),
        pytest.param("https://github.com/a/b/releases/download/v1/c", 8, id="GitHub"),
        pytest.param("http://localhost:8000/a", 8, id="this machine"),
        pytest.param("http://127.0.0.1:8000/huggingface.co", 8, id="a path called so"),
        pytest.param("https://evilhf.co/a", 8, id="a host that ends like it"),
        pytest.param("https://evilhuggingface.co/a", 8, id="a host that ends like the long name"),
        pytest.param("https://huggingface.co.evil.example/a", 8, id="a host that begins like it"),
        pytest.param("https://hf.co.evil.example/a", 8, id="a host that begins like the short name"),
        pytest.param("https://huggingface.co@evil.example/a", 8, id="a user called so"),
        pytest.param("https://evil.example/?u=https://huggingface.co/a", 8, id="a query that names it"),
    ],
)
def test_most_lanes(url: str, most: int) -> None:
    """Four at the Hub, where more fall over (huggingface_hub#4893), else eight."""
    assert max_connections(url, None) == most
    assert max_connections(url, SPLIT_FROM) == most
    assert max_connections(url, SPLIT_FROM - 1) == 1


@pytest.mark.parametrize(
    ("size", "most"),
    [
        pytest.param(None, 8, id="nobody knows"),
        pytest.param(0, 1, id="nothing"),
        pytest.param(64 * 1024**2 - 1, 1, id="a byte below 64 MiB"),
        pytest.param(64 * 1024**2, 8, id="64 MiB"),
        pytest.param(40_000_000_000, 8, id="40 GB"),
    ],
)
def test_small_files_come_over_one(size: int | None, most: int) -> None:
    """Issue 3: a single stream below 64 MiB."""
    assert max_connections("https://example.org/a", size) == most


@pytest.mark.parametrize(
    ("missing", "count", "last", "rate", "size"),
    [
        pytest.param(40 * MiB, 1, 0, 0, 8 * MiB, id="a connection alone, new"),
        pytest.param(4000 * MiB, 8, 0, 0, 8 * MiB, id="one of several, new"),
        pytest.param(4000 * MiB, 1, 8 * MiB, 50 * MiB, 16 * MiB, id="twice as many as last time"),
        pytest.param(4000 * MiB, 1, 128 * MiB, 50 * MiB, 150 * MiB, id="what it brings in three seconds"),
        pytest.param(4000 * MiB, 1, 200 * MiB, 500 * MiB, 256 * MiB, id="never more than 256 MiB"),
        pytest.param(90 * MiB, 1, 100 * MiB, 50 * MiB, 90 * MiB, id="alone: the rest"),
        pytest.param(4000 * MiB, 4, 8 * MiB, 1 * MiB, 4 * MiB, id="slow ones: 4 MiB"),
        pytest.param(4000 * MiB, 4, 100 * MiB, 50 * MiB, 150 * MiB, id="what each brings in three seconds"),
        pytest.param(160 * MiB, 4, 100 * MiB, 50 * MiB, 20 * MiB, id="towards the end: half of its share"),
        pytest.param(32 * MiB, 4, 100 * MiB, 50 * MiB, 4 * MiB, id="at the end: 4 MiB"),
        pytest.param(1, 8, 100 * MiB, 50 * MiB, 4 * MiB, id="never less, though there is less"),
        pytest.param(0, 8, 0, 0, 4 * MiB, id="nothing is missing"),
    ],
)
def test_piece_size(missing: int, count: int, last: int, rate: float, size: int) -> None:
    """Few requests, no large piece at first, and all connections end together."""
    assert scaling.piece_size(missing, count, last, rate) == size


@pytest.mark.parametrize(
    ("rates", "slow"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({3: 0.0}, [], id="one has nothing to be compared with"),
        pytest.param({0: 9.0, 1: 9.0}, [], id="equal"),
        pytest.param({0: 0.0, 1: 0.0, 2: 0.0}, [], id="all silent: that is not the edge"),
        # xet-core#821: an edge has 8.7 or about 68 MB/s
        pytest.param({0: 68.0, 1: 8.7, 2: 68.0, 3: 68.0}, [1], id="one met a slow edge"),
        pytest.param({0: 8.7, 1: 8.7, 2: 8.7, 3: 68.0}, [], id="three did: that is the median"),
        pytest.param({0: 68.0, 1: 8.7}, [1], id="one of two"),
        pytest.param({0: 1.0, 1: 100.0, 2: 1.0, 3: 100.0, 4: 100.0}, [0, 2], id="two of five"),
        pytest.param({0: 25.0, 1: 100.0, 2: 100.0}, [], id="a quarter of the median"),
        pytest.param({0: 24.9, 1: 100.0, 2: 100.0}, [0], id="less than a quarter"),
        pytest.param({7: 0.0, 5: 10.0, 2: 10.0}, [7], id="by its number"),
    ],
)
def test_slow_lanes(rates: dict[int, float], slow: list[int]) -> None:
    """Issue 3: a slow connection reconnects."""
    assert slow_connections(rates) == slow


@given(st.dictionaries(st.integers(0, 7), st.floats(0, 1e9), max_size=8))
def test_most_lanes_are_not_slow(rates: dict[int, float]) -> None:
    """Half of them at least stay, among them the quickest."""
    slow = slow_connections(rates)
    assert len(slow) <= len(rates) / 2
    assert not rates or max(rates, key=rates.__getitem__) not in slow
