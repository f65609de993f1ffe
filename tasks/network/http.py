"""The network: one streamed GET, or a short answer. Knows requests; what an answer means, `core` decides.

Only TransferError and FatalTransfer leave this module, also when a body is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from urllib3.exceptions import HTTPError

from tasks.errors import TransferError
from tasks.network import huggingface
from tasks.network.deadline import Deadline, timed_response
from tasks.urls import is_proxy, url_problem

ANSWER_S = 30.0  # for a short answer, from the connection to its last byte, redirects included
CONNECT_S = 10.0
MOST_REDIRECTS = 10
MOST_TEXT = 4 * 1024**2  # bytes of an answer that is read whole; a release with its notes has some 100 kB
SILENCE_S = 30.0  # longest pause between two bytes before the connection counts as dead

_HUB_HEADERS = ("x-linked-etag", "x-linked-size", "x-repo-commit")


class FatalTransfer(TransferError):
    """This source will not deliver, however often it is asked."""


def proxy_of(url: str) -> str | None:
    """The proxy that a URL is asked through, as the environment says; None for none."""
    found: str | None = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    return found


def problem_of(url: str, *, pinned: bool) -> str:
    """What is wrong with a URL, or nothing: as `url_problem`, and where a proxy comes between.

    Plain http from this machine needs no digest because nobody is on the way; a proxy is.
    """
    problem = url_problem(url, pinned=pinned)
    if problem or pinned or not url.startswith("http:") or proxy_of(url) is None:
        return problem
    return f"{url}: plain http through a proxy is only taken with a sha256; NO_PROXY names hosts without one"


class Body:
    """The bytes of an answer, as they are sent."""

    def __init__(self, raw: Any, limit_s: float = 0) -> None:
        # http.client's own response: it fills a buffer in place, where urllib3 copies twice; a short body
        # is an early end here, not an exception, and whoever reads counts
        self._raw, self._source, self._limit_s = raw, raw._original_response, limit_s

    def read_into(self, view: memoryview) -> int:
        """Fill the view; fewer bytes only at the end, 0 behind it. Raises TransferError."""
        try:
            return int(self._source.readinto(view))
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a chunk's length is not a number
            raise _named(error, self._limit_s) from None

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


class _Adapter(HTTPAdapter):
    """Connections whose answers hold to the session's deadline while there is one."""

    def __init__(self, session: Any) -> None:
        super().__init__(max_retries=0)
        self._session = session

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """Return the pool; its connections ask here how to read an answer."""
        try:
            pool: Any = super().get_connection_with_tls_context(*args, **options)
        except TypeError:  # requests, of `http://user:password@`
            raise InvalidProxyURL("the proxy's address names no host") from None
        pool.ConnectionCls = partial(self._connection, type(pool).ConnectionCls)
        return pool

    def _connection(self, kind: Any, **options: Any) -> Any:
        made = kind(**options)
        plain = made.response_class

        def response(*args: Any, **more: Any) -> Any:
            deadline = self._session.deadline
            return timed_response(deadline, *args, **more) if deadline else plain(*args, **more)

        made.response_class = response
        return made


def new_session() -> Any:
    """A session that retries nothing by itself: when and how often is our decision."""
    session: Any = requests.Session()
    session.deadline = None  # of the short answer that is being read
    adapter = _Adapter(session)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    session.max_redirects = MOST_REDIRECTS
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

    look = partial(_look, session, problem)
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


def _look(session: Any, problem: Callable[[str], str], response: Any, **_: Any) -> None:
    """Look at each answer before requests goes on to the next one, as a hook."""
    target = session.get_redirect_target(response)
    why = target and problem(requests.utils.requote_uri(urljoin(response.url, target)))
    if 300 <= response.status_code < 400:
        _drop_body(response)
    if why:
        raise FatalTransfer(f"a redirect to {why}")
    if session.deadline:
        session.deadline.left()


