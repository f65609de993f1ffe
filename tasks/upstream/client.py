"""Request what a file's publisher states about it, without downloading it.

The Hub is asked with HEAD, GitHub for the release; other servers for the length only.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from urllib.parse import quote, urljoin, urlsplit

from tasks import references
from tasks.catalogue.constraints import LATEST
from tasks.catalogue.file_specs import (
    HubFile,
    Release,
    parse_hub_url,
    parse_release_url,
)
from tasks.console import formatting
from tasks.console.logs import logger
from tasks.errors import TransferError
from tasks.network import access, http, huggingface, logins, registry_tokens, response
from tasks.network.answers import file_size, parse_json
from tasks.network.response import Action, Decision, RangeRequest
from tasks.network.retry import RetryBudget, SourceFailedError
from tasks.network.tokens import github_token, host_token
from tasks.transfer.download import check_endpoint
from tasks.upstream import registry
from tasks.upstream.metadata import (
    RemoteFile,
    explain_hub_error,
    explain_missing,
    parse_hub_headers,
    parse_license,
    parse_release,
)
from tasks.upstream.ranged_file import Part, parse_part
from tasks.urls import host_of

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_GONE = (404, 410)
_REFUSED = (401, 403)
NOTED_S = 5.0  # pauses of this length or longer are logged
_GITHUB_HEADERS = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
}
_TRIES = 3  # few, since a user waits for the answer


class UpstreamClient:
    """The publishers of a catalogue's files; connections are reused."""

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        limit_s: float = http.ANSWER_S,
    ) -> None:
        self._session = http.new_session()
        self._sleep = sleep
        self._jitter = jitter
        self._limit_s = limit_s
        self._releases: dict[str, object] = {}  # URL → JSON
        self._registry_files: dict[str, RemoteFile] = {}  # by reference
        self._silent: dict[str, str] = {}  # host that does not respond → reason

    def fetch_metadata(
        self, url: str, version: str = "", pinned: bool = False
    ) -> RemoteFile:
        """Return what is known of the file at a URL.

        Args:
            version: `latest` for the newest release.
            pinned: the file's digest is known; else only HTTPS is trusted.

        Raises:
            TransferError: there is no response, or it is an error.
        """
        if file := parse_hub_url(url):
            return self._hub(file, pinned)
        if references.scheme_of(url):
            return self._registered(url, pinned)
        if of_release := parse_release_url(url):
            stated = self._release(of_release, version, pinned)
            if stated is not None:
                return stated
        return self._plain(url, pinned)

    def _registered(self, url: str, pinned: bool = True) -> RemoteFile:
        """Return what a registry states about a reference; it is asked once."""
        if url not in self._registry_files:
            ask = partial(self._ask, hops=_MAX_REDIRECTS, pinned=False)
            stated = registry.fetch_file(url, ask)
            if stated is None:
                raise TransferError(references.problem_of(url))
            if stated.size is None:
                at = references.file_url(url, stated.sha256, os.environ)
                stated = stated._replace(size=self._plain(at, pinned).size)
            self._registry_files[url] = stated
            self._registry_files[stated.url] = stated  # the same, by its digest
        return self._registry_files[url]

    def _plain(self, url: str, pinned: bool) -> RemoteFile:
        """Request the length of a file on any other server."""
        token = host_token(url)
        answer = self._ask("HEAD", url, {}, token, _MAX_REDIRECTS, pinned)
        decision = _judged(answer)
        login = logins.login(url)
        if answer.status in _REFUSED and login.variable:
            raise TransferError(f"{url}: HTTP {answer.status}", fix=login.fix)
        if answer.status in _GONE:
            raise TransferError(f"{url}: {decision.reason}")
        if answer.status != 200 or decision.action is not Action.BODY or decision.page:
            return RemoteFile(url)  # an error, a web page, or a compressed response
        return RemoteFile(url, None, file_size(decision.total))

    def fetch_part(self, url: str, start: int, stop: int) -> Part:
        """Return bytes of a file; a failure is not retried.

        Args:
            stop: the byte after the last.

        Raises:
            TransferError: the server does not send them.
        """
        if parse_hub_url(url):
            check_endpoint(pinned=True)
            url = huggingface.rewrite_to_endpoint(url, os.environ)
        token = host_token(url)
        if references.scheme_of(url):
            sha256 = self._registered(url).sha256
            url = references.file_url(url, sha256, os.environ)
            token = registry_tokens.authorization(url)
        wanted = {"Range": f"bytes={start}-{stop - 1}"}
        answer = self._ask("GET", url, wanted, token, _MAX_REDIRECTS, tries=1)
        return parse_part(answer, start, stop)

    def fetch_license(self, url: str) -> str:
        """Return the license that a file's publisher states, or nothing.

        Raises:
            TransferError: there is no response.
        """
        if file := parse_hub_url(url):
            check_endpoint(pinned=True)
            path = f"/api/models/{file.repo}/revision/{file.revision}"
            api = huggingface.rewrite_to_endpoint(huggingface.HUB + path, os.environ)
            token = host_token(api)
        elif of_release := parse_release_url(url):
            api = of_release.api
            token = github_token(api)
        elif references.parse_oci(url):
            return self._registered(url).license
        else:
            return ""
        answer = self._ask("GET", api, {}, token)
        if answer.status != 200:
            return ""
        try:
            return parse_license(parse_json(answer.text))
        except ValueError:
            return ""

    def _hub(self, file: HubFile, pinned: bool) -> RemoteFile:
        check_endpoint(pinned=pinned)
        url = huggingface.rewrite_to_endpoint(file.url, os.environ)
        home = huggingface.endpoint(os.environ)
        for _ in range(_MAX_REDIRECTS):
            token = host_token(url)
            answer = self._ask("HEAD", url, {}, token, pinned=pinned)
            target = _target(url, answer)
            if urlsplit(target)[:2] != urlsplit(home)[:2]:
                break
            url = target  # the repository was renamed, or the file is small
        if answer.status >= 400:
            what, remedy = explain_hub_error(
                file, answer.status, answer.headers, bool(token)
            )
            presented = access.Access(access.TOKEN if token else "", is_hub=True)
            decision = _judged(answer, presented)
            own_fix = logins.login(url).fix
            raise TransferError(
                what or f"{url}: {decision.why}",
                fix=own_fix or remedy or decision.remedy,
            )
        return parse_hub_headers(file, answer.headers)

    def _release(self, found: Release, version: str, pinned: bool) -> RemoteFile | None:
        """Return what a release states; None if its host is not a GitHub."""
        tag = f"tags/{quote(found.tag, safe='')}"
        if version == LATEST:
            tag = LATEST
        url = f"{found.api}/releases/{tag}"
        if url not in self._releases:
            answer = self._ask(
                "GET", url, _GITHUB_HEADERS, github_token(url), _MAX_REDIRECTS, pinned
            )
            is_github = found.host == "github.com" or version == LATEST
            if answer.status in _GONE and not is_github:
                return None  # other sites have the same form of URLs, and another API
            self._releases[url] = _release_json(url, answer)
        stated = parse_release(found, self._releases[url])
        if stated is None:
            name, remedy = explain_missing(found, self._releases[url])
            what = f"the release at {url} has no file {name}"
            raise TransferError(
                f"{what}, or does not state its https address and its size", fix=remedy
            )
        return stated

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        token: str,
        hops: int = 0,
        pinned: bool = True,
        tries: int = _TRIES,
    ) -> http.Response:
        """Send a request, and retry it where that may help.

        Args:
            hops: redirects to follow.

        Raises:
            TransferError: there is no response, or the URL is not allowed.
        """
        allowed = partial(http.problem_of, pinned=pinned)
        if problem := allowed(url):
            raise TransferError(problem)
        if why := self._silent.get(urlsplit(url).netloc):
            raise TransferError(why)
        budget = RetryBudget(tries)
        while True:
            try:
                answer = http.request(
                    self._session,
                    method,
                    url,
                    headers,
                    token,
                    hops,
                    self._limit_s,
                    allowed,
                )
                decision = _judged(answer)
                if answer.status < 400 or decision.action is not Action.RETRY:
                    return answer
            except http.PermanentTransferError as error:
                raise TransferError(
                    f"{host_of(url)}: {error.what}", fix=error.fix
                ) from None
            except TransferError as error:
                decision = Decision(
                    Action.RETRY, error.what, remedy=error.fix, no_response=True
                )
            try:
                self._wait(
                    url,
                    decision,
                    budget.next_delay_s(decision, False, 0, self._jitter()),
                )
            except SourceFailedError as reason:
                why = f"{host_of(url)}: {reason}"
                if reason.silent:
                    self._silent[urlsplit(url).netloc] = why
                raise TransferError(why) from None

    def _wait(self, url: str, decision: Decision, pause_s: float) -> None:
        if pause_s >= NOTED_S:
            pause = formatting.format_duration(pause_s)
            logger().info("%s: %s; retrying in %s", host_of(url), decision.why, pause)
        self._sleep(pause_s)


