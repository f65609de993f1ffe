"""The tokens of the Hub and of GitHub, each for its own host alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tasks.network import huggingface
from tasks.transfer.download import _is_proxied, _warn_of_proxy
from tasks.urls import host_of


def hub_token(url: str) -> str:
    """The Hub's token, for the Hub alone, and where nobody on the way can read it."""
    if not huggingface.takes_token(url, os.environ):
        return ""
    saved = ""
    with suppress(OSError, ValueError):
        saved = Path(huggingface.token_path(os.environ, os.path.expanduser("~"))).read_text("utf-8")
    token = huggingface.token(os.environ, saved)
    if token and urlsplit(url).scheme == "http" and _is_proxied(url):
        _warn_of_proxy(host_of(url))
        return ""
    return token


def github_token(url: str) -> str:
    """GitHub's token, for GitHub alone; Actions and `gh` call it so."""
    own = url.startswith("https://api.github.com/")
    given = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
    return huggingface.sendable(given.strip()) if own else ""
