"""HTTP requests: one streamed GET, or one short response. Uses requests.

What a response means is decided in `response`. Only TransferError and
PermanentTransferError leave this module, also while a body is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from tasks.errors import TransferError
from tasks.network import access, failures, huggingface
from tasks.network.deadline import Deadline
from tasks.network.session import Adapter, Session, header_value
from tasks.urls import is_proxy, url_error

ANSWER_S = 30.0  # for a whole short response, with connection and redirects
CONNECT_S = 10.0
MAX_REDIRECTS = 10
MAX_TEXT = 4 * 1024**2  # bytes of a short response; a release with notes has 100 kB
READ_TIMEOUT_S = 30.0  # longest pause between two bytes of a body

_HUB_HEADERS = ("x-linked-etag", "x-linked-size", "x-repo-commit")


class PermanentTransferError(TransferError):
    """This source will not deliver; a retry would not help."""


def proxy_of(url: str) -> str | None:
    """Return the proxy for a URL, according to the environment; None for none."""
    proxies = requests.utils.get_environ_proxies(url)
    proxy: str | None = requests.utils.select_proxy(url, proxies)
    return proxy


def problem_of(url: str, *, pinned: bool) -> str:
    """Return what is wrong with a URL, as `url_problem`; "" if nothing.

    Plain http from this machine needs no digest, because no other host sees the bytes.
    Through a proxy that is not true.
    """
    problem = url_error(url, pinned=pinned)
    if problem or pinned or not url.startswith("http:") or proxy_of(url) is None:
        return problem
    why = "plain http through a proxy is only taken with a sha256"
    return f"{url}: {why}; NO_PROXY lists the hosts that need no proxy"


class Body:
    """The body of a response, as it arrives."""

    def __init__(self, raw: Any, limit_s: float = 0) -> None:
        # http.client's own response fills a buffer in place; urllib3 copies twice. It
        # ends early where a body is too short: the caller counts.
        self._raw = raw
        self._source = raw._original_response
        self._limit_s = limit_s

    def read_into(self, view: memoryview) -> int:
        """Fill the view; return fewer bytes only at the end, then 0.

        Raises:
            TransferError: the connection failed.
        """
        try:
            return int(self._source.readinto(view))
        except (OSError, HTTPException, ValueError) as error:
            # ValueError: the length of a chunk is not a number
            raise _explained(error, self._limit_s) from None

    def has_more(self) -> bool:
        """Return whether another byte follows; it is lost. Raises TransferError."""
        return bool(self.read_into(memoryview(bytearray(1))))

    def release(self) -> None:
        """Keep the connection for the next request, if the body has ended."""
        if self._source.isclosed():
            self._raw.release_conn()


class StreamedResponse(NamedTuple):
    """An HTTP response whose body has not been read."""

    status: int
    headers: Mapping[str, str]  # lower-case names; with the Hub's from its redirect
    url: str  # the last one, after redirects
    redirected: bool  # whether that is not the requested one
    body: Body
    sent: str = ""  # the credentials that the last request had: TOKEN or NETRC


def new_session() -> Any:
    """Return a session that never retries: the callers decide about retries."""
    session: Any = Session()
    adapter = Adapter(session)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    session.max_redirects = MAX_REDIRECTS
    agent = f"llamafile-recipe ({requests.utils.default_user_agent()})"
    session.headers["User-Agent"] = agent
    return session


@contextmanager
def stream_get(
    session: Any,
    url: str,
    headers: Mapping[str, str],
    problem: Callable[[str], str] = lambda _: "",
    token: str = "",
    use_netrc: bool = True,
) -> Iterator[StreamedResponse]:
    """Request a URL, following redirects; certificates are verified (R29).

    Args:
        problem: returns why a redirect to a URL must not be followed; "" if it may.
        token: is sent to the URL's own host; requests drops it on redirects to others.
        use_netrc: send the passwords of .netrc to their hosts.

    Raises:
        TransferError: there was no response; a retry may help.
        PermanentTransferError: there was none, and a retry would not help.
    """
    hook = partial(_check_redirect, session, problem)
    session.use_netrc = use_netrc
    response = _sent(session, "GET", url, headers, token, hooks={"response": hook})
    try:
        body = Body(response.raw)
        redirected = bool(response.history)
        names = _header_names(response)
        sent = _credentials(response, token)
        yield StreamedResponse(
            response.status_code, names, response.url, redirected, body, sent
        )
        body.release()
    finally:
        response.close()


def _header_names(response: requests.Response) -> dict[str, str]:
    """Return headers with lower-case names; the Hub's from its first response."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.history:
        first = response.history[0].headers
        headers.update({name: first[name] for name in _HUB_HEADERS if name in first})
    return headers


def _credentials(response: requests.Response, token: str) -> str:
    """Return which credentials the request of a response had."""
    value = response.request.headers.get("Authorization", "")
    if not value:
        return ""
    return access.TOKEN if value == header_value(token) else access.NETRC


