"""Upload one blob in pieces, and continue where the registry says.

Source: OCI distribution-spec 1.1, "Pushing a blob in chunks" and "Mounting a blob".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from tasks.console.progress import Progress
from tasks.errors import IntegrityError, TransferError
from tasks.network import http
from tasks.network.response import Action, Decision
from tasks.network.retry import RetryBudget
from tasks.publish import answers
from tasks.publish.answers import Ask, Verdict
from tasks.publish.client import Client, PassingError
from tasks.publish.records import Record
from tasks.publish.sources import Piece, Source

_BYTES = {"Content-Type": "application/octet-stream"}
_IN_ONE = 2  # restarts after which it is one request: not all registries take pieces
THERE = "there already"


class Blob(NamedTuple):
    """What is uploaded, and its digest."""

    label: str
    sha256: str
    source: Source
    mounts: Sequence[str] = ()  # repositories of the same host that may have it

    @property
    def digest(self) -> str:
        """Its digest, `sha256:…`."""
        return f"sha256:{self.sha256}"


class Upload:
    """One blob on its way to a registry.

    Args:
        record: where an upload that is not complete is remembered.
    """

    def __init__(
        self, client: Client, blob: Blob, record: Record, bar: Progress
    ) -> None:
        self._client = client
        self._blob = blob
        self._record = record
        self._bar = bar
        self._size = blob.source.size
        self._place = ""  # URL where the upload continues
        self._offset = 0  # bytes that the registry has
        self._is_unsure = False  # whether it may have another number
        self._most = answers.PIECE  # bytes of one request
        self._least = 0  # the same, as the registry demands
        self._failed_at = -1  # offset of the last request without an answer
        self._best = 0  # offset at the last progress
        self._restarts = 0
        self.sent = 0  # bytes, also those that were sent in vain

    def run(self) -> str:
        """Upload it, unless the registry has it; return how it got there.

        Raises:
            TransferError: the registry does not take it.
            IntegrityError: the file, or what the registry received, is not the blob.
        """
        if self._client.has(self._blob.digest, self._size):
            self._record.forget()
            return THERE
        self._continue_earlier()
        budget = RetryBudget()
        while True:
            before = self._best
            try:
                if how := self._step():
                    self._record.forget()
                    return how
            except http.PermanentTransferError:
                raise
            except TransferError as error:
                self._is_unsure = bool(self._place)
                moved = self._best > before
                self._client.wait(budget, error, moved, self._restarts)
            else:
                if self._best > before:
                    budget.reset()

    def _continue_earlier(self) -> None:
        """Take up the upload of an earlier run, if its place can be used."""
        place = self._record.load()
        if place and not answers.place_problem(place, self._client.base):
            self._place = place
            self._is_unsure = True

    def _step(self) -> str:
        """Send the next request; return how the blob got there, once it is there."""
        if not self._place:
            return self._begin()
        if self._is_unsure:
            self._ask_state()
        elif self._offset < self._size:
            self._send_piece()
        else:
            return self._finish()
        return ""

    def _begin(self) -> str:
        """Mount the blob, or start an upload."""
        url = f"{self._client.base}/blobs/uploads/"
        for repo in self._blob.mounts:
            query = f"?mount={self._blob.digest}&from={quote(repo, safe='/')}"
            meaning, answer = self._client.ask(Ask.MOUNT, "POST", url + query)
            if answer.status == 201:
                self._check_digest(answer)
                return f"mounted from {repo}"
            if meaning is Verdict.DONE and repo == self._blob.mounts[-1]:
                self._start(answer, url)
                return ""
        _, answer = self._client.ask(Ask.START, "POST", url)
        self._start(answer, url)
        return ""

    def _start(self, answer: http.Response, url: str) -> None:
        self._offset = 0
        self._is_unsure = False
        self._least = answers.least_piece(answer.headers)
        self._follow(answer, url)

    def _follow(self, answer: http.Response, url: str) -> None:
        """Continue where an answer says.

        Raises:
            PermanentTransferError: that is not a place that may be used.
        """
        place, problem = answers.next_place(answer.headers, url, self._client.base)
        if problem:
            what = f"{self._client.target.host}: the upload cannot continue: {problem}"
            raise http.PermanentTransferError(what)
        self._place = place
        self._record.save(place)

    def _ask_state(self) -> None:
        """Ask how many bytes the registry has."""
        meaning, answer = self._client.ask(Ask.STATUS, "GET", self._place)
        count = answers.stored_by_status(answer.headers)
        if meaning is not Verdict.DONE or count is None or count > self._size:
            self._restart(f"the registry has dropped the upload (HTTP {answer.status})")
        self._offset = count or 0
        self._is_unsure = False
        if answer.headers.get("location"):
            self._follow(answer, self._place)
        self._moved()

    def _send_piece(self) -> None:
        """Send the next bytes."""
        start = self._offset
        count = min(max(self._most, self._least), self._size - start)
        headers = dict(_BYTES)
        if count < self._size:
            headers["Content-Range"] = f"{start}-{start + count - 1}"

        def seen(done: int) -> None:
            self._client.renew_deadline()
            self._bar.update(start + done, self._size)

        def body() -> Piece:
            return Piece(self._blob.source, start, count, seen)

        try:
            meaning, answer = self._client.ask(
                Ask.PIECE, "PATCH", self._place, headers, body
            )
        except http.PermanentTransferError:
            raise
        except TransferError:
            if start == self._failed_at:
                self._shrink()  # a proxy may close the connection instead of a 413
            self._failed_at = start
            raise
        self.sent += count
        if meaning is Verdict.SMALLER:
            if not self._shrink():
                raise self._client.refusal(Ask.PIECE, answer)
            self._is_unsure = True
            return
        if meaning is Verdict.UNSURE:
            self._is_unsure = True
            raise _passing(f"HTTP {answer.status} to {Ask.PIECE.value}")
        if meaning is not Verdict.DONE:
            self._restart(f"the registry has dropped the upload (HTTP {answer.status})")
        stored = answers.stored(answer.headers)
        if stored is None:
            stored = start + count
        if stored > start + count:
            self._restart("the registry has more bytes than were sent")
        self._follow(answer, self._place)
        self._offset = stored
        self._moved()
        kept = stored - start
        if kept < min(count, answers.LEAST_PIECE):
            raise _passing(f"the registry has kept {max(kept, 0)} of {count} bytes")

    def _shrink(self) -> bool:
        """Send less at once; return whether that is possible."""
        if self._most <= max(answers.LEAST_PIECE, self._least):
            return False
        self._most = max(answers.LEAST_PIECE, self._most // 4)
        return True

    def _finish(self) -> str:
        """State the digest, which ends the upload."""
        got = self._blob.source.sha256()
        if got != self._blob.sha256:
            self._record.forget()
            raise changed(self._blob.label, self._blob.sha256, got)
        url = answers.with_digest(self._place, self._blob.digest)
        meaning, answer = self._client.ask(Ask.FINISH, "PUT", url, _BYTES)
        if meaning is Verdict.DONE:
            self._check_digest(answer)
            return "sent"
        if self._client.has(self._blob.digest, self._size):
            return "sent"  # the answer to an earlier request was lost
        if meaning is Verdict.UNSURE:
            self._is_unsure = True
            raise _passing(f"HTTP {answer.status} to {Ask.FINISH.value}")
        code = answers.error_code(answer.body)
        self._restart(f"HTTP {answer.status} {code} to {Ask.FINISH.value}")
        return ""

    def _check_digest(self, answer: http.Response) -> None:
        """Compare the digest that the registry states, if it does.

        Raises:
            IntegrityError: it is another one.
        """
        check_digest(self._client.target.host, answer, self._blob.digest)

    def _restart(self, why: str) -> None:
        """Start again from the first byte. Raises PassingError, after which it does."""
        self._place = ""
        self._offset = 0
        self._is_unsure = False
        self._restarts += 1
        if self._restarts >= _IN_ONE:
            self._most = self._size
        self._record.forget()
        raise _passing(why)

    def _moved(self) -> None:
        """Note progress; a registry that keeps a byte of each part makes none."""
        is_complete = self._offset == self._size
        if is_complete or self._offset >= self._best + answers.LEAST_PIECE:
            self._best = self._offset
        self._bar.update(self._offset, self._size)


def changed(label: str, expected: str, got: str) -> IntegrityError:
    """Return the error for a file that is not the one that was verified."""
    facts = [("expected", f"sha256:{expected}"), ("got", f"sha256:{got}")]
    what = f"{label} has changed on disk: the tag was not written"
    fix = "`doit audit`, then `doit download`, which repairs it; then push again"
    return IntegrityError(what, facts, fix)


def check_digest(host: str, answer: http.Response, expected: str) -> None:
    """Compare the digest that an answer states, if it does.

    Raises:
        IntegrityError: it is another one.
    """
    got = answers.wrong_digest(answer.headers, expected)
    if got:
        facts = [("expected", expected), ("got", got)]
        raise IntegrityError(f"{host} has stored other bytes", facts)


def _passing(why: str) -> PassingError:
    return PassingError(Decision(Action.RETRY, why))