def _target(url: str, answer: http.Response) -> str:
    """Return the URL to which a response redirects, or nothing."""
    if answer.status not in _REDIRECTS:
        return ""
    try:
        target = urljoin(url, answer.headers.get("location", ""))
        urlsplit(target)
    except ValueError:
        return ""
    return target


def _judged(answer: http.Response, presented: access.Access | None = None) -> Decision:
    now = datetime.now(timezone.utc)
    asked = RangeRequest(access=presented or access.Access())
    return response.classify_response(answer.status, answer.headers, asked, now)


def _release_json(url: str, answer: http.Response) -> object:
    """Return a release's JSON.

    Raises:
        TransferError: the response is an error, or not JSON.
    """
    if answer.status != 200:
        raise TransferError(f"{url}: HTTP {answer.status}", fix=_release_fix(answer))
    try:
        return parse_json(answer.text)
    except ValueError:
        what = f"{url}: expected JSON, got {answer.text[:60]!r}"
        raise TransferError(what) from None


def _release_fix(answer: http.Response) -> str:
    if answer.headers.get("x-ratelimit-remaining") == "0":
        return "set GITHUB_TOKEN: without a token, GitHub allows 60 requests an hour"
    if answer.status == 401:
        return "set another GITHUB_TOKEN, or unset it"
    return ""
