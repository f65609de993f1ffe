"""One request for a piece: send it, judge the answer, write the body to its place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import urlsplit

from tasks.catalogue.artifact import Artifact
from tasks.errors import TransferError
from tasks.network import http, response
from tasks.network.response import Asked, Verdict, Word
from tasks.transfer import scaling
from tasks.transfer.connection import Lane
from tasks.transfer.connection_pool import ConnectionPool
from tasks.transfer.link_cache import LinkCache
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import ENDLESS, Piece
from tasks.transfer.scheduler import PieceScheduler


@dataclass(frozen=True)
class Request:
    """What all requests of one source have in common.

    Attributes:
        token: for the URL's own host.
        accept: called with each answer whose body is used.
    """

    artifact: Artifact
    url: str
    token: str
    accept: Callable[[http.Answer], None]
    clock: Callable[[], float]

    @property
    def is_pinned(self) -> bool:
        """Whether a known digest proves the bytes."""
        return self.artifact.sha256 is not None

    def token_for(self, link: str) -> str:
        """Return the token, "" where the origin has redirected to another host."""
        if not link or urlsplit(link)[:2] == urlsplit(self.url)[:2]:
            return self.token
        return ""


class Attempt:
    """One request of one connection, and its body.

    Args:
        use_ranges: ask for a range, not for the whole file.
    """

    def __init__(
        self,
        request: Request,
        partial: Partial,
        pool: ConnectionPool,
        scheduler: PieceScheduler,
        links: LinkCache,
        *,
        use_ranges: bool,
    ) -> None:
        self._request = request
        self._partial = partial
        self._plan = partial.plan
        self._pool = pool
        self._scheduler = scheduler
        self._links = links
        self._use_ranges = use_ranges
        self._is_answered = False

    def run(self, connection: Lane, piece: Piece) -> Verdict:
        """Fetch a piece; DONE when it is here.

        Raises:
            OSError: the file cannot be written.
            RecipeError: the disk has no room for the file.
        """
        try:
            with ExitStack() as stack:
                return self._fetch(stack, connection, piece)
        except http.FatalTransfer as error:
            return self._broken(Word.GIVE_UP, error)
        except TransferError as error:
            return self._broken(Word.RETRY, error)

    def _broken(self, word: Word, error: TransferError) -> Verdict:
        silent = not self._is_answered
        return Verdict(word, error.what, remedy=error.fix, silent=silent, crowded=silent)

    def _fetch(self, stack: ExitStack, connection: Lane, piece: Piece) -> Verdict:
        if not self._request.is_pinned and piece.pos and not self._partial.validator:
            # nothing would tell whether the rest belongs to the bytes that are here
            self._drop(piece)
        asked = self._range_of(piece)
        answer = self._send(stack, connection, asked)
        verdict = response.judge(
            answer.status,
            answer.headers,
            asked._replace(link=bool(connection.link)),
            datetime.now(timezone.utc),
            answer.redirected,
        )
        if verdict.word is Word.WHOLE and self._pool.count > 1:
            return Verdict(Word.RETRY, "the server ignores Range", crowded=True)
        if verdict.word in (Word.BODY, Word.WHOLE, Word.DONE):
            return self._take(connection, piece, answer, verdict)
        return verdict

    def _range_of(self, piece: Piece) -> Asked:
        # the catalogue's size: what a server said before is not held against another
        size = self._request.artifact.size
        if not self._use_ranges:
            return Asked(0, size)
        is_rest = piece.end in (self._plan.size, ENDLESS)
        last = None if is_rest else piece.end - 1
        return Asked(piece.pos, size, self._partial.validator, last)

    def _send(self, stack: ExitStack, connection: Lane, asked: Asked) -> http.Answer:
        """Request the link that the origin gave, else the origin."""
        start = self._request.clock()
        with self._links.current() as link:
            connection.link = link
            answer = stack.enter_context(
                http.get(
                    connection.session,
                    link or self._request.url,
                    response.request_headers(asked),
                    lambda to: http.problem_of(to, pinned=self._request.is_pinned),
                    self._request.token_for(link),
                )
            )
            if answer.redirected and answer.status in (200, 206) and not link:
                self._links.store(answer.url)
        self._is_answered = True
        self._pool.record_answer(self._request.clock() - start)
        return answer

    def _drop(self, piece: Piece) -> None:
        """Forget every byte; only for the one connection of an unpinned file."""
        size = self._request.artifact.size
        with self._partial.changed:
            piece.start = piece.pos = 0
            piece.end = piece.limit = ENDLESS if size is None else size
        self._partial.restart()

    def _take(self, connection: Lane, piece: Piece, answer: http.Answer, verdict: Verdict) -> Verdict:
        """Write a body to its place."""
        if connection.stopped:  # given up while it waited for this answer
            return Verdict(Word.RETRY)
        if verdict.word is Word.WHOLE and not self._request.is_pinned:
            self._drop(piece)  # If-Range says that it has changed
        self._request.accept(answer)
        self._bound(piece, verdict)
        if verdict.word is Word.DONE:
            return verdict
        skip = 0
        if verdict.word is Word.WHOLE or not self._use_ranges:
            skip = piece.pos
            self._pool.limit(1)
        with self._partial.changed:
            self._partial.answers += 1
        return connection.read(
            piece,
            answer.body,
            lambda received: self._scheduler.extend(connection, received),
            skip,
            unlimited=verdict.last is None,
        )

    def _bound(self, piece: Piece, verdict: Verdict) -> None:
        """Learn the size of the file, and how far the answer reaches."""
        with self._partial.changed:
            is_news = self._plan.size is None or verdict.word is Word.DONE
            if verdict.total is not None and is_news:
                self._partial.expect(verdict.total)
                self._pool.limit(scaling.most_lanes(self._request.url, verdict.total))
            if self._plan.size is not None:
                piece.end = min(piece.end, self._plan.size)
            piece.limit = piece.end
            if verdict.last is not None:
                piece.limit = verdict.last + 1
