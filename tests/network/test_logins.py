"""Which credentials of `auth:` a request gets: one row for each rule."""

from __future__ import annotations

import base64

import pytest
from tasks.network.logins import Login, login_of

BASIC = f"Basic {base64.b64encode(b'bot:pw').decode()}"
AUTH = {
    "h": {"token": "T"},
    "h:5000": {"user": "bot", "password": "P"},
    "docker.io": {"user": "bot", "password": "P"},
    "127.0.0.1:9": {"token": "T"},
    "[::1]:9": {"token": "T"},
}
ENV = {"T": "abc\n", "P": "pw"}
# URL, environment, variable, what is sent
ROWS = [
    ("https://h/x.gguf", ENV, "T", "abc"),
    ("https://H:443/x.gguf", ENV, "T", "abc"),
    ("https://h:5000/v2/m/blobs/sha256:0", ENV, "P", BASIC),
    ("https://registry-1.docker.io/v2/a/m/manifests/1", ENV, "P", BASIC),
    ("http://127.0.0.1:9/x", ENV, "T", "abc"),
    ("http://[::1]:9/x", ENV, "T", "abc"),
    ("http://h/x.gguf", ENV, "T", ""),
    ("https://h.example/x", ENV, "", ""),
    ("https://sub.h/x", ENV, "", ""),
    ("https://h:444/x", ENV, "", ""),
    ("https://me@h/x", ENV, "", ""),
    ("ftp://h/x", ENV, "", ""),
    ("/h/x", ENV, "", ""),
    ("https://h/x", {}, "T", ""),
    ("https://h/x", {"T": " "}, "T", ""),
    ("https://h/x", {"T": "a\r\nb: c"}, "T", ""),
    ("https://[h/x", ENV, "", ""),
]


@pytest.mark.parametrize(("url", "env", "variable", "text"), ROWS)
def test_logins_of_a_host(url: str, env: dict[str, str], variable: str, text: str) -> None:
    assert login_of(url, AUTH, env) == Login(variable, text)
