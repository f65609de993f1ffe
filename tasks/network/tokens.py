"""The tokens of the Hub and of GitHub, each for its own host alone."""

from __future__ import annotations

import logging
import os
from functools import cache
from urllib.parse import urlsplit

from tasks.network import huggingface
from tasks.system import own_files
from tasks.urls import host_of

_MOST_TOKEN = 64 * 1024  # bytes of the file that has the Hub's token
_log = logging.getLogger("recipe")


def hub_token(url: str) -> str:
    """The Hub's token, for the Hub alone, and where nobody on the way can read it."""
    if not huggingface.takes_token(url, os.environ):
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


@cache
def _warn_of_proxy(host: str) -> None:
    _log.warning("the Hub's token is not sent: HTTP_PROXY would see it; NO_PROXY=%s asks it directly", host)


def github_token(url: str) -> str:
    """GitHub's token, for GitHub alone; Actions and `gh` call it so."""
    own = url.startswith("https://api.github.com/")
    given = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
    return huggingface.sendable(given.strip()) if own else ""
