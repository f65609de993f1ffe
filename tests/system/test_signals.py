"""Signals that ask to end call a function, only while a block runs."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from tasks.system.signals import handle_signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="sends POSIX signals to itself")
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def noted(seen: list[int], number: int) -> None:
    """Send a signal to this process and wait until it is seen."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 5
    while number not in seen:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_they_are_noted_in_order_and_the_handlers_of_before_come_back() -> None:
    """R14: signals become facts that can be looked at."""
    before = [signal.getsignal(number) for number in NUMBERS]
    seen: list[int] = []
    with handle_signals(seen.append):
        for number in reversed(NUMBERS):
            noted(seen, number)
    assert seen == list(reversed(NUMBERS))
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize(
    ("number", "heeded"),
    [pytest.param(signal.SIGHUP, False, id="nohup"), pytest.param(signal.SIGINT, True, id="&")],
)
def test_what_was_ignored(number: int, heeded: bool) -> None:
    """R35: nohup is respected; a shell's & is not, for `kill -INT` of a script is meant."""
    before = signal.signal(number, signal.SIG_IGN)
    seen: list[int] = []
    try:
        with handle_signals(seen.append):
            os.kill(os.getpid(), number)
            noted(seen, signal.SIGTERM)
        assert (number in seen) is heeded
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_handlers_come_back_after_an_exception() -> None:
    """R14: however the block is left."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="x"), handle_signals(print):
        raise ValueError("x")
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_a_thread_nothing_is_changed() -> None:
    """R14: only the main thread may set handlers; elsewhere it is no error."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with handle_signals(print):
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not errors
