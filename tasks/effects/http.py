"""The network: one streamed GET. Knows requests; what an answer means is decided in `core.transfer`.

Only TransferError and FatalTransfer leave this module, also out of the body's iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter

from tasks.core.errors import TransferError

CONNECT_S = 10.0
SILENCE_S = 30.0  # longest pause between two bytes before the connection counts as dead
BLOCK = 1024 * 1024  # bytes asked of the socket at once; it gives what it has

_HUB_HEADERS = ("x-linked-etag", "x-linked-size", "x-repo-commit")


class FatalTransfer(TransferError):
    """This source will not deliver, however often it is asked."""


class Answer(NamedTuple):
    """An HTTP answer whose body has not been read."""

    status: int
    headers: Mapping[str, str]  # lower-case names; the Hub's X-Linked-* of its redirect are among them
    url: str  # the last one, after redirects
    body: Iterator[bytes]


def new_session() -> Any:
    """A session that retries nothing by itself: when and how often is our decision."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=0))
    session.headers["User-Agent"] = f"llamafile-recipe ({requests.utils.default_user_agent()})"
    return session


@contextmanager
def get(
    session: Any, url: str, headers: Mapping[str, str], problem: Callable[[str], str] = lambda _: ""
) -> Iterator[Answer]:
    """Ask for a URL, following redirects; certificates are verified (R29).

    Args:
        problem: why a redirect may not be followed to a URL, or nothing.

    Raises:
        TransferError: no answer this time.
        FatalTransfer: there will be none.
    """

    def look(response: Any, **_: Any) -> None:  # before the next request, not after it
        target = session.get_redirect_target(response)
        if target and (why := problem(requests.utils.requote_uri(urljoin(response.url, target)))):
            response.close()
            raise FatalTransfer(f"a redirect to {why}")

    asked = {"headers": dict(headers), "hooks": {"response": look}, "timeout": (CONNECT_S, SILENCE_S)}
    try:
        response = session.get(url, stream=True, **asked)
    except (requests.exceptions.RequestException, ValueError) as error:  # ValueError: a Location that is none
        raise _named(error) from None
    first = response.history[0].headers if response.history else response.headers
    names = {k.lower(): v for k, v in response.headers.items()}
    names.update({k: first[k] for k in _HUB_HEADERS if k in first})
    try:
        yield Answer(response.status_code, names, response.url, _body(response.raw))
    finally:
        response.close()


def _body(raw: Any) -> Iterator[bytes]:
    try:
        while block := raw.read1(BLOCK, decode_content=False):
            yield block
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _named(error) from None


def _named(error: Exception) -> TransferError:
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
    if isinstance(error, ValueError) or "TooManyRedirects" in kinds:  # the URL, or the Location, is none
        return FatalTransfer(str(error))
    if kinds & {"NameResolutionError", "gaierror"}:
        return TransferError("the host's name is not known (is the network up?)")
    if kinds & {"ProxyError"}:
        return TransferError(f"the proxy does not answer ({_reason(chain)})", fix="check HTTPS_PROXY")
    if kinds & {"IncompleteRead"}:
        return TransferError("the connection ended before the file did")
    if kinds & {"ConnectTimeout", "ConnectTimeoutError"}:  # caused by a TimeoutError
        return TransferError(f"no connection within {CONNECT_S:.0f} s")
    if kinds & {"ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        return TransferError(f"nothing came for {SILENCE_S:.0f} s")
    return TransferError(_reason(chain))


def _reason(chain: list[Any]) -> str:
    last = next((e for e in reversed(chain) if isinstance(e, OSError) and e.strerror), chain[-1])
    return getattr(last, "strerror", None) or str(last) or type(last).__name__
