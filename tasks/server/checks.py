"""Ask a server the questions of `checks:`, and compare its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tasks.catalogue.check_options import Check
from tasks.console import formatting
from tasks.errors import ServerError
from tasks.network.answers import parse_json
from tasks.server.client import QUICK_POLL_S, send_request
from tasks.server.load import StoppedError
from tasks.server.rates import parse_timing
from tasks.server.server_record import ServerRecord
from tasks.system import bounded_regex

_MAX_ERROR = 500  # bytes of an error that are shown


class Outcome(NamedTuple):
    """What came of one check."""

    check: Check
    got: str  # the answer; empty if there is none
    problem: str  # why the check failed; empty if it passed
    seconds: float
    per_second: float | None = None  # generated tokens; None if unknown

    @property
    def passed(self) -> bool:
        """Whether the answer has what is expected."""
        return not self.problem

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        check = self.check
        key = "matches"
        if check.contains is not None:
            key = "contains"
        rate = None
        if self.per_second is not None:
            rate = float(f"{self.per_second:.4g}")
        return {
            "ask": check.ask,
            "system": check.system,
            "expected": {key: getattr(check, key)},
            "got": self.got,
            "passed": self.passed,
            "problem": self.problem or None,
            "seconds": round(self.seconds, 3),
            "predicted_per_second": rate,
        }


def run_checks(
    record: ServerRecord, checks: Sequence[Check], stopped: Callable[[], object]
) -> list[Outcome]:
    """Ask a server one question after another.

    Args:
        stopped: returns a true value when the user asked to stop.

    Raises:
        ServerError: the server did not complete an answer.
        StoppedError: the user asked to stop.
    """
    return [_run(record, check, stopped) for check in checks]


def _run(record: ServerRecord, check: Check, stopped: Callable[[], object]) -> Outcome:
    start = time.monotonic()
    response = _response(record, check, stopped)
    seconds = time.monotonic() - start
    if response is None:
        if seconds < check.max_seconds:
            what = f"{record.name} did not complete an answer"
            raise ServerError(what, fix=f"doit logs --model {record.name}")
        limit = formatting.format_duration(check.max_seconds)
        return Outcome(check, "", f"no complete answer within {limit}", seconds)
    status, body = response
    if status != 200:
        text = body[:_MAX_ERROR].decode("utf-8", "replace").strip()
        return Outcome(check, text, f"the server answered with {status}", seconds)
    answer = answer_text(body)
    rate = None
    if timing := parse_timing(body):
        milliseconds = timing.predicted_ms
        if milliseconds:
            rate = 1000 * timing.predicted_n / milliseconds
    if answer is None:
        text = body[:_MAX_ERROR].decode("utf-8", "replace").strip()
        return Outcome(check, text, "the response has no answer", seconds)
    return Outcome(check, answer, problem_of(check, answer), seconds, rate)


def answer_text(body: bytes) -> str | None:
    """Return the answer that a response of a chat has; None if it has none."""
    try:
        message = parse_json(body)["choices"][0]["message"]
        content = message["content"]
    except (ValueError, LookupError, TypeError):
        return None
    if content is None:  # all tokens were reasoning
        return ""
    if isinstance(content, str):
        return content
    return None


def problem_of(check: Check, answer: str) -> str:
    """Return why an answer does not have what is expected; empty if it does."""
    if check.contains is not None:
        if check.contains in answer:
            return ""
        return "the answer does not have the text"
    try:
        if bounded_regex.is_found(check.matches or "", answer):
            return ""
    except bounded_regex.SearchError as error:
        return str(error)
    return "the answer does not match"


def _response(
    record: ServerRecord, check: Check, stopped: Callable[[], object]
) -> tuple[int, bytes] | None:
    """Return status and body; None without a complete response.

    Raises:
        StoppedError: the user asked to stop; it is polled.
    """
    messages = [{"role": "user", "content": check.ask}]
    if check.system:
        messages.insert(0, {"role": "system", "content": check.system})
    body = {
        "model": record.spec.get("--alias", record.name),
        "messages": messages,
        "temperature": check.temperature,
        "cache_prompt": False,  # an earlier question must not change an answer
    }
    responses: list[tuple[int, bytes] | None] = []

    def request() -> None:
        responses.append(
            send_request(
                record.host,
                record.port,
                "/v1/chat/completions",
                body=body,
                key=record.key,
                timeout_s=check.max_seconds,
            )
        )

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    while thread.is_alive():
        if stopped():
            raise StoppedError
        thread.join(QUICK_POLL_S)
    return responses[0]
