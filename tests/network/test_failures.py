"""Why there is no response, in words."""

from __future__ import annotations

import http.client
import socket
import ssl

import pytest
import requests
import urllib3
from requests.exceptions import InvalidProxyURL, InvalidSchema
from tasks.network.access import Failure
from tasks.network.failures import Limits, explained

STREAMED = Limits(10, 30, 0)
SHORT = Limits(5, 30, 5)
HOST = "models.example:8080"


def tunnel(status: int) -> Exception:
    """What requests raises for an answer to CONNECT."""
    cause = OSError(f"Tunnel connection failed: {status} x")
    return requests.exceptions.ProxyError(urllib3.exceptions.ProxyError("Unable to connect to proxy", cause))


def lost(cause: Exception) -> Exception:
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))


@pytest.mark.parametrize(
    ("error", "limits", "what", "fix", "final"),
    [
        # no HTTP: RFC 9112 §2.2, §4
        (lost(http.client.BadStatusLine("SSH-2.0")), STREAMED, "no HTTP answer", f"is {HOST} a web", False),
        (lost(http.client.UnknownProtocol("HTTP/3")), STREAMED, "no HTTP answer", f"is {HOST} a web", False),
        (lost(http.client.LineTooLong("status line")), STREAMED, "no HTTP answer", "a web server?", False),
        (lost(http.client.RemoteDisconnected("closed")), STREAMED, "closed", "", False),
        (
            requests.exceptions.SSLError(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")),
            STREAMED,
            "no TLS answer",
            f"does {HOST} serve https?",
            False,
        ),
        # proxies
        (tunnel(407), STREAMED, "HTTP 407 to CONNECT: authentication", "set https_proxy=http://USER:", True),
        (tunnel(403), STREAMED, "the proxy forbids access to the host", "https_proxy, or list", True),
        (tunnel(502), STREAMED, "the proxy does not reach the host (HTTP 502", "check https_proxy", False),
        (
            requests.exceptions.ProxyError(OSError(111, "Connection refused")),
            STREAMED,
            "the proxy does not answer (Connection refused)",
            "check https_proxy",
            False,
        ),
        (InvalidProxyURL("names no host"), STREAMED, "names no host", "check HTTPS_PROXY", True),
        (
            InvalidSchema("Missing dependencies for SOCKS support."),
            STREAMED,
            "a SOCKS proxy needs the package PySocks",
            "pip install pysocks",
            True,
        ),
        # the response's head or body
        (
            requests.exceptions.InvalidHeader("Content-Length contained multiple unmatching values (5, 6)"),
            STREAMED,
            "multiple unmatching values",
            "",
            False,
        ),
        (http.client.IncompleteRead(b""), STREAMED, "the connection ended before the file did", "", False),
        (requests.ReadTimeout("timed out"), STREAMED, "no data for 30 s", "", False),
        (requests.ReadTimeout("timed out"), SHORT, "no complete answer within 5 s", "", False),
        (requests.ConnectTimeout("timed out"), SHORT, "no connection within 5 s", "", False),
        # before there is a connection
        (socket.gaierror(-2, "x"), STREAMED, "cannot resolve models.example", "doit doctor", False),
        (
            requests.exceptions.ProxyError(socket.gaierror(-2, "x")),
            STREAMED,
            "cannot resolve the name of the proxy",
            "check https_proxy",
            False,
        ),
        (OSError(111, "Connection refused"), STREAMED, "Connection refused", "", False),
        (requests.exceptions.InvalidURL("no URL"), STREAMED, "no URL", "", True),
        (requests.TooManyRedirects("Exceeded 10 redirects."), STREAMED, "10 redirects", "", True),
    ],
    ids=str,
)
def test_explained(error: Exception, limits: Limits, what: str, fix: str, final: bool) -> None:
    """What failed, what to do, and whether a retry may help."""
    found = explained(error, limits, HOST, "https_proxy")
    assert isinstance(found, Failure)
    assert what in found.what
    assert fix in found.fix
    assert bool(found.fix) == bool(fix)
    assert found.final is final
