"""URLs: which are refused before anything is downloaded (R22, R29), and what their files are called (R3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.urls import (
    file_of_page,
    filename_of,
    host_of,
    is_local,
    needed_no_proxy,
    no_proxy,
    url_error,
)  # fmt: skip

HUB = "https://huggingface.co"

MISSING = "https:// is missing (a local path begins with ./ or /)"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        pytest.param("https://h/a/b.llamafile", "b.llamafile", id="the last segment"),
        pytest.param("https://h/b.gguf?download=true&x=/y.gguf", "b.gguf", id="the query is removed"),
        pytest.param("https://h/b.gguf#L1/z.gguf", "b.gguf", id="the fragment is removed"),
        pytest.param("https://h/my%20model%C3%A9.gguf", "my modelé.gguf", id="percent-decoding"),
        pytest.param("https://h/a+b.gguf", "a+b.gguf", id="a plus is a plus in a path"),
        pytest.param("https://h/100%25.gguf", "100%.gguf", id="decoded once, not twice"),
        pytest.param("https://h/..%2F..%2Fetc%2Fx.gguf", "x.gguf", id="encoded slashes lead nowhere"),
        pytest.param("https://h/..%5C..%5Cx.gguf", "x.gguf", id="encoded backslashes lead nowhere"),
        pytest.param("https://h/a/b.gguf/", "b.gguf", id="a slash at the end"),
        pytest.param("https://h/a/b.gguf//", "b.gguf", id="several"),
        pytest.param("https://h", "", id="no path"),
        pytest.param("https://h/", "", id="an empty path"),
        pytest.param("https://h/a/..", "", id="dots name a directory"),
        pytest.param("https://h/a/%2E", "", id="an encoded dot does too"),
        pytest.param("https://h/a%00b%0A.gguf", "a_b_.gguf", id="control characters are in no name"),
        pytest.param("https://h/a%3Ab%2A.gguf", "a_b_.gguf", id="nor what Windows takes for something else"),
        pytest.param("file:///srv/b.gguf", "b.gguf", id="a file"),
        pytest.param("demo/demo.gguf", "demo.gguf", id="a path"),
        pytest.param(r"C:\models\b.gguf", "b.gguf", id="a Windows path"),
    ],
)
def test_name_of_the_file(url: str, name: str) -> None:
    """R3: the URL path's last segment, decoded."""
    assert filename_of(url) == name


@pytest.mark.parametrize(
    ("url", "where"),
    [
        pytest.param("https://Hub.example:8443/x", "hub.example", id="the host, without its port"),
        pytest.param("http://[::1]:80/x", "::1", id="IPv6"),
        pytest.param("file:///x", "this machine", id="a file"),
        pytest.param("/srv/x", "this machine", id="an absolute path"),
        pytest.param("demo/x", "this machine", id="a relative path"),
        pytest.param(r"C:\models\x", "this machine", id="a Windows path: a drive is no scheme"),
        pytest.param("C:/models/x", "this machine", id="the same with slashes"),
    ],
)
def test_where_it_comes_from(url: str, where: str) -> None:
    """Messages name the host; what is on this machine needs no network."""
    assert host_of(url) == where
    assert is_local(url) == (where == "this machine")


