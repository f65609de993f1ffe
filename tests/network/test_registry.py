"""Credentials for registries: challenges, realms, tokens and logins, one row for each rule."""

from __future__ import annotations

import base64
import json

import pytest
from tasks.network import registry
from tasks.network.registry import Challenge

# WWW-Authenticate, what it asks for
CHALLENGES = [
    ('Bearer realm="https://a/t",service="s",scope="x:r:pull"', Challenge("bearer", "https://a/t", "s")),
    ('bearer realm=https://a/t, error="no_scope"', Challenge("bearer", "https://a/t", "", "no_scope")),
    ('Basic realm="x", Bearer realm="https://a/t"', Challenge("bearer", "https://a/t")),
    ('Basic realm="x"', Challenge("basic")),
    ("Bearer ", Challenge("bearer")),
    ("Negotiate", Challenge()),
    ("Bearer " + "a" * 60_000, Challenge("bearer")),  # at once
    ('Bearer realm="https://a/t",' + " " * 60_000 + 'service="s"', Challenge("bearer", "https://a/t")),
    ("", Challenge()),
]  # fmt: skip


@pytest.mark.parametrize(("header", "expected"), CHALLENGES)
def test_challenges(header: str, expected: Challenge) -> None:
    assert registry.parse_challenge(header) == expected


HUB = "https://registry-1.docker.io/v2/ai/m/manifests/1"
HERE = "http://127.0.0.1:5000/v2/m/manifests/1"
# realm, registry, what is wrong with it, whether the registry's login is sent there
REALMS = [
    ("https://auth.docker.io/token", HUB, "", True),
    ("https://elsewhere.example/token", HUB, "", False),
    ("https://docker.io.example/token", HUB, "", False),
    ("http://auth.docker.io/token", HUB, "is not https", True),
    ("http://127.0.0.1:5001/token", HERE, "", True),
    ("http://localhost:5001/token", HERE, "is not https", False),
    ("http://127.0.0.1/token", HUB, "is not https", False),
    ("https://169.254.169.254/latest", HUB, "is an internal address", False),
    ("https://[::1]/token", HUB, "is an internal address", False),
    ("https://10.0.0.8/token", HUB, "is an internal address", False),
    ("https://vault/token", HUB, "is an internal address", False),
    ("https://10.0.0.8:5001/token", "https://10.0.0.8/v2/m/manifests/1", "", True),
    ("file:///etc/passwd", HUB, "is not https", False),
    ("ftp://auth.docker.io/token", HUB, "got ftp:", True),
    ("https://me:pw@auth.docker.io/token", HUB, "no user or password", True),
    ("", HUB, "expected a URL", False),
    ("http://elsewhere.example/t?sig=secret", HUB, "elsewhere.example/t is not https", False),
    ("oci://auth.docker.io/m:1", HUB, "is not https", True),
]


@pytest.mark.parametrize(("realm", "url", "problem", "is_sent"), REALMS)
def test_realms(realm: str, url: str, problem: str, is_sent: bool) -> None:
    found = registry.realm_problem(realm, url)
    assert (problem in found) if problem else not found
    assert registry.may_send_login(realm, url) is is_sent


def test_a_login_that_is_not_unicode_is_none() -> None:
    """As a variable has it that is not UTF-8, or as a credential helper prints it."""
    assert registry.basic("me", "\udcff") == ""
    assert registry.parse_helper_answer(b'{"Username": "\\ud800", "Secret": "x"}') == ""


def test_the_scope_is_to_read_one_repository() -> None:
    """Whatever scope the registry asks for."""
    wanted = Challenge("bearer", "https://a/t?x=1", "a b")
    assert registry.token_url(wanted, "m/n") == "https://a/t?x=1&service=a%20b&scope=repository:m/n:pull"


# response, token, seconds
TOKENS = [
    ({"token": "abc", "expires_in": 300}, ("abc", 300)),
    ({"access_token": "abc"}, ("abc", 60)),
    ({"token": "abc", "expires_in": -1}, ("abc", 60)),
    ({"token": "abc", "expires_in": 10**12}, ("abc", 3600)),
    ({"token": "a\nb"}, None),
    ({"token": "a" * 20_000}, None),
    ({"token": ""}, None),
    ({"token": 1}, None),
    ([], None),
]


