"""Credentials that models.yaml names for a host (`auth:`), each sent to it alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from tasks.network import huggingface
from tasks.references import api_host
from tasks.urls import is_loopback

_PORTS = {"https": ":443", "http": ":80"}
# of the catalogue that this process reads: host → entry
_auth: dict[str, Mapping[str, str]] = {}


class Login(NamedTuple):
    """What `auth:` has for a host."""

    variable: str = ""  # environment variable; empty if the host has no entry
    text: str = ""  # a token, or `Basic …`; empty if the variable has no usable value

    @property
    def fix(self) -> str:
        """How the user corrects the variable; empty if the host has no entry."""
        if not self.variable:
            return ""
        if self.text:
            return f"set {self.variable} (auth: in models.yaml) to one that is accepted"
        return f"set {self.variable}, which auth: in models.yaml names for this host"


def configure(auth: Mapping[str, Mapping[str, str]]) -> None:
    """Use the section `auth:` of a catalogue in this process."""
    _auth.clear()
    _auth.update(auth)


def login(url: str) -> Login:
    """Return the credentials for a request to a URL.

    Over plain http only to this machine, and not through a proxy, which could read it.
    """
    found = login_of(url, _auth, os.environ)
    if found.text and url.startswith("http:"):
        from tasks.network.http import proxy_of

        if proxy_of(url) is not None:
            return found._replace(text="")
    return found


def login_of(
    url: str, auth: Mapping[str, Mapping[str, str]], env: Mapping[str, str]
) -> Login:
    """Return what `auth:` has for a URL, if it may be sent there."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # the request itself reports that
        return Login()
    if parts.scheme not in _PORTS:
        return Login()
    place = parts.netloc.lower().removesuffix(_PORTS[parts.scheme])
    entry = next((auth[key] for key in auth if api_host(key) == place), None)
    if entry is None:
        return Login()
    variable = entry.get("token") or entry.get("password") or ""
    if parts.scheme == "http" and not is_loopback(host):
        return Login(variable)
    return Login(variable, _text(entry, env.get(variable, "").strip()))


def _text(entry: Mapping[str, str], secret: str) -> str:
    """Return a secret as a request has it; "" if a header cannot carry it."""
    if not secret:
        return ""
    if entry.get("token"):
        return huggingface.sendable(secret)
    from tasks.network.registry import basic

    return basic(str(entry.get("user")), secret)
