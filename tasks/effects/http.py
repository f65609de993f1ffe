"""The network: one streamed GET, or a short answer. Knows requests; what an answer means, `core` decides.

Only TransferError and FatalTransfer leave this module, also when a body is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter

from tasks.core import hub
from tasks.core.errors import TransferError
from tasks.core.urls import is_proxy

CONNECT_S = 10.0
MOST_TEXT = 4 * 1024**2  # bytes of an answer that is read whole; a release with its notes has some 100 kB
SILENCE_S = 30.0  # longest pause between two bytes before the connection counts as dead

_HUB_HEADERS = ("x-linked-etag", "x-linked-size", "x-repo-commit")


class FatalTransfer(TransferError):
    """This source will not deliver, however often it is asked."""


class Body:
    """The bytes of an answer, as they are sent."""

    def __init__(self, raw: Any) -> None:
        # http.client's own response: it fills a buffer in place, where urllib3 copies twice; a short body
        # is an early end here, not an exception, and whoever reads counts
        self._raw, self._source = raw, raw._original_response

    def read_into(self, view: memoryview) -> int:
        """Fill the view; fewer bytes only at the end, 0 behind it. Raises TransferError."""
        try:
            return int(self._source.readinto(view))
        except (OSError, HTTPException) as error:
            raise _named(error) from None

    def has_more(self) -> bool:
        """Whether another byte comes; it is lost. Raises TransferError."""
        return bool(self.read_into(memoryview(bytearray(1))))

    def release(self) -> None:
        """Give the connection back for the next request, if everything was read."""
        if self._source.isclosed():
            self._raw.release_conn()


class Answer(NamedTuple):
    """An HTTP answer whose body has not been read."""

    status: int
    headers: Mapping[str, str]  # lower-case names; the Hub's X-Linked-* of its redirect are among them
    url: str  # the last one, after redirects
    redirected: bool  # that is another one than was asked for
    body: Body


def new_session() -> Any:
    """A session that retries nothing by itself: when and how often is our decision."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=0))
    session.headers["User-Agent"] = f"llamafile-recipe ({requests.utils.default_user_agent()})"
    return session


@contextmanager
def get(
    session: Any,
    url: str,
    headers: Mapping[str, str],
    problem: Callable[[str], str] = lambda _: "",
    token: str = "",
) -> Iterator[Answer]:
    """Ask for a URL, following redirects; certificates are verified (R29).

    Args:
        problem: why a redirect may not be followed to a URL, or nothing.
        token: goes to the URL's own host; requests drops it on the way to another one.

    Raises:
        TransferError: no answer this time.
        FatalTransfer: there will be none.
    """

    def look(response: Any, **_: Any) -> None:  # before the next request, not after it
        target = session.get_redirect_target(response)
        if target and (why := problem(requests.utils.requote_uri(urljoin(response.url, target)))):
            response.close()
            raise FatalTransfer(f"a redirect to {why}")

    response = _sent(session, "GET", url, headers, token, hooks={"response": look})
    first = response.history[0].headers if response.history else response.headers
    names = {k.lower(): v for k, v in response.headers.items()}
    names.update({k: first[k] for k in _HUB_HEADERS if k in first})
    body = Body(response.raw)
    try:
        yield Answer(response.status_code, names, response.url, bool(response.history), body)
        body.release()
    finally:
        response.close()


class Said(NamedTuple):
    """A short answer, read to its end."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    text: str


def ask(
    session: Any,
    method: str,
    url: str,
    headers: Mapping[str, str],
    token: str = "",
    hops: int = 0,
    limit_s: float = 0,
) -> Said:
    """Ask for what is short.

    Args:
        hops: redirects to follow, 0 for none.
        limit_s: time for the connection, and for each answer, where it is not the usual.

    Raises TransferError, FatalTransfer.
    """
    session.max_redirects = max(1, hops)  # requests looks at the next one even where it follows none
    plain = {"Accept-Encoding": "identity", **headers}
    with _sent(session, method, url, plain, token, limit_s, allow_redirects=hops > 0) as response:
        body = Body(response.raw)
        view = memoryview(bytearray(MOST_TEXT))
        count = body.read_into(view) if method != "HEAD" else 0
        names = {key.lower(): value for key, value in response.headers.items()}
        return Said(response.status_code, names, bytes(view[:count]).decode("utf-8", "replace"))


def _sent(
    session: Any,
    method: str,
    url: str,
    headers: Mapping[str, str],
    token: str,
    limit_s: float = 0,
    **more: Any,
) -> requests.Response:
    """The answer to a request, its body unread. Raises TransferError, FatalTransfer."""
    if variable := hub.offline(os.environ):
        raise FatalTransfer(f"{variable} forbids the network")
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    if proxy and not is_proxy(proxy):  # its text may have a password
        what = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not the URL of a proxy"
        raise FatalTransfer(what, fix="HTTPS_PROXY=http://HOST:PORT")

    def authorize(request: Any) -> Any:  # as `auth`, for a header of that name gives way to a .netrc
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    try:
        response: requests.Response = session.request(
            method, url, headers=dict(headers), stream=True, timeout=limit_s or (CONNECT_S, SILENCE_S),
            auth=authorize if token else None, **more,
        )  # fmt: skip
        return response
    except (OSError, ValueError) as error:  # requests' own are OSErrors; ValueError: a Location that is none
        raise _named(error, limit_s) from None


def _named(error: Exception, limit_s: float = 0) -> TransferError:
    """The failure in words, from the innermost reason that says something."""
    chain: list[Any] = [error]
    for link in chain:
        inner = [getattr(link, "reason", None), link.__cause__, *link.args]
        chain.extend(e for e in inner if isinstance(e, BaseException) and e not in chain)
    kinds = {type(e).__name__ for e in chain}
    if "SSLCertVerificationError" in kinds:
        return FatalTransfer(
            f"the certificate is not trusted ({_reason(chain)})",
            fix="behind a company's proxy: REQUESTS_CA_BUNDLE=/path/of/its/ca.pem",
        )
    if "CA certificate bundle" in str(error) or "NO_CERTIFICATE" in str(error):
        fix = "REQUESTS_CA_BUNDLE=/path/of/a/file.pem that has certificates, or unset it"
        return FatalTransfer(f"the certificates to trust cannot be read ({_reason(chain)})", fix=fix)
    if isinstance(error, ValueError) or "TooManyRedirects" in kinds:  # the URL, or the Location, is none
        return FatalTransfer(str(error))
    if kinds & {"NameResolutionError", "gaierror"}:
        return TransferError("the host's name is not known (is the network up?)")
    if kinds & {"ProxyError"}:
        return TransferError(f"the proxy does not answer ({_reason(chain)})", fix="check HTTPS_PROXY")
    if kinds & {"IncompleteRead"}:
        return TransferError("the connection ended before the file did")
    if kinds & {"ConnectTimeout", "ConnectTimeoutError"}:  # caused by a TimeoutError
        return TransferError(f"no connection within {limit_s or CONNECT_S:.0f} s")
    if kinds & {"ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        return TransferError(f"nothing came for {limit_s or SILENCE_S:.0f} s")
    return TransferError(_reason(chain))


def _reason(chain: list[Any]) -> str:
    last = next((e for e in reversed(chain) if isinstance(e, OSError) and e.strerror), chain[-1])
    return getattr(last, "strerror", None) or str(last) or type(last).__name__
