"""Pass the signals that ask a program to end to a function while a block runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


@contextmanager
def handle_signals(act: Callable[[int], object]) -> Iterator[None]:
    """Call `act` with the number of each such signal; restore the handlers afterwards.

    Outside the main thread (doit -n with threads), which alone may set handlers, this
    changes nothing. An ignored signal stays ignored, as nohup intends; except SIGINT,
    which a shell ignores for a program that it starts with `&`.
    """
    previous = {n: signal.signal(n, lambda number, _: act(number)) for n in _numbers()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _numbers() -> list[int]:
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [n for n in numbers if n == signal.SIGINT or not _is_ignored(n)]


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN
