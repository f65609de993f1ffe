"""Credentials for registries: challenges, logins and token responses. Pure.

Source: OCI distribution-spec 1.1; distribution's docs/spec/auth/token.md (challenge,
token, expiry); docker's config.json and containers-auth.json (logins); RFC 9110 §11.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from tasks.network.answers import parse_json
from tasks.urls import is_loopback, url_error

_API = r"https?://([^/]+)/v2/([^?#]+)/(?:blobs|manifests)/[^/?#]+"
# each name is tried once: a header of letters alone would take minutes
_PARAMETER = r'(?<![A-Za-z_])([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))'
_DOCKER_HUB = "registry-1.docker.io"
_DOCKER_LOGIN = "https://index.docker.io/v1/"
_HELPER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_IDENTITY_TOKEN = "<token>"  # as a user: not a password, but a token of OAuth2
MAX_TOKEN = 16 * 1024  # characters; servers accept headers of 8 to 64 KiB
DEFAULT_EXPIRY_S = 60  # Source: token.md, `expires_in`
_MAX_EXPIRY_S = 3600.0


class Challenge(NamedTuple):
    """What a 401 asks for."""

    scheme: str = ""  # bearer, basic, or empty if neither
    realm: str = ""
    service: str = ""
    error: str = ""  # such as insufficient_scope


class Token(NamedTuple):
    """A token, and the seconds that it is valid."""

    text: str
    expires_s: float


def repository_of(url: str) -> tuple[str, str]:
    """Return (host, repository) of a blob or manifest; empty for any other URL."""
    match = re.fullmatch(_API, url)
    if not match:
        return "", ""
    return match[1], match[2]


def parse_challenge(header: str) -> Challenge:
    """Parse WWW-Authenticate; of several challenges, Bearer is preferred."""
    header = header[:MAX_TOKEN]
    match = re.search(r"(?i)(?:^|,\s*)bearer\s+(.*)", header)
    if match:
        found = {
            name.lower(): quoted or plain
            for name, quoted, plain in re.findall(_PARAMETER, match[1])
        }
        known = {key: found.get(key, "") for key in ("realm", "service", "error")}
        return Challenge("bearer", **known)
    if re.match(r"(?i)\s*basic\b", header):
        return Challenge("basic")
    return Challenge()


def realm_problem(realm: str, registry: str) -> str:
    """Return why no token may be requested from a realm; "" if it may.

    The realm is a URL that the registry chooses: it must not lead to a service inside
    the user's network, and the login must not be sent unencrypted.

    Args:
        registry: the URL of the blob or manifest.
    """
    if problem := url_error(realm, pinned=True):
        return problem
    parts = urlsplit(realm)
    host = parts.hostname or ""
    own = urlsplit(registry).hostname or ""
    shown = realm.partition("?")[0]  # a query may have a signature
    if parts.scheme == "http" and not (is_loopback(own) and host == own):
        return f"{shown} is not https"
    if parts.scheme not in ("http", "https"):
        return f"{shown} is not https"
    if host != own and _is_internal(host):
        return f"{shown} is an internal address, and not that of the registry"
    return ""


def _is_internal(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return is_loopback(host) or "." not in host


def token_url(challenge: Challenge, repo: str, scopes: Sequence[str] = ()) -> str:
    """Return the URL of a token that may only read one repository.

    Args:
        scopes: what else it has to allow, instead; such as repository:REPO:pull,push.
    """
    mark = "?"
    if "?" in challenge.realm:
        mark = "&"
    wanted = scopes or (f"repository:{repo}:pull",)
    scope = "&".join(f"scope={quote(one, safe=':/,')}" for one in wanted)
    service = quote(challenge.service, safe="")
    return f"{challenge.realm}{mark}service={service}&{scope}"


def may_send_login(realm: str, registry: str) -> bool:
    """Return whether the login of a registry may be sent to a realm.

    Only to its own host, or to another of the same domain: docker.io, gitlab.com.
    """
    host = urlsplit(realm).hostname or ""
    own = urlsplit(registry).hostname or ""
    if host == own:
        return True
    return _domain(host) == _domain(own) != ""


def _domain(host: str) -> str:
    labels = host.split(".")
    if len(labels) < 2 or labels[-1].isdigit():
        return ""
    return ".".join(labels[-2:])


def parse_token(body: bytes) -> Token | None:
    """Parse the response to a token request; None if it has no usable token."""
    try:
        data = parse_json(body)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    text = data.get("token") or data.get("access_token")
    if not isinstance(text, str) or not is_token(text):
        return None
    stated = data.get("expires_in")
    if type(stated) is not int or stated < 1:
        stated = DEFAULT_EXPIRY_S
    return Token(text, min(float(stated), _MAX_EXPIRY_S))


def is_token(text: str) -> bool:
    """Return whether a header can carry a text as a token."""
    return 0 < len(text) <= MAX_TOKEN and re.fullmatch(r"[!-~]+", text) is not None


def config_paths(env: Mapping[str, str], home: str) -> list[str]:
    """Return the files that may have logins, the first one that exists counts."""
    paths = [
        env.get("REGISTRY_AUTH_FILE", ""),
        f"{env.get('DOCKER_CONFIG') or f'{home}/.docker'}/config.json",
    ]
    return [path for path in paths if path]


def parse_login(body: bytes, host: str) -> str:
    """Return `Basic …` for a host from docker's config.json; "" if it has no login."""
    try:
        auths = parse_json(body)["auths"]
        for key in _login_keys(host):
            if key in auths:
                text = str(auths[key].get("auth") or "")
                user, colon, password = base64.b64decode(text).partition(b":")
                if user and colon and password and is_token(text):
                    return f"Basic {text}"
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return ""
    return ""


def parse_helper(body: bytes, host: str) -> tuple[str, str]:
    """Return the credential helper for a host, and what it is asked; ("", "") if none.

    Source: docker/cli cli/config/configfile: credHelpers, then credsStore.
    """
    key = _login_keys(host)[0]
    try:
        config = parse_json(body)
        helpers = config.get("credHelpers") or {}
        names = [helpers.get(one) for one in _login_keys(host)]
        found = next(filter(None, names), config.get("credsStore"))
    except (ValueError, AttributeError):
        return "", ""
    if not isinstance(found, str) or not re.fullmatch(_HELPER, found):
        return "", ""
    return found, key


def parse_helper_answer(body: bytes) -> str:
    """Return `Basic …` for the answer of a credential helper; "" if it has no login."""
    try:
        answer = parse_json(body)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError):
        return ""
    texts = isinstance(user, str) and isinstance(secret, str)
    if not texts or not user or not secret or user == _IDENTITY_TOKEN:
        return ""
    return basic(user, secret)


def basic(user: str, password: str) -> str:
    """Return the Authorization of a user; "" if one of the texts is not Unicode."""
    try:
        pair = f"{user}:{password}".encode()
    except UnicodeEncodeError:  # a variable that is not UTF-8
        return ""
    return f"Basic {base64.b64encode(pair).decode()}"


def _login_keys(host: str) -> tuple[str, ...]:
    if host == _DOCKER_HUB:
        return (_DOCKER_LOGIN, "docker.io", _DOCKER_HUB)
    return (host, f"https://{host}", f"http://{host}")
