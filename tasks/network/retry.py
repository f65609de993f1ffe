"""Decide when to retry a source. Pure: the caller passes the jitter."""

from __future__ import annotations

from tasks.console import formatting
from tasks.network.response import (
    MAX_LINK_REFRESHES,
    RETRIES,
    WAIT_TOTAL_S,
    Action,
    Decision,
    backoff_s,
)


class SourceFailedError(Exception):
    """One source will not deliver; the text is the reason.

    Args:
        silent: its host did not answer at all.
        final: a retry would not help.
        fix: what the user can do, if known.
    """

    def __init__(
        self, reason: str, silent: bool = False, final: bool = False, fix: str = ""
    ) -> None:
        super().__init__(reason)
        self.silent = silent
        self.final = final
        self.fix = fix


class RetryBudget:
    """Count the failures and waits of one source, and limit both.

    Received bytes reset the failures, but not the time waited.

    Args:
        most: failures in a row that are allowed.
    """

    def __init__(self, most: int = RETRIES) -> None:
        self._most = most
        self.failures = 0  # attempts in a row that brought no byte
        self._links = 0  # links in a row that were refused
        self._waited_s = 0.0

    def reset(self) -> None:
        """Reset the failures: bytes were received."""
        self.failures = 0
        self._links = 0

    def next_delay_s(
        self, decision: Decision, moved: bool, restarts: int, jitter: float
    ) -> float:
        """Return the seconds to wait before a retry; 0 if only a link has expired.

        Args:
            moved: the attempt brought bytes before it failed.
            restarts: how often this source restarted from byte 0; bytes that it sends
                again are not progress.
            jitter: a new random number from 0 to 1.

        Raises:
            SourceFailedError: there is no retry.
        """
        if moved:
            self.reset()
        self.failures += 1
        if decision.action is Action.REFRESH_LINK:
            self._links += 1
        if decision.action is Action.GIVE_UP or self._links > MAX_LINK_REFRESHES:
            raise SourceFailedError(decision.reason, final=True, fix=decision.remedy)
        if decision.action is Action.REFRESH_LINK and not decision.rate_limited:
            return 0.0
        wait_s = backoff_s(self.failures, decision.wait_s, jitter)
        if self._waited_s + wait_s > WAIT_TOTAL_S:
            wait = formatting.format_duration(wait_s)
            raise SourceFailedError(
                f"{decision.reason} (a retry would have to wait {wait})"
            )
        tries = max(self.failures, restarts)
        if tries >= self._most:
            raise SourceFailedError(
                f"{decision.reason} (tried {tries} times)",
                decision.no_response,
                fix=decision.remedy,
            )
        self._waited_s += wait_s
        return wait_s
