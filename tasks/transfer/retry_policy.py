"""What a connection does after an attempt: ask again, wait, leave, or give up."""

from __future__ import annotations

import logging

from tasks.catalogue.artifact import Artifact
from tasks.console import formatting
from tasks.console.logs import log_event
from tasks.network import response
from tasks.network.response import Action, Decision
from tasks.network.retry import RetryBudget, SourceFailedError
from tasks.transfer.connection import Connection
from tasks.transfer.connection_pool import ConnectionPool
from tasks.transfer.dependencies import Dependencies
from tasks.transfer.link_cache import LinkCache
from tasks.transfer.partial import Partial
from tasks.transfer.scheduler import PieceScheduler
from tasks.urls import host_of


class RetryPolicy:
    """Decide for the connections of one source how to go on.

    Every attribute is guarded by `_lock`, which is the partial's `changed`.
    """

    def __init__(
        self,
        artifact: Artifact,
        url: str,
        partial: Partial,
        pool: ConnectionPool,
        scheduler: PieceScheduler,
        links: LinkCache,
        dependencies: Dependencies,
    ) -> None:
        self._lock = partial.changed
        self._artifact = artifact
        self._url = url
        self._partial = partial
        self._pool = pool
        self._scheduler = scheduler
        self._links = links
        self._dependencies = dependencies
        self._budget = RetryBudget()
        self._restarts_before = partial.restarts
        self._is_waiting = False
        self._use_ranges = True

    @property
    def is_waiting(self) -> bool:
        """Whether the server has asked for a pause: no connection starts meanwhile."""
        with self._lock:
            return self._is_waiting

    @property
    def use_ranges(self) -> bool:
        """Whether the next request asks for a range, not for the whole file."""
        with self._lock:
            return self._use_ranges

    def continues(
        self, connection: Connection, decision: Decision, moved: bool
    ) -> bool:
        """Return whether a connection asks again; wait before it does.

        Args:
            moved: the attempt brought bytes.
        """
        with self._lock:
            is_complete = self._partial.tracker.is_complete
            if decision.action is Action.DONE and (moved or is_complete):
                connection.failures = 0
                self._budget.reset()
                return True
        if connection.replace:
            connection.replace = False
            return True
        if decision.action is Action.REFRESH_LINK:
            self._links.discard(connection.link)
        if decision.rate_limited:
            self._pool.record_rate_limit()
        connection.failures = 1 if moved else connection.failures + 1
        with self._lock:
            if self._pool.count > 1:
                return self._retry_or_leave(connection, decision)
        return self.wait_or_fail(decision, moved)

    def _retry_or_leave(self, connection: Connection, decision: Decision) -> bool:
        """Ask again at once, or leave the work to the other connections."""
        is_refused = decision.rate_limited or decision.wait_s is not None
        is_final = decision.action is Action.GIVE_UP
        if is_refused or is_final or connection.failures > response.CONNECTION_RETRIES:
            self._pool.remove(connection)
            self._pool.on_refused(self._dependencies.clock(), decision.wait_s or 0.0)
            return False
        return True

    def wait_or_fail(self, decision: Decision, moved: bool) -> bool:
        """Wait as long as the server asks, or give the source up.

        Only for the one connection of a source.
        """
        self._set_waiting(True)
        try:
            if decision.action is Action.RESTART and self._artifact.sha256 is None:
                self._partial.restart()
            wait_s = self._next_delay_s(decision, moved)
            if wait_s is None:
                return False
            if decision.action is not Action.REFRESH_LINK or wait_s:
                self._log_retry(decision, wait_s)
                self._dependencies.sleep(wait_s)
            return True
        finally:
            self._set_waiting(False)

    def _set_waiting(self, is_waiting: bool) -> None:
        with self._lock:
            self._is_waiting = is_waiting

    def _next_delay_s(self, decision: Decision, moved: bool) -> float | None:
        """Return the seconds to wait, None where the source is given up."""
        jitter = self._dependencies.jitter()
        with self._lock:
            restarts = self._partial.restarts - self._restarts_before
            try:
                wait_s = self._budget.next_delay_s(decision, moved, restarts, jitter)
            except SourceFailedError as reason:
                self._scheduler.fail(reason)
                return None
            self._use_ranges = not self._wants_whole(decision)
            return wait_s

    def _wants_whole(self, decision: Decision) -> bool:
        """Return whether the whole file is asked for next.

        It is where ranges do not work, and every other time where nothing works.
        """
        if self._artifact.sha256 is None:
            return False
        if decision.action is Action.RESTART:
            return True
        is_empty = not self._partial.done
        return (
            decision.action is Action.RETRY
            and is_empty
            and self._budget.failures % 2 == 0
        )

    def _log_retry(self, decision: Decision, wait_s: float) -> None:
        with self._lock:
            done = self._partial.tracker.done
            size = self._partial.tracker.size
        host = host_of(self._url)
        where = ""
        if host not in decision.why:
            where = f" from {host}"
        progress = ""
        if done and size:
            progress = f", {formatting.format_percent(done, size)} received"
        log_event(
            "retry",
            "%s: %s%s; retrying in %s%s",
            self._artifact.label,
            decision.why,
            where,
            formatting.format_duration(wait_s),
            progress,
            level=logging.WARNING,
            artifact=self._artifact.label,
            url=self._url,
            why=decision.why,
            wait_s=round(wait_s, 1),
            bytes=done,
            total=size,
        )
