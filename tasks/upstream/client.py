"""Asking publishers what they state about a file, without fetching it.

Knows the Hub's HEAD and GitHub's releases; any other server is asked for the length alone.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from urllib.parse import quote, urljoin, urlsplit

from tasks.catalogue.file_specs import HubFile, Release, hub_file, release
from tasks.catalogue.types import LATEST
from tasks.console import formatting
from tasks.console.logs import logger
from tasks.errors import TransferError
from tasks.network import http, huggingface, response
from tasks.network.answers import file_size, parsed
from tasks.network.response import Asked, Verdict, Word
from tasks.network.retry import GaveUp, Patience
from tasks.network.tokens import github_token, hub_token
from tasks.transfer.download import check_endpoint
from tasks.upstream.metadata import Stated, hub_problem, hub_states, licence_of, release_states
from tasks.urls import host_of

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_GONE = (404, 410)
NOTED_S = 5.0  # a pause of this length is said
_TRIES = 3  # a question is short, and somebody waits for the answer


class Publishers:
    """All publishers of a catalogue; connections are kept."""

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        limit_s: float = http.ANSWER_S,
    ) -> None:
        self._session = http.new_session()
        self._sleep, self._jitter, self._limit_s = sleep, jitter, limit_s
        self._releases: dict[str, object] = {}  # JSON of each release that was asked for
        self._silent: dict[str, str] = {}  # host that does not answer: why

    def state(self, url: str, version: str = "", pinned: bool = False) -> Stated:
        """What is known of the file behind a URL.

        Args:
            version: `latest` for the newest release.
            pinned: whether its digest is known; else the answer must not come in the clear.

        Raises TransferError: no answer, or one that refuses.
        """
        if file := hub_file(url):
            return self._hub(file, pinned)
        if (found := release(url)) and (stated := self._release(found, version, pinned)):
            return stated
        answer = self._ask("HEAD", url, {}, "", _MOST_REDIRECTS, pinned)
        if answer.status in _GONE:
            raise TransferError(f"{url}: {_judged(answer).reason}")
        whole = answer.status == 200 and _judged(answer).word is Word.BODY  # no web page, no other encoding
        return Stated(url, None, file_size(_judged(answer).total) if whole else None)

    def licence(self, url: str) -> str:
        """The licence that the publisher of a file names, or nothing. Raises TransferError."""
        file, found = hub_file(url), release(url)
        if file:
            check_endpoint(pinned=True)
            url = huggingface.at_endpoint(
                f"{huggingface.HUB}/api/models/{file.repo}/revision/{file.revision}", os.environ
            )
            answer = self._ask("GET", url, {}, hub_token(url))
        elif found:
            answer = self._ask("GET", found.api, {}, github_token(found.api))
        else:
            return ""
        try:
            return licence_of(parsed(answer.text)) if answer.status == 200 else ""
        except ValueError:
            return ""

    def _hub(self, file: HubFile, pinned: bool) -> Stated:
        check_endpoint(pinned=pinned)
        url, home = huggingface.at_endpoint(file.url, os.environ), huggingface.endpoint(os.environ)
        for _ in range(_MOST_REDIRECTS):
            token = hub_token(url)
            answer = self._ask("HEAD", url, {}, token, pinned=pinned)
            target = _target(url, answer)
            if urlsplit(target)[:2] != urlsplit(home)[:2]:
                break
            url = target  # another name of the repository, or of a small file
        if answer.status >= 400:
            what, remedy = hub_problem(file, answer.status, answer.headers, bool(token))
            verdict = _judged(answer)
            raise TransferError(what or f"{url}: {verdict.why}", fix=remedy or verdict.remedy)
        return hub_states(file, answer.headers)

    def _release(self, found: Release, version: str, pinned: bool) -> Stated | None:
        """What a release states; None where its host is no GitHub."""
        which = LATEST if version == LATEST else f"tags/{quote(found.tag, safe='')}"
        url = f"{found.api}/releases/{which}"
        if url not in self._releases:
            headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
            answer = self._ask("GET", url, headers, github_token(url), _MOST_REDIRECTS, pinned)
            if found.host != "github.com" and version != LATEST and answer.status in _GONE:
                return None  # others have such addresses, too, and another API
            if answer.status != 200:
                raise TransferError(f"{url}: HTTP {answer.status}", fix=_release_fix(answer))
            try:
                self._releases[url] = parsed(answer.text)
            except ValueError:
                raise TransferError(f"{url}: expected JSON, got {answer.text[:60]!r}") from None
        stated = release_states(found, self._releases[url])
        if stated is None:
            what = f"the release behind {url} has no file {found.asset}"
            raise TransferError(f"{what}, or does not state its https address and its size")
        return stated

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        token: str,
        hops: int = 0,
        pinned: bool = True,
    ) -> http.Said:
        """One answer, asked for again where that may help. Raises TransferError."""
        allowed = partial(http.problem_of, pinned=pinned)
        if problem := allowed(url):
            raise TransferError(problem)
        if why := self._silent.get(urlsplit(url).netloc):
            raise TransferError(why)
        patience = Patience(_TRIES)
        while True:
            try:
                answer = http.ask(self._session, method, url, headers, token, hops, self._limit_s, allowed)
                verdict = _judged(answer)
                if answer.status < 400 or verdict.word is not Word.RETRY:
                    return answer
            except http.FatalTransfer as error:
                raise TransferError(f"{host_of(url)}: {error.what}", fix=error.fix) from None
            except TransferError as error:
                verdict = Verdict(Word.RETRY, error.what, remedy=error.fix, silent=True)
            try:
                self._wait(url, verdict, patience.pause_s(verdict, False, 0, self._jitter()))
            except GaveUp as reason:
                why = f"{host_of(url)}: {reason}"
                if reason.silent:
                    self._silent[urlsplit(url).netloc] = why
                raise TransferError(why) from None

    def _wait(self, url: str, verdict: Verdict, pause_s: float) -> None:
        if pause_s >= NOTED_S:
            logger().info("%s: %s; asked again in %s", host_of(url), verdict.why, formatting.seconds(pause_s))
        self._sleep(pause_s)


def _target(url: str, answer: http.Said) -> str:
    """Where an answer redirects to; nothing where it does not, or to what is not a URL."""
    if answer.status not in _REDIRECTS:
        return ""
    try:
        target = urljoin(url, answer.headers.get("location", ""))
        urlsplit(target)
    except ValueError:
        return ""
    return target


def _judged(answer: http.Said) -> Verdict:
    return response.judge(answer.status, answer.headers, Asked(), datetime.now(timezone.utc))


def _release_fix(answer: http.Said) -> str:
    if answer.headers.get("x-ratelimit-remaining") == "0":
        return "set GITHUB_TOKEN: without one, GitHub answers 60 questions an hour"
    return "another GITHUB_TOKEN, or none" if answer.status == 401 else ""