@pytest.mark.parametrize(
    ("url", "unpinned", "pinned"),
    [
        pytest.param("https://h/x", "", "", id="https"),
        pytest.param("HTTPS://h:8443/x?y#z", "", "", id="a scheme in capitals, a port, a query"),
        pytest.param("http://h/x", "allowed only with a sha256", "", id="plain http needs a digest"),
        pytest.param("http://localhost:80/x", "", "", id="plain http from this machine"),
        pytest.param("http://127.0.0.1/x", "", "", id="the same by address"),
        pytest.param("http://[::1]/x", "", "", id="the same by IPv6 address"),
        pytest.param("http://localhost.evil.org/x", "allowed only", "", id="a host that only looks like it"),
        pytest.param("file:///x", "", "", id="a file"),
        pytest.param("huggingface.co/o/r/x", MISSING, MISSING, id="F29: a host without a scheme"),
        pytest.param("WWW.example.de/x", MISSING, MISSING, id="F29: www"),
        pytest.param("localhost:8000/x", MISSING, MISSING, id="F29: a host and a port"),
        pytest.param("gpu-box:8000/x", MISSING, MISSING, id="F29: no dot, but a port"),
        pytest.param("10.0.0.7/x", MISSING, MISSING, id="F29: an address"),
        pytest.param("./huggingface.co/x", "", "", id="F29: a folder of that name"),
        pytest.param("/data/huggingface.co/x", "", "", id="F29: an absolute path"),
        pytest.param("models.d/x.gguf", "", "", id="F29: a folder with a dot"),
        pytest.param("data.com-old/x.gguf", "", "", id="F29: a name that goes on"),
        pytest.param("v1.2/x.gguf", "", "", id="F29: a folder of a version"),
        pytest.param("file://", "has no file name", "has no file name", id="file:// and nothing"),
        pytest.param("demo/x", "", "", id="a path"),
        pytest.param(r"C:\x.gguf", "", "", id="a Windows path"),
        pytest.param("my models/x.gguf", "", "", id="a path with a blank"),
        pytest.param("", "expected a URL", "expected a URL", id="nothing"),
        pytest.param("https://h/a b", "expected a URL", "expected a URL", id="a blank inside"),
        pytest.param("https://h/a\nb", "expected a URL", "expected a URL", id="a line break inside"),
        pytest.param("https://h/a\0b", "expected a URL", "expected a URL", id="a control character inside"),
        pytest.param("https:///x", "has no host", "has no host", id="no host"),
        pytest.param("https://[::1/x", "is not a URL", "is not a URL", id="an open bracket"),
        pytest.param("https://h:99999/x", "is not a URL", "is not a URL", id="no such port"),
        pytest.param("ftp://h/x", "got ftp:", "got ftp:", id="another scheme"),
        pytest.param("htps://h/x", "got htps:", "got htps:", id="a misspelt scheme"),
        pytest.param("s3://h/x", "got s3:", "got s3:", id="a scheme of two letters is no drive"),
        pytest.param("https://u:secret@h/x", "https://…@h", "https://…@h", id="a password, not repeated"),
        pytest.param("ftp://u:secret@h/x", "ftp://…@h", "ftp://…@h", id="nor with another scheme"),
        pytest.param("https://u:secret@h:99999/x", "is not a URL", "is not a URL", id="nor in no URL"),
    ],
)
def test_checked_before_anything_is_downloaded(url: str, unpinned: str, pinned: str) -> None:
    """R22, R29: scheme, host and syntax; the message repeats no password."""
    for expected, has_digest in ((unpinned, False), (pinned, True)):
        problem = url_error(url, pinned=has_digest)
        assert expected in problem
        assert bool(problem) == bool(expected)
        assert "secret" not in problem


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (f"{HUB}/o/r/blob/main/x.gguf", f"{HUB}/o/r/resolve/main/x.gguf"),
        (f"{HUB}/o/r/raw/main/x.gguf", f"{HUB}/o/r/resolve/main/x.gguf"),
        (f"{HUB}/o/r/blame/v1/a/x.gguf", f"{HUB}/o/r/resolve/v1/a/x.gguf"),
        (f"{HUB}/o/r/blob/main/x.gguf?download=true", f"{HUB}/o/r/resolve/main/x.gguf"),
        (f"{HUB}/datasets/o/r/blob/main/x", f"{HUB}/datasets/o/r/resolve/main/x"),
        ("https://hf.co/o/r/blob/main/x", "https://hf.co/o/r/resolve/main/x"),
        ("https://hf-mirror.com/o/r/raw/main/x", "https://hf-mirror.com/o/r/resolve/main/x"),
        ("https://github.com/o/r/blob/v1/x#L1", "https://github.com/o/r/raw/v1/x"),
        ("https://gitlab.org/a/b/c/-/blob/v1/x", "https://gitlab.org/a/b/c/-/raw/v1/x"),
        # the file itself, or a host of which nothing is known
        (f"{HUB}/o/r/resolve/main/x.gguf", ""),
        (f"{HUB}/o/r/resolve/main/raw/x.gguf", ""),
        (f"{HUB}/blob/raw/resolve/main/x.gguf", ""),
        ("https://github.com/o/r/raw/v1/x", ""),
        ("https://github.com/o/r/releases/download/blob/x", ""),
        ("https://raw.githubusercontent.com/o/r/v1/blob/x", ""),
        ("https://gitlab.org/a/b/-/raw/v1/x", ""),
        ("https://example.org/o/r/blob/main/x", ""),
        ("https://notgithub.com/o/r/blob/main/x", ""),
        ("models/blob/x.gguf", ""),
    ],
)
def test_a_page_about_a_file(page: str, file: str) -> None:
    """F24: a browser's address bar has the page; its error has the URL to paste."""
    assert file_of_page(page) == file
    assert (f"is not the file itself: use {file}" in url_error(page, pinned=True)) == bool(file)


