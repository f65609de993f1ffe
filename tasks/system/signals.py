"""Signals that ask a program to end, handed to a function while a block runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


@contextmanager
def on_signals(act: Callable[[int], object]) -> Iterator[None]:
    """Call `act` with the number of each such signal that comes; the handlers of before come back.

    Only the main thread may set handlers: elsewhere (doit -n with threads) nothing is changed. A signal that
    is ignored stays so, for nohup means it; but not SIGINT, which a shell ignores for what runs with `&`.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    numbers = [n for n in numbers if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
    before = {n: signal.signal(n, lambda number, _frame: act(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
