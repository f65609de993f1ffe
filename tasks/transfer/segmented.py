"""Download the missing bytes of a file from one URL, over several connections.

Each connection has a thread; the thread that calls `receive` supervises them. The
shared state is split by question, each part under one lock: which pieces are missing
(`scheduler`), how many connections there are (`connection_pool`), what follows a
failure (`retry_policy`) and where the origin redirects to (`link_cache`). The digest is
checked by the caller.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tasks.catalogue.artifact import Artifact
from tasks.console.progress import Progress
from tasks.network import http
from tasks.network.response import Action, Decision
from tasks.transfer import scaling
from tasks.transfer.attempt import Attempt, SourceRequest
from tasks.transfer.connection import SLOW_S, Connection
from tasks.transfer.connection_pool import STALL_S, ConnectionPool
from tasks.transfer.link_cache import LinkCache
from tasks.transfer.partial import Partial
from tasks.transfer.retry_policy import RetryPolicy
from tasks.transfer.scheduler import PieceScheduler

if TYPE_CHECKING:
    from tasks.transfer.dependencies import Dependencies

TICK_S = 0.05  # between two checks of the connections


class SegmentedDownload:
    """The download of one artifact from one of its URLs.

    Args:
        single: use one connection only.
        token: for the URL's own host.
        accept: called with each answer whose body is used.
        fresh: no cache may answer.
    """

    def __init__(
        self,
        artifact: Artifact,
        url: str,
        partial: Partial,
        bar: Progress,
        dependencies: Dependencies,
        *,
        single: bool,
        token: str,
        accept: Callable[[http.StreamedResponse], None],
        fresh: bool = False,
    ) -> None:
        limit = 1
        if artifact.sha256 is not None and not single:
            limit = scaling.max_connections(url, artifact.size)
        self._partial = partial
        self._bar = bar
        self._dependencies = dependencies
        self._lock = partial.changed
        self._request = SourceRequest(
            artifact, url, token, accept, dependencies.clock, fresh
        )
        self._has_replaced_last = False
        self._links = LinkCache()
        self._pool = ConnectionPool(partial, limit, dependencies.clock())
        self._scheduler = PieceScheduler(partial, self._pool, dependencies.clock)
        self._policy = RetryPolicy(
            artifact,
            url,
            partial,
            self._pool,
            self._scheduler,
            self._links,
            dependencies,
        )

    def receive(self) -> None:
        """Return when every byte is here.

        Raises:
            SourceFailedError: the source does not deliver.
            IntegrityError: its answers contradict each other.
            OSError, OwnershipLostError: the partial cannot be written.
        """
        try:
            while not self._scheduler.is_over:
                self._supervise()
                with self._lock:
                    if not self._scheduler.is_over:
                        self._lock.wait(TICK_S)
        finally:
            self._scheduler.stop()
            self._show_progress()
        error = self._scheduler.failure()
        if error:
            raise error

    def _supervise(self) -> None:
        """Show the progress; start, give up and replace connections."""
        self._show_progress()
        now = self._dependencies.clock()
        if self._policy.is_waiting:
            return
        with self._lock:
            after = self._give_up_silent(now)
            wanted = self._pool.wanted(now)
            while self._pool.count < wanted and self._is_useful(now):
                self._start(now, after)
                after = None
            self._pool.replace_slow(now)

    def _show_progress(self) -> None:
        with self._lock:
            done = self._partial.tracker.done
            size = self._partial.tracker.size
            count = self._pool.count
            is_skipping = any(connection.skipping for connection in self._pool.members)
        note = ""
        if count > 1:
            note = f"{count} connections"
        elif is_skipping:
            note = "no ranges"
        self._bar.update(done, size, note)

    def _is_useful(self, now: float) -> bool:
        """Return whether a further connection would have something to do."""
        return self._pool.count == 0 or self._scheduler.has_work(now)

    def _start(self, now: float, after: Decision | None) -> None:
        session = (self._dependencies.new_session or http.new_session)()
        connection = Connection(
            self._partial, session, self._dependencies.clock, last_received_at=now
        )
        self._pool.add(connection)
        thread = threading.Thread(
            target=self._work, args=(connection, after), name="connection", daemon=True
        )
        thread.start()

    def _give_up_silent(self, now: float) -> Decision | None:
        """Give up connections that deliver nothing; their pieces are fetched again.

        Returns:
            How the only connection ended, where it was that one.
        """
        silent = self._pool.silent(now)
        if len(silent) < self._pool.count:
            for connection in silent:
                self._give_up(connection)
                if not connection.received:
                    self._pool.on_refused(now)
            return None
        is_only = self._pool.count == 1
        if is_only and self._is_left_behind(silent[0]):
            self._has_replaced_last = True
            self._give_up(silent[0])
            return None
        if is_only and now - silent[0].last_received_at > SLOW_S + STALL_S:
            # it trickles: not even the smallest buffer gets full
            self._give_up(silent[0])
            why = f"almost no data for {SLOW_S:.0f} s"
            return Decision(Action.RETRY, why)
        return None

    def _is_left_behind(self, connection: Connection) -> bool:
        """Return whether the others have fetched the rest and left this one unanswered.

        Once in a download: the next one may wait, the server may be slow.
        """
        piece = connection.piece
        if piece is None or self._has_replaced_last:
            return False
        return piece.pos == piece.start and self._pool.have_others_delivered

    def _give_up(self, connection: Connection) -> None:
        self._scheduler.revoke(connection)
        self._pool.remove(connection)

    def _work(self, connection: Connection, after: Decision | None) -> None:
        """Fetch pieces over one connection; the target of its thread.

        Args:
            after: how the connection ended that this one replaces.
        """
        _lower_priority()
        try:
            if after is None or self._policy.wait_or_fail(after, moved=False):
                self._fetch_pieces(connection)
        except BaseException as error:  # a full disk or a bug: `receive` raises it
            self._scheduler.fail(error)
        finally:
            self._scheduler.put_back(connection)
            self._pool.remove(connection)
            connection.session.close()  # the server may count the connections it keeps

    def _fetch_pieces(self, connection: Connection) -> None:
        while (piece := self._scheduler.next_piece(connection)) is not None:
            decision = self._attempt().run(connection, piece)
            received = piece.pos - piece.start
            elapsed_s = self._dependencies.clock() - connection.since
            connection.last = received
            connection.rate = received / max(elapsed_s, 0.001)
            self._scheduler.put_back(connection)
            if self._scheduler.is_stopped or connection.stopped:
                return
            if not self._policy.continues(connection, decision, received > 0):
                return

    def _attempt(self) -> Attempt:
        return Attempt(
            self._request,
            self._partial,
            self._pool,
            self._scheduler,
            self._links,
            use_ranges=self._policy.use_ranges,
        )


def _lower_priority() -> None:
    """Let the thread that hashes run first: the download ends when it ends."""
    if sys.platform == "linux":  # elsewhere this is a setting of the whole process
        thread_id = threading.get_native_id()
        with contextlib.suppress(OSError):
            priority = os.getpriority(os.PRIO_PROCESS, thread_id)
            os.setpriority(os.PRIO_PROCESS, thread_id, priority + 1)
