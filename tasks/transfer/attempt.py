"""One request for a piece: send it, judge the answer, write the body to its place."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from urllib.parse import urlsplit

from tasks.catalogue.artifact import Artifact
from tasks.errors import IntegrityError, TransferError
from tasks.network import content, http, huggingface, logins, registry_tokens, response
from tasks.network.access import NETRC, TOKEN, Access, is_refused, proxy_variable
from tasks.network.response import Action, Decision, RangeRequest
from tasks.transfer import scaling
from tasks.transfer.connection import Connection
from tasks.transfer.connection_pool import ConnectionPool
from tasks.transfer.link_cache import LinkCache
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import UNKNOWN_END, Piece
from tasks.transfer.scheduler import PieceScheduler
from tasks.urls import host_of

_log = logging.getLogger("recipe")


@dataclass(frozen=True)
class SourceRequest:
    """What all requests of one source have in common.

    Attributes:
        token: for the URL's own host.
        accept: called with each answer whose body is used.
        fresh: no cache may answer.
        refused: credentials that the source did not accept, and its status.
    """

    artifact: Artifact
    url: str
    token: str
    accept: Callable[[http.StreamedResponse], None]
    clock: Callable[[], float]
    fresh: bool = False
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def is_pinned(self) -> bool:
        """Whether a known digest proves the bytes."""
        return self.artifact.sha256 is not None

    def token_for(self, link: str) -> str:
        """Return the token, "" where the origin has redirected to another host.

        Raises:
            TransferError: the registry gives no token.
        """
        if TOKEN in self.refused:
            return ""
        if not link or urlsplit(link)[:2] == urlsplit(self.url)[:2]:
            # a registry's token may expire before the download ends
            return self.token or registry_tokens.authorization(self.url)
        return ""

    def access(self, sent: str) -> Access:
        """Return what the source was shown, for a message.

        Args:
            sent: credentials of the last request.
        """
        variable = proxy_variable(urlsplit(self.url).scheme, os.environ)
        is_hub = huggingface.may_send_token(self.url, os.environ)
        login_fix = logins.login(self.url).fix
        return Access(sent, tuple(self.refused.items()), is_hub, variable, login_fix)


class Attempt:
    """One request of one connection, and its body.

    Args:
        use_ranges: ask for a range, not for the whole file.
    """

    def __init__(
        self,
        request: SourceRequest,
        partial: Partial,
        pool: ConnectionPool,
        scheduler: PieceScheduler,
        links: LinkCache,
        *,
        use_ranges: bool,
    ) -> None:
        self._request = request
        self._partial = partial
        self._tracker = partial.tracker
        self._pool = pool
        self._scheduler = scheduler
        self._links = links
        self._use_ranges = use_ranges
        self._is_answered = False

    def run(self, connection: Connection, piece: Piece) -> Decision:
        """Fetch a piece; DONE when it is here.

        Raises:
            OSError: the file cannot be written.
            RecipeError: the disk has no room for the file.
        """
        try:
            with ExitStack() as stack:
                return self._fetch(stack, connection, piece)
        except http.PermanentTransferError as error:
            return self._broken(Action.GIVE_UP, error)
        except TransferError as error:
            return self._broken(Action.RETRY, error)

    def _broken(self, word: Action, error: TransferError) -> Decision:
        silent = not self._is_answered
        return Decision(
            word, error.what, remedy=error.fix, no_response=silent, rate_limited=silent
        )

    def _fetch(
        self, stack: ExitStack, connection: Connection, piece: Piece
    ) -> Decision:
        if not self._request.is_pinned and piece.pos and not self._partial.validator:
            # nothing would tell whether the rest belongs to the bytes that are here
            self._drop(piece)
        asked = self._range_of(piece)
        answer = self._send(stack, connection, asked)
        asked = asked._replace(
            link=bool(connection.link), access=self._request.access(answer.sent)
        )
        now = datetime.now(timezone.utc)
        decision = response.classify_response(
            answer.status, answer.headers, asked, now, answer.redirected
        )
        if decision.wrong_length is not None:
            return _with_content(decision, answer.body)
        if decision.action is Action.FULL_BODY and self._pool.count > 1:
            return Decision(Action.RETRY, "the server ignores Range", rate_limited=True)
        if decision.action in (Action.BODY, Action.FULL_BODY, Action.DONE):
            return self._take(connection, piece, answer, decision)
        return decision

    def _range_of(self, piece: Piece) -> RangeRequest:
        # the catalogue's size: what a server said before is not held against another
        size = self._request.artifact.size
        whole = RangeRequest(
            0, size, pinned=self._request.is_pinned, fresh=self._request.fresh
        )
        if not self._use_ranges:
            return whole
        is_rest = piece.end in (self._tracker.size, UNKNOWN_END)
        last = None if is_rest else piece.end - 1
        validator = self._partial.validator
        return whole._replace(first=piece.pos, validator=validator, last=last)

    def _send(
        self, stack: ExitStack, connection: Connection, asked: RangeRequest
    ) -> http.StreamedResponse:
        """Request the link that the origin gave, else the origin."""
        start = self._request.clock()
        with self._links.current() as link:
            connection.link = link
            answer = stack.enter_context(self._get(connection, asked))
            while self._is_refused(answer):
                answer = stack.enter_context(self._get(connection, asked))
            if answer.redirected and answer.status in (200, 206) and not link:
                self._links.store(answer.url)
        self._is_answered = True
        self._pool.record_answer(self._request.clock() - start)
        return answer

    def _get(
        self, connection: Connection, asked: RangeRequest
    ) -> AbstractContextManager[http.StreamedResponse]:
        return http.stream_get(
            connection.session,
            connection.link or self._request.url,
            response.request_headers(asked),
            lambda to: http.problem_of(to, pinned=self._request.is_pinned),
            self._request.token_for(connection.link),
            use_netrc=NETRC not in self._request.refused,
        )

    def _is_refused(self, answer: http.StreamedResponse) -> bool:
        """Return whether to ask without the credentials that an answer refuses.

        Only for a pinned file, which is the same for every user.
        """
        if not self._request.is_pinned:
            return False
        if not is_refused(answer.status, self._request.access(answer.sent)):
            return False
        if answer.sent not in self._request.refused:
            self._request.refused[answer.sent] = answer.status
            _log.warning(
                "%s: %s does not accept %s (HTTP %d); trying without it",
                self._request.artifact.label,
                host_of(answer.url),
                answer.sent,
                answer.status,
            )
        return True

    def _drop(self, piece: Piece) -> None:
        """Forget every byte; only for the one connection of an unpinned file."""
        size = self._request.artifact.size
        with self._partial.changed:
            piece.start = piece.pos = 0
            piece.end = piece.limit = UNKNOWN_END if size is None else size
        self._partial.restart()

    def _take(
        self,
        connection: Connection,
        piece: Piece,
        answer: http.StreamedResponse,
        decision: Decision,
    ) -> Decision:
        """Write a body to its place."""
        if connection.stopped:  # given up while it waited for this answer
            return Decision(Action.RETRY)
        self._check_total(decision)
        if decision.action is Action.FULL_BODY and not self._request.is_pinned:
            self._drop(piece)  # If-Range says that it has changed
        self._request.accept(answer)
        self._bound(piece, decision)
        if decision.action is Action.DONE:
            return decision
        skip = 0
        if decision.action is Action.FULL_BODY or not self._use_ranges:
            skip = piece.pos
            self._pool.limit(1)
        with self._partial.changed:
            self._partial.answers += 1
        return connection.read(
            piece,
            answer.body,
            lambda received: self._scheduler.extend(connection, received),
            skip,
            unlimited=decision.last is None,
            is_page=partial(
                content.is_web_page,
                labelled=decision.page,
                pinned=self._request.is_pinned,
            ),
        )

    def _check_total(self, decision: Decision) -> None:
        """Check that a source states one length.

        Raises:
            IntegrityError: its answers contradict each other.
        """
        with self._partial.changed:
            before = self._tracker.size
            is_news = self._is_news(decision)
        total = decision.total
        if is_news or total in (None, before):
            return
        if decision.action is Action.FULL_BODY and not self._request.is_pinned:
            return  # it has changed: every byte is dropped
        label = self._request.artifact.label
        what = f"{label}: a length of {total} bytes, after {before} bytes"
        raise IntegrityError(what)

    def _is_news(self, decision: Decision) -> bool:
        """Return whether a verdict's length replaces what was stated before.

        It does while no byte is here: the body with the other length was no file.
        """
        if self._tracker.size is None or decision.action is Action.DONE:
            return True
        is_first = not self._tracker.done and self._pool.count == 1
        return is_first and self._request.artifact.size is None

    def _bound(self, piece: Piece, decision: Decision) -> None:
        """Learn the size of the file, and how far the answer reaches."""
        with self._partial.changed:
            if decision.total is not None and self._is_news(decision):
                self._partial.set_size(decision.total)
                self._pool.limit(
                    scaling.max_connections(self._request.url, decision.total)
                )
            if self._tracker.size is not None:
                piece.end = min(piece.end, self._tracker.size)
            piece.limit = piece.end
            if decision.last is not None:
                piece.limit = decision.last + 1


def _with_content(decision: Decision, body: http.Body) -> Decision:
    """Add to a verdict how the body of a wrong length begins."""
    size = decision.wrong_length or 0
    view = memoryview(bytearray(min(size, content.HEAD_BYTES)))
    head = bytes(view[: body.read_into(view)])
    if content.is_web_page(head, decision.page, pinned=True):
        return response.web_page()
    opening = content.opening(head, size)
    return decision._replace(why=f"{decision.why}: {opening}") if opening else decision
