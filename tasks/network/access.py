"""Explain why a server or a proxy refuses access, and what to do. Pure.

Source: RFC 9110 §15.5.2 (401), §15.5.4 (403), §15.5.8 (407), §9.3.6 (CONNECT).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

TOKEN = "the token"
NETRC = "the password in .netrc"
# Statuses for credentials that are not accepted; a signed link of S3 answers 400 to a
# second kind of authentication
_REFUSED = frozenset({400, 401, 403})
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_ACCEPT = "accept the licence on its page"
_LOGIN = "run hf auth login or set another HF_TOKEN"
_NETRC_FIX = "correct or remove the host's line in .netrc"


class Access(NamedTuple):
    """What a request presented to the server."""

    sent: str = ""  # TOKEN or NETRC
    # credentials refused earlier and not sent again, each with the refusal's status
    refused: tuple[tuple[str, int], ...] = ()
    is_hub: bool = False
    variable: str = "HTTPS_PROXY"  # environment variable with the URL's proxy
    login_fix: str = ""  # for the credentials that `auth:` names; empty without them


def is_refused(status: int, access: Access) -> bool:
    """Return whether the same request without its credentials may be answered."""
    return status in _REFUSED and bool(access.sent)


def remedy(status: int, access: Access) -> str:
    """Return what the user can do about a 401, 403 or 407; "" for other statuses."""
    if status == 407:
        return password_fix(access.variable)
    if status not in (401, 403):
        return ""
    refused = dict(access.refused)
    if access.sent:
        refused[access.sent] = status
    if access.login_fix:
        return access.login_fix
    if TOKEN in refused and not access.is_hub:
        return "the registry refuses the login: run docker login with another one"
    if refused.get(TOKEN) == 403:
        return f"{TOKEN} does not give access: {_ACCEPT}, or {_LOGIN}"
    if TOKEN in refused and access.sent != TOKEN:  # the answer without it was no better
        return (
            f"{TOKEN} is not accepted, and the file needs one: {_ACCEPT}, then {_LOGIN}"
        )
    if TOKEN in refused:
        return f"{TOKEN} is not accepted: {_LOGIN}, or unset it"
    if NETRC in refused:
        return f"{NETRC} is not accepted: {_NETRC_FIX}"
    if status == 403 and not access.is_hub:
        return "access is refused; a password for the host can be in .netrc"
    if not access.is_hub:
        return "the server wants a password: add a line for the host to .netrc"
    if status == 401:
        return (
            "the file needs an account: accept its licence on its page and set HF_TOKEN"
        )
    return f"access is refused: {_ACCEPT} and set HF_TOKEN to a token that may read it"


def proxy_variable(scheme: str, env: Mapping[str, str]) -> str:
    """Return the environment variable that names the proxy for a URL's scheme.

    Without one, the system's settings name it, which HTTPS_PROXY or HTTP_PROXY replace.
    """
    for name in (f"{scheme}_proxy", "all_proxy"):
        for spelling in (name, name.upper()):
            if env.get(spelling):
                return spelling
    return f"{scheme.upper()}_PROXY"


def password_fix(variable: str) -> str:
    """Return the remedy for a 407 of a proxy."""
    return f"the proxy wants a password: set {variable}=http://USER:PASSWORD@HOST:PORT"


class Failure(NamedTuple):
    """Why there is no response."""

    what: str
    fix: str = ""
    final: bool = False  # a retry would not help


def tunnel_failure(reason: str, variable: str) -> Failure | None:
    """Explain http.client's error for a refused CONNECT; None for any other error.

    Args:
        variable: the environment variable that names the proxy.
    """
    match = _TUNNEL.search(reason)
    if not match:
        return None
    status = int(match[1])
    refusal = f"HTTP {status} to CONNECT"
    if status == 407:
        # not again: a few wrong passwords may lock an account
        return Failure(
            f"{refusal}: authentication required", password_fix(variable), True
        )
    if status == 403:
        fix = f"use another proxy in {variable}, or list the host in NO_PROXY"
        return Failure(f"the proxy forbids access to the host ({refusal})", fix, True)
    if status in (408, 425, 429) or (status >= 500 and status != 501):
        what = f"the proxy does not reach the host ({refusal})"
        return Failure(what, f"check {variable}", False)
    what = f"the proxy does not connect to the host ({refusal})"
    return Failure(what, f"check {variable}: is it an HTTP proxy?", True)
