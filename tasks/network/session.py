"""Sessions of requests: credentials, and a deadline for each response."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL

from tasks.network.deadline import Deadline, FinalResponse, timed_response


class Session(requests.Session):
    """A session with a deadline, which can do without the passwords of .netrc."""

    def __init__(self) -> None:
        super().__init__()
        # of the short response that is being read
        self.deadline: Deadline | None = None
        self.use_netrc = True

    def authentication(self, token: str) -> Callable[[Any], Any] | None:
        """Return the `auth` of a request; None for the password of .netrc, if any.

        Args:
            token: or `Basic …`; empty to send none.
        """
        if token:
            # as `auth`, because requests replaces the header by an entry of .netrc
            return partial(_authorize, token)
        if not self.use_netrc:
            return _stay_anonymous
        return None

    def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
        """Drop the token on a redirect to another host; .netrc may have a password.

        The method of requests replaces the token on a redirect to the same host.
        """
        headers = prepared_request.headers
        other_host: Any = self.should_strip_auth
        if other_host(response.request.url, prepared_request.url):
            headers.pop("Authorization", None)
        if self.use_netrc and "Authorization" not in headers:
            auth = requests.utils.get_netrc_auth(prepared_request.url)
            if auth:
                prepared_request.prepare_auth(auth)


def _stay_anonymous(request: Any) -> Any:
    return request


def header_value(token: str) -> str:
    """Return the Authorization of a token; a login, `Basic …`, is complete already."""
    if token.startswith("Basic "):
        return token
    return f"Bearer {token}"


def _authorize(token: str, request: Any) -> Any:
    request.headers["Authorization"] = header_value(token)
    return request


class Adapter(HTTPAdapter):
    """Apply the session's deadline, while there is one, to each response."""

    def __init__(self, session: Session) -> None:
        super().__init__(max_retries=0)
        self._session = session

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """Return a pool whose connections get their response class here."""
        try:
            pool: Any = super().get_connection_with_tls_context(*args, **options)
        except TypeError:  # raised by requests for `http://user:password@`
            what = "the proxy's address names no host"
            raise InvalidProxyURL(what) from None
        kind = type(pool).ConnectionCls
        pool.ConnectionCls = partial(_connection, weakref.ref(self._session), kind)
        return pool


def _connection(
    session: Callable[[], Session | None], kind: Any, **options: Any
) -> Any:
    """Return a connection whose responses obey the deadline of the session.

    Args:
        session: does not keep it in memory: urllib3 keeps the connections until their
            pool is gone, so the sockets would stay open for ever.
    """
    connection = kind(**options)

    def response(*args: Any, **more: Any) -> Any:
        owner = session()
        if owner and owner.deadline:
            return timed_response(owner.deadline, *args, **more)
        return FinalResponse(*args, **more)

    connection.response_class = response
    return connection
