"""Why a server or a proxy refuses, and what to do about it."""

from __future__ import annotations

import pytest
from tasks.network import access
from tasks.network.access import NETRC, TOKEN, Access

WRONG_TOKEN = Access(refused=((TOKEN, 401),), is_hub=True)
WEAK_TOKEN = Access(refused=((TOKEN, 403),), is_hub=True)


@pytest.mark.parametrize(
    ("status", "sent", "refused"),
    [
        (401, TOKEN, True),  # RFC 9110 §15.5.2
        (403, TOKEN, True),
        (400, NETRC, True),  # S3: "Only one auth mechanism allowed"
        (401, NETRC, True),
        (401, "", False),
        (403, "", False),
        (404, TOKEN, False),
        (407, TOKEN, False),  # the proxy's
        (429, TOKEN, False),
        (500, TOKEN, False),
        (200, TOKEN, False),
    ],
)
def test_refused_credentials(status: int, sent: str, refused: bool) -> None:
    """Without them, the answer may be another one."""
    assert access.is_refused(status, Access(sent)) is refused


@pytest.mark.parametrize(
    ("status", "shown", "remedy"),
    [
        (401, Access(is_hub=True), "accept its licence on its page and set HF_TOKEN"),
        (403, Access(is_hub=True), "accept the licence on its page and set HF_TOKEN"),
        (401, Access(TOKEN, is_hub=True), "the token is not accepted: run hf auth login"),
        (401, Access(TOKEN, is_hub=True), "or unset it"),
        (403, Access(TOKEN, is_hub=True), "the token does not give access: accept the licence"),
        (401, WRONG_TOKEN, "the token is not accepted, and the file needs one"),
        (403, WRONG_TOKEN, "the token is not accepted, and the file needs one"),
        (401, WEAK_TOKEN, "the token does not give access: accept the licence"),
        (401, Access(NETRC, is_hub=True), "the password in .netrc is not accepted"),
        (401, Access(NETRC), "correct or remove the host's line in .netrc"),
        (403, Access(refused=((NETRC, 400),)), "correct or remove the host's line in .netrc"),
        (401, Access(), "add a line for the host to .netrc"),
        (403, Access(), "a password for the host can be in .netrc"),
        (407, Access(variable="http_proxy"), "set http_proxy=http://USER:PASSWORD@HOST:PORT"),
        (404, Access(TOKEN), ""),
        (500, Access(NETRC), ""),
    ],
)
def test_remedy(status: int, shown: Access, remedy: str) -> None:
    """It names the credentials that were used, and no others."""
    found = access.remedy(status, shown)
    assert remedy in found
    assert bool(found) == bool(remedy)


@pytest.mark.parametrize(
    ("scheme", "env", "variable"),
    [
        ("https", {}, "HTTPS_PROXY"),
        ("http", {}, "HTTP_PROXY"),
        ("https", {"HTTPS_PROXY": "p", "ALL_PROXY": "q"}, "HTTPS_PROXY"),
        ("https", {"HTTPS_PROXY": "p", "https_proxy": "q"}, "https_proxy"),
        ("http", {"HTTPS_PROXY": "p", "HTTP_PROXY": "q"}, "HTTP_PROXY"),
        ("http", {"HTTPS_PROXY": "p", "all_proxy": "q"}, "all_proxy"),
        ("https", {"HTTP_PROXY": "p", "ALL_PROXY": "q"}, "ALL_PROXY"),
        ("https", {"HTTPS_PROXY": "", "ALL_PROXY": "q"}, "ALL_PROXY"),
    ],
)
def test_proxy_variable(scheme: str, env: dict[str, str], variable: str) -> None:
    """The one that Python's getproxies and requests use for the URL."""
    assert access.proxy_variable(scheme, env) == variable


@pytest.mark.parametrize(
    ("status", "what", "fix", "final"),
    [
        (407, "authentication required", "set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT", True),
        (403, "the proxy forbids access to the host", "list the host in NO_PROXY", True),
        (400, "does not connect to the host", "is it an HTTP proxy?", True),
        (404, "does not connect to the host", "is it an HTTP proxy?", True),
        (405, "does not connect to the host", "is it an HTTP proxy?", True),
        (501, "does not connect to the host", "is it an HTTP proxy?", True),
        (408, "does not reach the host", "check HTTPS_PROXY", False),
        (429, "does not reach the host", "check HTTPS_PROXY", False),
        (502, "does not reach the host", "check HTTPS_PROXY", False),
        (503, "does not reach the host", "check HTTPS_PROXY", False),
        (504, "does not reach the host", "check HTTPS_PROXY", False),
    ],
)
def test_a_refused_tunnel(status: int, what: str, fix: str, final: bool) -> None:
    """RFC 9110 §9.3.6: any answer to CONNECT but 2xx."""
    problem = access.tunnel_failure(f"Tunnel connection failed: {status} x", "HTTPS_PROXY")
    assert problem is not None
    assert what in problem.what
    assert f"HTTP {status} to CONNECT" in problem.what
    assert fix in problem.fix
    assert problem.final is final


def test_another_failure_of_a_proxy() -> None:
    """Nothing was answered."""
    assert access.tunnel_failure("Connection refused", "HTTPS_PROXY") is None