def _check_redirect(
    session: Any, problem: Callable[[str], str], response: Any, **_: Any
) -> None:
    """Check each response, as a hook, before requests follows its redirect."""
    why = ""
    target = session.get_redirect_target(response)
    if target:
        why = problem(requests.utils.requote_uri(urljoin(response.url, target)))
    _drop_redirect_body(response)
    if why:
        raise PermanentTransferError(f"a redirect to {why}")
    if session.deadline:
        session.deadline.left()


def _drop_redirect_body(response: Any, **_: Any) -> None:
    """Skip the body of a redirect: requests would read all of it, however long."""
    if not 300 <= response.status_code < 400:
        return
    source = response.raw._original_response
    if response.request.method == "HEAD" or source.length == 0:
        source.read()  # there is no body: keep the connection
        response.raw.release_conn()
    else:
        response.raw.close()
    response._content = b""
    response._content_consumed = True


class Response(NamedTuple):
    """A short response, read to its end."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    text: str
    body: bytes = b""


def request(
    session: Any,
    method: str,
    url: str,
    headers: Mapping[str, str],
    token: str = "",
    hops: int = 0,
    limit_s: float = ANSWER_S,
    problem: Callable[[str], str] = lambda _: "",
    data: Any = None,
) -> Response:
    """Request a URL whose response is short.

    Args:
        hops: redirects to follow, 0 for none.
        limit_s: for the whole response.
        problem: returns why a redirect to a URL must not be followed; "" if it may.
        data: the body: bytes, or an object with a length and `read`, which renews the
            session's deadline.

    Raises:
        TransferError: there was no complete response; a retry may help.
        PermanentTransferError: a retry would not help.
    """
    # requests prepares the next redirect even where it does not follow it
    session.max_redirects = max(1, hops)
    hook: Any = _drop_redirect_body
    if hops:
        hook = partial(_check_redirect, session, problem)
    options: dict[str, Any] = {"allow_redirects": hops > 0}
    options["hooks"] = {"response": hook}
    if data is not None:
        options["data"] = data
    plain = {"Accept-Encoding": "identity", **headers}
    session.deadline = Deadline(limit_s)
    try:
        response = _sent(session, method, url, plain, token, limit_s, **options)
        with response:
            body = Body(response.raw, limit_s)
            data = _short(body)
            body.release()
            names = {name.lower(): value for name, value in response.headers.items()}
            text = data.decode("utf-8", "replace")
            return Response(response.status_code, names, text, data)
    finally:
        session.deadline = None


def _short(body: Body) -> bytes:
    """Read a body that must be short. Raises TransferError."""
    view = memoryview(bytearray(MAX_TEXT + 1))
    count = body.read_into(view)
    if count > MAX_TEXT:
        raise PermanentTransferError(f"the answer is longer than {MAX_TEXT} bytes")
    return bytes(view[:count])


def _sent(
    session: Any,
    method: str,
    url: str,
    headers: Mapping[str, str],
    token: str,
    limit_s: float = 0,
    **options: Any,
) -> requests.Response:
    """Send a request; return the response, its body unread.

    Args:
        limit_s: for the whole response; 0 for the limits of a streamed one.

    Raises:
        TransferError, PermanentTransferError: there was no response.
    """
    variable = huggingface.offline(os.environ)
    if variable:
        raise PermanentTransferError(f"{variable} forbids the network")
    proxy = proxy_of(url)
    if proxy and not is_proxy(proxy):  # not shown: it may have a password
        what = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not the URL of a proxy"
        raise PermanentTransferError(what, fix="HTTPS_PROXY=http://HOST:PORT")
    if auth := session.authentication(token):
        options["auth"] = auth
    timeouts = (_connect_s(limit_s), limit_s or READ_TIMEOUT_S)
    try:
        response: requests.Response = session.request(
            method, url, headers=dict(headers), stream=True, timeout=timeouts, **options
        )
        return response
    except (OSError, ValueError, HTTPException, HTTPError) as error:
        # the errors of requests are OSErrors; ValueError: a Location that is not a URL
        raise _explained(error, limit_s, _url_of(error, url)) from None


def _url_of(error: Exception, url: str) -> str:
    """Return the URL of the failed request, which may be a redirect's."""
    request = getattr(error, "request", None)
    return str(getattr(request, "url", None) or url)


def _connect_s(limit_s: float) -> float:
    return min(CONNECT_S, limit_s or CONNECT_S)


def _explained(error: Exception, limit_s: float = 0, url: str = "") -> TransferError:
    """Return an error in plain words.

    Args:
        limit_s: for the whole response; 0 for the limits of a streamed one.
        url: of the request, if there was no response.
    """
    parts = urlsplit(url)
    failure = failures.explained(
        error,
        failures.Limits(_connect_s(limit_s), READ_TIMEOUT_S, limit_s),
        parts.netloc.rpartition("@")[2],
        access.proxy_variable(parts.scheme or "https", os.environ),
    )
    kind = PermanentTransferError if failure.final else TransferError
    return kind(failure.what, fix=failure.fix)
