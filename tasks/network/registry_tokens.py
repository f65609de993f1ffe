"""Tokens of registries, in memory until they expire; each for one repository."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import TransferError
from tasks.network import docker_login, http, logins, registry

_RENEW_S = 10.0  # before it expires
_KEPT_S = 300.0  # how long it is known that no token is needed
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that a retry may not get


class RegistryTokens:
    """The tokens of a process; threads share them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # (scheme and host, repository) → what is sent, and until when
        self._known: dict[tuple[str, str], tuple[str, float]] = {}

    def authorization(self, url: str) -> str:
        """Return what a request for a blob or a manifest has to present.

        A token, `Basic …`, or nothing. For any other URL nothing, without a request.

        Raises:
            TransferError: the registry gives no token; a retry may help.
            PermanentTransferError: a retry would not help.
        """
        host, repo = registry.repository_of(url)
        # over plain http, a proxy could read it
        if not repo or (url.startswith("http:") and http.proxy_of(url)):
            return ""
        key = f"{urlsplit(url).scheme}://{host}", repo
        with self._lock:
            text, until = self._known.get(key, ("", 0.0))
            if self._clock() >= until:
                text, valid_s = self._requested(url, host, repo)
                until = self._clock() + max(valid_s - _RENEW_S, valid_s / 2)
                self._known[key] = text, until
            return text

    def _requested(self, url: str, host: str, repo: str) -> tuple[str, float]:
        """Return what the registry wants, and the seconds that it is valid."""
        with http.new_session() as session:
            session.use_netrc = False
            answer = http.request(session, "HEAD", url, {})
            if answer.status >= 500 or answer.status == 429:
                return "", 0.0  # the request itself reports it, and is retried
            if answer.status != 401:
                return "", _KEPT_S
            challenge = registry.parse_challenge(
                answer.headers.get("www-authenticate", "")
            )
            login = logins.login(url)
            if login.text and not login.text.startswith("Basic "):
                return login.text, _KEPT_S
            if challenge.scheme == "basic":
                return login_of(url, host), _KEPT_S
            if challenge.scheme != "bearer":
                return "", _KEPT_S  # the request itself reports the 401
            token = _exchange(session, challenge, url, host, repo)
            return token.text, token.expires_s


def requested(
    session: Any, header: str, url: str, repo: str, scopes: Sequence[str]
) -> registry.Token:
    """Return what a challenge asks for: a token, `Basic …`, or an empty text.

    Args:
        header: WWW-Authenticate of a 401.
        url: of the repository; over plain http through a proxy, nothing is sent.
        scopes: what the token has to allow.

    Raises:
        TransferError: the registry gives no token; a retry may help.
        PermanentTransferError: a retry would not help.
    """
    host = urlsplit(url).netloc
    challenge = registry.parse_challenge(header)
    if url.startswith("http:") and http.proxy_of(url):
        return registry.Token("", _KEPT_S)
    own = logins.login(url).text
    if own and not own.startswith("Basic "):
        return registry.Token(own, _KEPT_S)
    if challenge.scheme == "basic":
        return registry.Token(login_of(url, host), _KEPT_S)
    if challenge.scheme != "bearer":
        return registry.Token("", _KEPT_S)
    return _exchange(session, challenge, url, host, repo, scopes)


def _exchange(
    session: Any,
    challenge: registry.Challenge,
    url: str,
    host: str,
    repo: str,
    scopes: Sequence[str] = (),
) -> registry.Token:
    """Request a token. Raises TransferError, PermanentTransferError."""
    realm = challenge.realm
    problem = registry.realm_problem(realm, url) or http.problem_of(realm, pinned=False)
    if problem:
        what = f"{host}: the registry's tokens are not requested: {problem}"
        raise http.PermanentTransferError(what)
    login = ""
    if registry.may_send_login(realm, url):
        login = login_of(url, host)
    asked = registry.token_url(challenge, repo, scopes)
    answer = http.request(session, "GET", asked, {}, login)
    if answer.status in _PASSING:
        raise TransferError(f"{host}: HTTP {answer.status} to a request for a token")
    if answer.status != 200:
        purpose = "to read"
        if scopes:
            purpose = "to push to"
        what = f"{host} gives no token {purpose} {repo} (HTTP {answer.status})"
        raise http.PermanentTransferError(what, fix=login_fix(url, host))
    token = registry.parse_token(answer.body)
    if token is None:
        what = f"{host}: the response to a request for a token has no usable token"
        raise http.PermanentTransferError(what)
    return token


def login_of(url: str, host: str) -> str:
    """Return the login for a registry: of `auth:` in models.yaml, else docker's."""
    return logins.login(url).text or docker_login.login(host)


def login_fix(url: str, host: str) -> str:
    """Return what the user can do where a registry refuses access."""
    own = logins.login(url)
    if own.text:
        return own.fix
    return " or ".join(filter(None, [own.fix, f"docker login {host}"]))


@functools.cache
def _tokens() -> RegistryTokens:
    """Return the tokens of this process."""
    return RegistryTokens()


def authorization(url: str) -> str:
    """Return what a request presents to a registry, as `RegistryTokens` does."""
    return _tokens().authorization(url)
