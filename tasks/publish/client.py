"""Ask one repository of a registry; its credentials go to its own host only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from tasks.console import formatting
from tasks.console.logs import log_event
from tasks.errors import TransferError
from tasks.network import http, logins, registry_tokens
from tasks.network.response import Action, Decision, retry_after
from tasks.network.retry import RetryBudget, SourceFailedError
from tasks.publish import answers
from tasks.publish.answers import Ask, Verdict
from tasks.references import OciReference
from tasks.transfer.dependencies import Dependencies

_ANSWER_S = 60.0  # after the last byte of a request
_FINISH_S = 300.0  # a registry may copy the whole file, or hash it again
_RENEW_S = 10.0  # before a token expires


class PassingError(TransferError):
    """The registry did not do what was asked; a later request may succeed."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(decision.why)


class Client:
    """One repository of a registry.

    Args:
        sources: repositories of the same host that are read.
    """

    def __init__(
        self,
        target: OciReference,
        sources: Sequence[str] = (),
        dependencies: Dependencies | None = None,
    ) -> None:
        self.target = target
        self.base = target.base
        self.dependencies = dependencies or Dependencies()
        self._scopes = [f"repository:{target.repo}:pull,push"]
        self._scopes += [f"repository:{repo}:pull" for repo in sources]
        self._session = http.new_session()
        self._challenge = ""
        self._authorization = ""
        self._until = 0.0
        self._uses_netrc = False  # of Basic authentication, without another login

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def renew_deadline(self) -> None:
        """Allow the registry its time again, while a body is sent."""
        if self._session.deadline:
            self._session.deadline.renew(_ANSWER_S)

    def ask(
        self,
        ask: Ask,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        data: Callable[[], Any] = lambda: None,
    ) -> tuple[Verdict, http.Response]:
        """Send one request, after a login if it needs one.

        Args:
            data: returns the body.

        Raises:
            TransferError: there is no response, or one that a retry may improve.
            PermanentTransferError: the registry refuses it.
        """
        answer = self._sent(ask, method, url, headers or {}, data())
        if answer.status == 401 and answers.is_same_host(url, self.base):
            self._challenge = answer.headers.get("www-authenticate", "")
            self._login()
            answer = self._sent(ask, method, url, headers or {}, data())
        code = answers.error_code(answer.body)
        meaning = answers.verdict(ask, answer.status, code)
        if meaning is Verdict.RETRY:
            wait_s = retry_after(answer.headers, datetime.now(timezone.utc))
            why = f"HTTP {answer.status} to {ask.value}"
            raise PassingError(Decision(Action.RETRY, why, wait_s=wait_s))
        if meaning is Verdict.REFUSED and ask is not Ask.MOUNT:
            raise self.refusal(ask, answer)
        return meaning, answer

    def refusal(self, ask: Ask, answer: http.Response) -> http.PermanentTransferError:
        """Return the error for an answer that ends the push."""
        code = answers.error_code(answer.body)
        location = answer.headers.get("location", "")
        host, repo = self.target.host, self.target.repo
        found = answers.refusal(ask, answer.status, code, host, repo, location)
        fix = found.fix
        if answer.status in (401, 403):
            fix = logins.login(self.base).fix or fix
        return http.PermanentTransferError(found.what, fix=fix)

    def ask_again(
        self,
        ask: Ask,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        data: Callable[[], Any] = lambda: None,
    ) -> tuple[Verdict, http.Response]:
        """Send a request until it is answered.

        Raises:
            TransferError: as `ask`, or it was not answered in time.
        """
        budget = RetryBudget()
        while True:
            try:
                return self.ask(ask, method, url, headers, data)
            except http.PermanentTransferError:
                raise
            except TransferError as error:
                self.wait(budget, error, moved=False, restarts=0)

    def wait(
        self, budget: RetryBudget, error: TransferError, moved: bool, restarts: int
    ) -> None:
        """Wait before a retry.

        Raises:
            TransferError: there were enough.
        """
        decision = Decision(Action.RETRY, error.what)
        if isinstance(error, PassingError):
            decision = error.decision
        jitter = self.dependencies.jitter()
        try:
            delay_s = budget.next_delay_s(decision, moved, restarts, jitter)
        except SourceFailedError as failed:
            what = f"{self.target} could not be pushed: {failed}"
            again = "run it again: files that are complete are not sent again"
            fix = error.fix or again
            raise http.PermanentTransferError(what, fix=fix) from None
        log_event(
            "retry",
            "%s: %s; retrying in %s",
            self.target,
            decision.why,
            formatting.format_duration(delay_s),
            level=logging.WARNING,
            url=str(self.target),
            why=decision.why,
            wait_s=round(delay_s, 1),
        )
        self.dependencies.sleep(delay_s)

    def has(self, digest: str, size: int) -> bool:
        """Return whether the repository has a blob.

        Raises:
            TransferError: as `ask_again`; or it states another size.
        """
        url = f"{self.base}/blobs/{digest}"
        meaning, answer = self.ask_again(Ask.FIND, "HEAD", url)
        stated = answer.headers.get("content-length")
        if answer.status == 200 and stated not in (None, str(size)):
            what = f"{self.target.host} has {digest} with another size"
            facts = [("expected", f"{size} bytes"), ("got", f"{stated} bytes")]
            raise http.PermanentTransferError(what, facts)
        return meaning is Verdict.DONE

    def _login(self) -> None:
        """Get what the registry's challenge asks for."""
        # the registry names the host of its tokens
        self._session.use_netrc = False
        token = registry_tokens.requested(
            self._session, self._challenge, self.base, self.target.repo, self._scopes
        )
        self._authorization = token.text
        is_private = self.base.startswith("https:") or not http.proxy_of(self.base)
        self._uses_netrc = is_private and not token.text
        valid_s = max(token.expires_s - _RENEW_S, token.expires_s / 2)
        self._until = self.dependencies.clock() + valid_s

    def _sent(
        self, ask: Ask, method: str, url: str, headers: Mapping[str, str], data: Any
    ) -> http.Response:
        """Send a request with the credentials that its host may see."""
        token = ""
        self._session.use_netrc = False
        if answers.is_same_host(url, self.base):
            self._session.use_netrc = self._uses_netrc
            if self._challenge and self.dependencies.clock() >= self._until:
                self._login()
            token = self._authorization
        limit_s = _ANSWER_S
        if ask in (Ask.FINISH, Ask.MANIFEST):
            limit_s = _FINISH_S
        return http.request(
            self._session, method, url, headers, token, limit_s=limit_s, data=data
        )