def _drop_body(response: Any) -> None:
    """Leave the body of a redirect unread, which requests would read to its end, however long it is."""
    source = response.raw._original_response
    if response.request.method == "HEAD" or source.length == 0:  # none follows: keep the connection
        source.read()
        response.raw.release_conn()
    else:
        response.raw.close()
    response._content, response._content_consumed = b"", True


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
    limit_s: float = ANSWER_S,
    problem: Callable[[str], str] = lambda _: "",
) -> Said:
    """Ask for what is short.

    Args:
        hops: redirects to follow, 0 for none.
        limit_s: for the whole answer.
        problem: why a redirect may not be followed to a URL, or nothing.

    Raises TransferError, FatalTransfer.
    """
    session.max_redirects = max(1, hops)  # requests looks at the next one even where it follows none
    plain = {"Accept-Encoding": "identity", **headers}
    hooks = {"response": partial(_look, session, problem)} if hops else {"response": _no_body}
    session.deadline = Deadline(limit_s)
    try:
        with _sent(session, method, url, plain, token, limit_s, allow_redirects=hops > 0, hooks=hooks) as got:
            body = Body(got.raw, limit_s)
            text = _text(body)
            body.release()
            names = {key.lower(): value for key, value in got.headers.items()}
            return Said(got.status_code, names, text)
    finally:
        session.deadline = None


def _no_body(response: Any, **_: Any) -> None:
    if 300 <= response.status_code < 400:
        _drop_body(response)


def _text(body: Body) -> str:
    """A body that must be short. Raises TransferError."""
    view = memoryview(bytearray(MOST_TEXT + 1))
    count = body.read_into(view)
    if count > MOST_TEXT:
        raise FatalTransfer(f"the answer is longer than {MOST_TEXT} bytes")
    return bytes(view[:count]).decode("utf-8", "replace")


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
    if variable := huggingface.offline(os.environ):
        raise FatalTransfer(f"{variable} forbids the network")
    proxy = proxy_of(url) or ""
    if proxy and not is_proxy(proxy):  # its text may have a password
        what = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not the URL of a proxy"
        raise FatalTransfer(what, fix="HTTPS_PROXY=http://HOST:PORT")

    def authorize(request: Any) -> Any:  # as `auth`, for a header of that name gives way to a .netrc
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    connect_s = min(CONNECT_S, limit_s or CONNECT_S)
    try:
        response: requests.Response = session.request(
            method, url, headers=dict(headers), stream=True, timeout=(connect_s, limit_s or SILENCE_S),
            auth=authorize if token else None, **more,
        )  # fmt: skip
        return response
    except (OSError, ValueError, HTTPException, HTTPError) as error:
        # requests' own are OSErrors; ValueError: a Location that is not a URL
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
    if "InvalidProxyURL" in kinds:
        return FatalTransfer(str(error), fix="check HTTPS_PROXY and HTTP_PROXY")
    if isinstance(error, ValueError) or "TooManyRedirects" in kinds:  # the URL, or the Location, is none
        return FatalTransfer(str(error))
    if kinds & {"NameResolutionError", "gaierror"}:
        return TransferError("the host's name is not known (is the network up?)")
    if kinds & {"ProxyError"}:
        return TransferError(f"the proxy does not answer ({_reason(chain)})", fix="check HTTPS_PROXY")
    if kinds & {"IncompleteRead"}:
        return TransferError("the connection ended before the file did")
    if kinds & {"ConnectTimeout", "ConnectTimeoutError"}:  # caused by a TimeoutError
        return TransferError(f"no connection within {min(CONNECT_S, limit_s or CONNECT_S):.0f} s")
    if kinds & {"ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        if limit_s:
            return TransferError(f"no complete answer within {limit_s:g} s")
        return TransferError(f"nothing came for {SILENCE_S:.0f} s")
    return TransferError(_reason(chain))


def _reason(chain: list[Any]) -> str:
    last = next((e for e in reversed(chain) if isinstance(e, OSError) and e.strerror), chain[-1])
    return getattr(last, "strerror", None) or str(last) or type(last).__name__