@given(
    st.text()
    | st.from_regex(r"(https?|file|[a-z]):/{0,3}[\w.:@\[\]%]{0,12}/[\w.%/\\:-]{0,24}", fullmatch=True),
    st.booleans(),
)
def test_whatever_is_typed(url: str, pinned: bool) -> None:
    """A problem or none, never an exception; a URL without one names a file in one directory, or none."""
    if not url_error(url, pinned=pinned):
        name = filename_of(url)
        assert name not in (".", "..")
        assert not set(name) & set("/\\\0")
        assert host_of(url)


HERE = "127.0.0.1"
P = "http_proxy"


@pytest.mark.parametrize(
    ("env", "host", "upper", "lower"),
    [
        ({P: "x"}, HERE, "127.0.0.1,localhost", "127.0.0.1,localhost"),
        ({"HTTPS_PROXY": "x"}, HERE, "127.0.0.1,localhost", "127.0.0.1,localhost"),
        ({"All_Proxy": "x"}, HERE, "127.0.0.1,localhost", "127.0.0.1,localhost"),
        ({P: "x", "NO_PROXY": "a"}, HERE, "a,127.0.0.1,localhost", "a,127.0.0.1,localhost"),
        ({P: "x", "no_proxy": "a"}, HERE, "a,127.0.0.1,localhost", "a,127.0.0.1,localhost"),
        (
            {P: "x", "NO_PROXY": "a", "no_proxy": "b"},
            HERE, "a,127.0.0.1,localhost", "b,127.0.0.1,localhost",
        ),
        ({P: "x", "NO_PROXY": "a", "no_proxy": ""}, HERE, "a,127.0.0.1,localhost", "127.0.0.1,localhost"),
        ({P: "x", "NO_PROXY": " .a.b, c d,,"}, HERE, ".a.b,c,d,127.0.0.1,localhost", None),
        ({P: "x", "NO_PROXY": "a\nB=c"}, HERE, "a,B=c,127.0.0.1,localhost", None),
        ({P: "x", "NO_PROXY": "localhost"}, HERE, "localhost,127.0.0.1", None),
        ({P: "x", "NO_PROXY": "localhost,127.0.0.1"}, HERE, "localhost,127.0.0.1", None),
        ({P: "x", "NO_PROXY": "*"}, HERE, "*", None),
        ({P: "x", "NO_PROXY": "*,a"}, HERE, "*,a,127.0.0.1,localhost", None),
        ({P: "x"}, "0.0.0.0", "127.0.0.1,localhost", None),
        ({P: "x"}, "::", "::1,127.0.0.1,localhost", None),
        ({P: "x"}, "192.168.0.2", "192.168.0.2,127.0.0.1,localhost", None),
        ({P: "x"}, "localhost", "localhost,127.0.0.1", None),
    ],
)  # fmt: skip
def test_no_proxy(env: dict[str, str], host: str, upper: str, lower: str | None) -> None:
    """F35: hosts are added, none is removed; one variable does not hide the other."""
    assert no_proxy(env, host) == {"NO_PROXY": upper, "no_proxy": upper if lower is None else lower}


@pytest.mark.parametrize("env", [{}, {P: ""}, {"NO_PROXY": "a"}, {"FTP_PROXY": "x"}])
def test_no_proxy_without_a_proxy(env: dict[str, str]) -> None:
    """Nothing is set: NO_PROXY alone would disable the proxy of the system."""
    assert no_proxy(env, HERE) == {}
    assert needed_no_proxy(env, HERE) == ""


@pytest.mark.parametrize(
    ("more", "host", "needed"),
    [
        ({}, HERE, "127.0.0.1,localhost"),
        ({"NO_PROXY": "a"}, HERE, "a,127.0.0.1,localhost"),
        ({"NO_PROXY": "127.0.0.1"}, HERE, ""),
        ({"no_proxy": "a 127.0.0.1"}, HERE, ""),
        ({"no_proxy": "*"}, HERE, ""),
        ({"NO_PROXY": "127.0.0.1"}, "0.0.0.0", ""),
        ({"NO_PROXY": "localhost"}, HERE, "localhost,127.0.0.1"),
        ({"NO_PROXY": "127.0.0.1"}, "192.168.0.2", "127.0.0.1,192.168.0.2,localhost"),
    ],
)
def test_what_clients_lack(more: dict[str, str], host: str, needed: str) -> None:
    """F35: `doit start` and `doit doctor` name it only where something is missing."""
    assert needed_no_proxy({P: "x", **more}, host) == needed