@pytest.mark.parametrize(("data", "expected"), TOKENS)
def test_tokens(data: object, expected: tuple[str, float] | None) -> None:
    found = registry.parse_token(json.dumps(data).encode())
    assert found == expected


LOGIN = base64.b64encode(b"me:pw").decode()
# config.json, host, login
LOGINS = [
    ({"auths": {"h:5000": {"auth": LOGIN}}}, "h:5000", f"Basic {LOGIN}"),
    ({"auths": {"https://h": {"auth": LOGIN}}}, "h", f"Basic {LOGIN}"),
    ({"auths": {"https://index.docker.io/v1/": {"auth": LOGIN}}}, "registry-1.docker.io", f"Basic {LOGIN}"),
    ({"auths": {"h": {"auth": LOGIN}}}, "other", ""),
    ({"auths": {"h": {}}, "credsStore": "osxkeychain"}, "h", ""),
    ({"auths": {"h": {"auth": "bm9jb2xvbg=="}}}, "h", ""),
    ({"auths": {"h": {"auth": "%%%"}}}, "h", ""),
    ({"auths": {"h": "text"}}, "h", ""),
    ({"auths": []}, "h", ""),
    ("text", "h", ""),
]


@pytest.mark.parametrize(("config", "host", "expected"), LOGINS)
def test_logins_of_docker(config: object, host: str, expected: str) -> None:
    assert registry.parse_login(json.dumps(config).encode(), host) == expected


HUB_LOGIN = "https://index.docker.io/v1/"
# config.json, host, name of the credential helper, what it is asked
HELPERS = [
    ({"credsStore": "desktop"}, "h:5000", ("desktop", "h:5000")),
    ({"credsStore": "desktop", "credHelpers": {"h": "ecr-login"}}, "h", ("ecr-login", "h")),
    ({"credHelpers": {"h": "gcloud"}}, "other", ("", "")),
    ({"credsStore": "pass"}, "registry-1.docker.io", ("pass", HUB_LOGIN)),
    ({"credHelpers": {"docker.io": "pass"}}, "registry-1.docker.io", ("pass", HUB_LOGIN)),
    ({"credsStore": "../../bin/sh"}, "h", ("", "")),
    ({"credsStore": "a b"}, "h", ("", "")),
    ({"credsStore": ""}, "h", ("", "")),
    ({"credsStore": 1, "credHelpers": []}, "h", ("", "")),
    ([], "h", ("", "")),
]


@pytest.mark.parametrize(("config", "host", "expected"), HELPERS)
def test_credential_helpers(config: object, host: str, expected: tuple[str, str]) -> None:
    assert registry.parse_helper(json.dumps(config).encode(), host) == expected


# what a helper prints, login
ANSWERS = [
    (b'{"ServerURL": "h", "Username": "me", "Secret": "pw"}', f"Basic {LOGIN}"),
    (b'{"Username": "<token>", "Secret": "pw"}', ""),
    (b'{"Username": "me", "Secret": ""}', ""),
    (b'{"Username": "me", "Secret": 1}', ""),
    (b"credentials not found in native keychain", ""),
    (b"", ""),
]


@pytest.mark.parametrize(("body", "expected"), ANSWERS)
def test_what_a_helper_prints(body: bytes, expected: str) -> None:
    assert registry.parse_helper_answer(body) == expected


# URL, host and repository
URLS = [
    ("https://h:1/v2/a/b/blobs/sha256:00", ("h:1", "a/b")),
    ("https://h/v2/a/manifests/1", ("h", "a")),
    ("https://h/v2/a/tags/list", ("", "")),
    ("https://h/o/r/resolve/main/x.gguf", ("", "")),
]


@pytest.mark.parametrize(("url", "expected"), URLS)
def test_urls_of_a_repository(url: str, expected: tuple[str, str]) -> None:
    assert registry.repository_of(url) == expected
