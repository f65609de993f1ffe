"""Send requests to a server, several at once, and measure its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tasks.console import formatting
from tasks.errors import ServerError
from tasks.server.client import QUICK_POLL_S, send_request
from tasks.server.rates import Measurement, Timing, measurement, parse_timing
from tasks.server.server_record import ServerRecord

# The prompt: long enough that its tokens per second can be measured, short enough for a
# context of 1,024 tokens.
_TEXT = "A language model continues a text, one token after another. "
_REPEATS = 12
_MAX_ERROR = 500  # bytes of an answer that are shown


class Load(NamedTuple):
    """What to measure."""

    levels: tuple[int, ...] = (1, 2, 4)  # requests at once
    requests: int = 4  # at least, at each level
    n_predict: int = 64  # tokens of an answer
    limit_s: float = 300.0  # for all requests


class StoppedError(Exception):
    """The user asked to stop."""


def measure(
    record: ServerRecord, load: Load, stopped: Callable[[], object]
) -> list[Measurement]:
    """Measure each level; after `limit_s`, return those that are complete.

    Args:
        stopped: returns a true value when the user asked to stop.

    Raises:
        ServerError: the server sent an error or no timings, or no level is complete.
        StoppedError: the user asked to stop.
    """
    deadline = time.monotonic() + load.limit_s
    # the first request may allocate memory, or load the weights: it is not measured
    plan = [(1, 1), *((level, max(level, load.requests)) for level in load.levels)]
    rows: list[Measurement] = []
    for parallel, requests in plan:
        level = _Level(record, parallel, requests, load.n_predict, deadline)
        row = level.run(stopped)
        if row is None:
            break
        rows.append(row)
    if len(rows) < 2:
        limit = formatting.format_duration(load.limit_s)
        what = f"{record.name} did not complete the first measurement within {limit}"
        raise ServerError(what, fix="--n-predict 16 --requests 1, or --limit SECONDS")
    return rows[1:]


class _Level:
    """Some requests to one server, of which several are sent at once."""

    def __init__(
        self,
        record: ServerRecord,
        parallel: int,
        requests: int,
        n_predict: int,
        deadline: float,
    ) -> None:
        self._record = record
        self._parallel = parallel
        self._n_predict = n_predict
        self._deadline = deadline
        self._left = requests
        self._lock = threading.Lock()
        self._timings: list[Timing] = []
        self._errors: list[ServerError] = []
        self._is_late = False

    def run(self, stopped: Callable[[], object]) -> Measurement | None:
        """Return the measurement; None if the time is over.

        Raises:
            ServerError: the server sent an error, or no timings.
            StoppedError: the user asked to stop.
        """
        threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(self._parallel)
        ]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if stopped():
                self._left = 0
                raise StoppedError
            time.sleep(QUICK_POLL_S)
        if self._errors:
            raise self._errors[0]
        if self._is_late:
            return None
        seconds = time.monotonic() - start
        return measurement(self._parallel, self._timings, seconds)

    def _work(self) -> None:
        """Send one request after another, until none is left or one fails."""
        while not (self._errors or self._is_late) and (number := self._take()):
            try:
                timing = self._ask(number)
            except ServerError as error:
                self._errors.append(error)
                return
            if timing is None:
                self._is_late = True
                return
            self._timings.append(timing)

    def _take(self) -> int:
        """Return the number of the next request; 0 if there is none."""
        with self._lock:
            number = self._left
            self._left = max(0, number - 1)
            return number

    def _ask(self, number: int) -> Timing | None:
        """Return the timings of one answer; None if the time is over.

        Raises:
            ServerError: the server sent an error, nothing, or no timings.
        """
        record = self._record
        left = self._deadline - time.monotonic()
        if left <= 0:
            return None
        # a prompt whose start is not in the cache
        prompt = f"{self._parallel} {number} {_TEXT * _REPEATS}"
        body = {
            "model": self._record.spec.get("--alias", self._record.name),
            "prompt": prompt,
            "n_predict": self._n_predict,
            "cache_prompt": False,
            "ignore_eos": True,
            "temperature": 0,
        }
        response = send_request(
            record.host,
            record.port,
            "/completion",
            body=body,
            key=record.key,
            timeout_s=left,
        )
        if response is None:
            if time.monotonic() >= self._deadline:
                return None
            fix = f"doit logs --model {record.name}"
            raise ServerError(f"{record.name} did not complete an answer", fix=fix)
        status, answer = response
        text = answer[:_MAX_ERROR].decode("utf-8", "replace").strip()
        if status != 200:
            what = f"{record.name} answered a request with an error"
            raise ServerError(what, [("status", status), ("answer", text)])
        timing = parse_timing(answer)
        if timing is None:
            what = f"the answers of {record.name} have no timings"
            fix = "measure it with another engine: llama.cpp's server states them"
            raise ServerError(what, [("answer", text)], fix=fix)
        return timing
