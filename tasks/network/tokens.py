"""The access tokens of the Hub and of GitHub, each sent to its own host only."""

from __future__ import annotations

import logging
import os
from functools import cache
from urllib.parse import urlsplit

from tasks.network import huggingface, logins
from tasks.network.registry import repository_of
from tasks.system import own_files
from tasks.urls import host_of

_MOST_TOKEN = 64 * 1024  # bytes of the file that holds the Hub's token
_log = logging.getLogger("recipe")


def host_token(url: str) -> str:
    """Return what a request to a URL presents: of `auth:`, else the Hub's token.

    Nothing for a registry, whose token depends on what it asks for.
    """
    if repository_of(url)[0]:
        return ""
    return logins.login(url).text or hub_token(url)


def hub_token(url: str) -> str:
    """Return the Hub's token for a request to the Hub; "" for any other URL.

    Over plain http it is not sent through a proxy, which could read it.
    """
    if not huggingface.may_send_token(url, os.environ):
        return ""
    path = huggingface.token_path(os.environ, os.path.expanduser("~"))
    saved = own_files.read_most(path, _MOST_TOKEN) or b""
    token = huggingface.token(os.environ, saved.decode("utf-8", "replace"))
    if token and urlsplit(url).scheme == "http":
        from tasks.network.http import proxy_of

        if proxy_of(url) is not None:
            _warn_of_proxy(host_of(url))
            return ""
    return token


@cache  # one warning per host
def _warn_of_proxy(host: str) -> None:
    text = (
        "the Hub's token is not sent: HTTP_PROXY would see it; NO_PROXY=%s bypasses it"
    )
    _log.warning(text, host)


def github_token(url: str) -> str:
    """Return GitHub's token for a request to its API; "" for any other URL.

    Source: the variables that GitHub Actions and `gh` use.
    """
    if not url.startswith("https://api.github.com/"):
        return ""
    token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
    return huggingface.sendable(token.strip())
