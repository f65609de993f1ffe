"""How often one source is retried, and after which wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.network.response import BACKOFF_MAX_S, MAX_LINK_REFRESHES, RETRIES, WAIT_TOTAL_S, Action, Decision
from tasks.network.retry import RetryBudget, SourceFailedError

RETRY = Decision(Action.RETRY, "HTTP 500")
OLD_LINK = Decision(Action.REFRESH_LINK, "HTTP 403 for a signed link", remedy="set HF_TOKEN")
FRESH_LINK = OLD_LINK._replace(rate_limited=True)


def asked(decision: Decision, moved: bool = False, restarts: int = 0, jitter: float = 1.0) -> list[float]:
    """The pauses until it gives up."""
    budget, pauses = RetryBudget(), list[float]()
    with pytest.raises(SourceFailedError):  # noqa: PT012  # the last of them
        for _ in range(1000):
            pauses.append(budget.next_delay_s(decision, moved, restarts, jitter))
    return pauses


@pytest.mark.parametrize(
    ("decision", "pauses"),
    [
        pytest.param(RETRY, [1, 2, 4, 8, 16], id="six attempts, twice as long each time"),
        pytest.param(RETRY._replace(wait_s=7.0), [8, 9, 11, 15, 23], id="never earlier than asked"),
        pytest.param(RETRY._replace(wait_s=500.0), [501], id="a second wait of that length is too much"),
        pytest.param(RETRY._replace(wait_s=WAIT_TOTAL_S), [], id="waits without end"),
        pytest.param(OLD_LINK, [0] * MAX_LINK_REFRESHES, id="an old link: the origin gives another at once"),
        pytest.param(FRESH_LINK, [1, 2, 4], id="a fresh one that is refused"),
        pytest.param(Decision(Action.GIVE_UP, "HTTP 404"), [], id="it will not deliver"),
    ],
)
def test_pauses(decision: Decision, pauses: list[float]) -> None:
    """R27: bounded, in number and in time."""
    assert asked(decision) == pauses


def test_the_same_bytes_again_are_no_progress() -> None:
    """R27: what begins again for the sixth time is given up, though bytes came."""
    assert asked(RETRY, moved=True, restarts=RETRIES) == []


def test_bytes_restore_it() -> None:
    """R18: a connection that breaks a hundred times brings the file in the end."""
    budget = RetryBudget()
    assert [budget.next_delay_s(RETRY, True, 0, 1.0) for _ in range(100)] == [1.0] * 100


def test_but_not_the_time_waited() -> None:
    """R27: all waiting for one source has an end, however much comes in between."""
    pauses = asked(RETRY._replace(wait_s=100.0), moved=True)
    assert sum(pauses) <= WAIT_TOTAL_S < sum(pauses) + 101


@pytest.mark.parametrize(
    ("decision", "silent", "final"),
    [
        pytest.param(RETRY, False, False, id="it answered"),
        pytest.param(RETRY._replace(no_response=True), True, False, id="its host did not"),
        pytest.param(Decision(Action.GIVE_UP, "HTTP 404"), False, True, id="and never will"),
        pytest.param(OLD_LINK, False, True, id="no link works"),
    ],
)
def test_how_it_gives_up(decision: Decision, silent: bool, final: bool) -> None:
    """R19: whether to ask the same host, or to ask again at all."""
    budget = RetryBudget()
    with pytest.raises(SourceFailedError) as caught:  # noqa: PT012  # the last of them
        for _ in range(RETRIES):
            budget.next_delay_s(decision, False, 0, 0.0)
    assert (caught.value.silent, caught.value.final) == (silent, final)
    assert decision.why in str(caught.value)
    assert decision.remedy in str(caught.value)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([RETRY, OLD_LINK, FRESH_LINK, Decision(Action.RESTART, "416")]),
            st.booleans(),
            st.none() | st.floats(0, 400),
            st.floats(0, 1),
        )
    )
)
def test_any_history_is_bounded(history: list[tuple[Decision, bool, float | None, float]]) -> None:
    """R27: never a negative pause, never more than all the waiting there may be."""
    budget, total = RetryBudget(), 0.0
    for decision, moved, wait_s, jitter in history:
        try:
            pause = budget.next_delay_s(decision._replace(wait_s=wait_s), moved, 0, jitter)
        except SourceFailedError:
            break
        assert 0 <= pause <= (wait_s or 0) + BACKOFF_MAX_S
        total += pause
    assert total <= WAIT_TOTAL_S
