"""Answers that are short, begin wrong, lie about their length or refuse, and `doit download`.

Each row is what the server sends, byte by byte; the last answer is given for ever.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import llamafile
from tests.fakes.faults import Reply, Request
from tests.fakes.hostile import CHUNKED, HostileServer, Row, body, chunks, head
from tests.fakes.server import FileServer
from tests.support.project import ENGINES, Project, Result
from tests.support.publishers import entry, sha256

DATA = llamafile.gguf(300_000)
SIZE = len(DATA)
HALF = DATA[: SIZE // 2]
NAME = "m.gguf"
EMBEDDED = {"embedded": ENGINES["embedded"]}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5\n"
MISSING = body(b"Entry not found")
GOOD = body(DATA)
ONCE = ""  # it is taken: nothing is said of it
TOKEN = "hf_anExpiredTokenOfOurs"


def ok(*lines: str, data: bytes = DATA, length: int | None = SIZE) -> bytes:
    """A 200 with these header lines; the length is stated, and may be a lie."""
    stated = [] if length is None else [f"Content-Length: {length}"]
    return head(*stated, *lines) + data


def status(line: str, *lines: str) -> bytes:
    return head(*lines, status=f"HTTP/1.1 {line}")


AGAIN = "downloading it again over one connection"

# (name, the first answers, what is said of them); then the honest answer. Pinned, without a size
PASSING: list[tuple[str, tuple[bytes, ...], str]] = [
    # Content-Encoding: RFC 9110 §8.4
    *(
        (f"Content-Encoding: {text}", (ok(f"Content-Encoding: {text}"),), ONCE)
        for text in ("aws-chunked", "utf-8", "none", "binary", "identity", "")
    ),
    ("gzip", (ok("Content-Encoding: gzip"),), "a body encoded with gzip, not requested"),
    ("gzip in a list", (ok("Content-Encoding: aws-chunked, gzip"),), "a body encoded with gzip"),
    # Content-Type
    ("text/html of the file", (ok("Content-Type: text/html"),), ONCE),
    ("a page", (body(b"<!DOCTYPE html><p>", "Content-Type: text/html"),), "a web page instead"),
    ("a page, not labelled", (body(b"<html><p>sign in"),), "a web page instead"),
    ("markup, labelled", (body(b"<head><p>", "Content-Type: text/html"),), "a web page instead"),
    ("text, labelled", (body(b"sign in", "Content-Type: text/html"),), f'7 bytes, "sign in"); {AGAIN}'),
    # one answer that is too short: RFC 9112 §8
    ("HTTP/1.0, half", (head(status="HTTP/1.0 200 OK") + HALF,), f"GGUF file); {AGAIN}"),
    ("close, half", (head("Connection: close") + HALF,), f"GGUF file); {AGAIN}"),
    ("half, and says so", (body(HALF),), f"150.0 kB, which begin as a GGUF file); {AGAIN}"),
    ("half, cut", (ok(data=HALF),), "the connection ended before the file did"),
    ("half in chunks", (head(CHUNKED) + chunks(HALF) + b"0\r\n\r\n",), AGAIN),
    ("half in chunks, cut", (head(CHUNKED) + chunks(HALF),), "the connection ended before the file did"),
    ("206 of half", (status("206 x", f"Content-Range: bytes 0-{len(HALF) - 1}/{len(HALF)}",
                            f"Content-Length: {len(HALF)}") + HALF,), AGAIN),
    ("nothing", (body(b""),), f"wrong SHA-256 (0 bytes); {AGAIN}"),
    ("nothing in chunks", (head(CHUNKED) + b"0\r\n\r\n",), f"(0 bytes); {AGAIN}"),
    ("nothing at all", (head("Connection: close"),), f"(0 bytes); {AGAIN}"),
    # ... that begins wrong
    ("Entry not found", (MISSING,), f'(15 bytes, "Entry not found"); {AGAIN}'),
    ("a Git LFS pointer", (body(POINTER),), f"a Git LFS pointer instead of the file); {AGAIN}"),
    ("JSON", (body(b'{"error":"x"}', "Content-Type: application/json"),), f'"{{"error":"x"}}"); {AGAIN}'),
    ("other bytes", (body(DATA[::-1]),), f"(300.0 kB); {AGAIN}"),
    ("a byte too many", (body(DATA + b"x"),), AGAIN),
    # ... that lies about its length
    ("too long a length", (ok(length=SIZE + 5),), f"a length of 300000 bytes, after 300005 bytes; {AGAIN}"),
    ("too short a length", (ok(length=SIZE - 5),), AGAIN),
    ("a length of 0", (ok(length=0),), f"(0 bytes); {AGAIN}"),
    ("the length twice", (ok(f"Content-Length: {SIZE}"),), ONCE),
    ("a list of lengths", (ok(f"Content-Length: {SIZE}, {SIZE}", length=None),), ONCE),
    ("two lengths", (ok("Content-Length: 5"),), "multiple unmatching values (300000, 5)"),
    ("no number", (ok("Content-Length: x", length=None),), ONCE),
    ("a length beside chunks", (head(CHUNKED, "Content-Length: 5") + chunks(DATA) + b"0\r\n\r\n",), ONCE),
    ("chunks in gzip", (head("Transfer-Encoding: gzip, chunked") + chunks(DATA),), "a transfer coding"),
    ("chunks twice", (head(CHUNKED, CHUNKED) + chunks(DATA),), "a transfer coding"),
    ("a chunk of no size", (head(CHUNKED) + chunks(HALF) + b"zz\r\n",), "the connection ended"),
    ("a connection that says nothing", (b"",), "Remote end closed connection without response"),
    # interim answers: RFC 9110 §15.2
    ("103", (status("103 Early Hints", "Link: </x>") + GOOD,), ONCE),
    ("100, 102 and 103", (status("100 x") + status("102 x") + status("103 x") * 3 + GOOD,), ONCE),
    # successes without the file: §15.3
    *(
        (number, (status(f"{number} x"),), f"HTTP {number} without the file from 127.0.0.1; retrying")
        for number in ("202", "204", "205", "304")
    ),
    ("203", (status("203 x", f"Content-Length: {SIZE}") + DATA,), ONCE),
    # no HTTP
    ("SSH", (b"SSH-2.0-OpenSSH_9.6\r\n",), "no HTTP answer from 127.0.0.1; retrying"),
    ("SMTP", (b"220 mail ESMTP\r\n",), "no HTTP answer"),
    ("TLS", (b"\x15\x03\x01\x00\x02\x02\x46",), "no HTTP answer"),
    ("HTTP/3", (b"HTTP/3 200 OK\r\n\r\n",), "no HTTP answer"),
]  # fmt: skip


def download(project: Project, server: HostileServer, **keys: Any) -> Result:
    """Download the file; whatever the status, wrong bytes have no final name."""
    model = entry(url=server.url(f"/{NAME}"), engine="embedded", **keys)
    project.catalogue({"m": model}, EMBEDDED)
    result = project.doit("download")
    named = [path for path in (project.cache / "models").rglob(NAME) if path.is_file()]
    assert [path.read_bytes() == DATA for path in named] == [True] * (result.status == 0)
    return result


@pytest.mark.parametrize(("name", "answers", "said"), PASSING, ids=[row[0] for row in PASSING])
def test_an_answer(project: Project, name: str, answers: tuple[bytes, ...], said: str) -> None:
    """It is the file, or the next one is."""
    with HostileServer(*(Row(name, answer) for answer in (*answers, GOOD))) as server:
        result = download(project, server, sha256=sha256(DATA))
        assert result.status == 0, result.err
        assert (len(server.requests) == 1) == (said == ONCE), result.err
    assert said in result.err


# (name, the answer for ever, keys of the entry, what is said)
FINAL: list[tuple[str, bytes, str]] = [
    ("Entry not found", MISSING, 'received: 15 bytes, "Entry not found"'),
    ("nothing", body(b""), "received: 0 bytes"),
    ("a Git LFS pointer", body(POINTER), "bytes, a Git LFS pointer instead of the file"),
    ("half", body(HALF), "received: 150.0 kB, which begin as a GGUF file"),
]


@pytest.mark.parametrize(("name", "answer", "said"), FINAL, ids=[row[0] for row in FINAL])
def test_wrong_for_ever(project: Project, name: str, answer: bytes, said: str) -> None:
    """Asked for twice; then how many bytes came, and how they begin."""
    with HostileServer(Row(name, answer)) as server:
        result = download(project, server, sha256=sha256(DATA))
        assert len(server.requests) == 2
    assert result.status == 1
    assert "ERROR: m: no source sent the right bytes" in result.err
    assert said in result.err
    assert b"no-cache" in server.requests[1]


SIZED = [
    (MISSING, 'wrong length: 15 bytes, expected 300000: "Entry not found" from'),
    (body(POINTER), "a Git LFS pointer instead of the file from"),
    (body(b"<html>" * 50), "a web page instead of the file"),
    (body(b""), "wrong length: 0 bytes, expected 300000 from"),
]


@pytest.mark.parametrize(("answer", "said"), SIZED, ids=[row[1] for row in SIZED])
def test_wrong_length(project: Project, answer: bytes, said: str) -> None:
    """With a known size, it is known before the body is read."""
    with HostileServer(Row("x", answer), Row("good", GOOD)) as server:
        result = download(project, server, sha256=sha256(DATA), size=SIZE)
    assert (result.status, said in result.err) == (0, True), result.err


def test_unpinned_and_labelled_as_a_page(project: Project) -> None:
    """What begins as a model is one; other text is a page, and the next answer is asked for."""
    rows = [Row("text", ok("Content-Type: text/html", data=b"sign in", length=7))]
    rows.append(Row("model", ok("Content-Type: text/html")))
    with HostileServer(*rows) as server:
        result = download(project, server)
        assert (result.status, len(server.requests)) == (0, 2), result.err
    assert "a web page instead of the file" in result.err


# Credentials


@pytest.fixture
def refusing(project: Project) -> Iterator[FileServer]:
    """A Hub that answers 401 to any credentials, and has the file for everybody."""
    with FileServer() as server:
        path = f"/o/r/resolve/main/{NAME}"
        server.files[path] = DATA
        server.guard(path, lambda asked: Reply(401, {}) if asked.headers["Authorization"] else None)
        project.env["HF_ENDPOINT"] = server.url("")
        yield server


def credentials(project: Project, kind: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has these."""
    home = Path(project.env["HOME"])
    if kind == "HF_TOKEN":
        return {"HF_TOKEN": TOKEN}
    if kind == "saved":
        saved = home / ".cache" / "huggingface" / "token"
        saved.parent.mkdir(parents=True)
        saved.write_text(TOKEN)
        return {}
    line = {"netrc": "machine 127.0.0.1", "default": "default"}[kind.split(" ")[0]]
    netrc = tmp_path / "netrc"
    netrc.write_text(f"{line} login me password {TOKEN}\n")
    netrc.chmod(0o600)
    more = {"HF_TOKEN": TOKEN} if kind.endswith("token") else {}
    return {"NETRC": str(netrc), **more}


@pytest.mark.parametrize("kind", ["HF_TOKEN", "saved", "netrc", "default", "netrc and token"])
def test_refused_credentials(project: Project, refusing: FileServer, kind: str, tmp_path: Path) -> None:
    """A pinned file that is public is public: the digest decides."""
    pinned = entry(hf="o/r", file=NAME, engine="embedded", sha256=sha256(DATA))
    env = credentials(project, kind, tmp_path)
    project.catalogue({"m": pinned}, EMBEDDED)
    result = project.doit("download", env=env)
    assert result.status == 0, result.err
    said = "the password in .netrc" if kind in ("netrc", "default") else "the token"
    assert f"127.0.0.1 does not accept {said} (HTTP 401); trying without it" in result.err
    assert TOKEN not in result.err
    sent = [request.headers["Authorization"] for request in refusing.requests]
    assert (sent[-1], len(sent)) == (None, 3 if kind == "netrc and token" else 2)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("HF_TOKEN", "HTTP 401; the token is not accepted: run hf auth login or set another HF_TOKEN"),
        ("netrc", "HTTP 401; the password in .netrc is not accepted: correct or remove"),
    ],
)
def test_refused_credentials_of_an_unpinned_file(
    project: Project, refusing: FileServer, kind: str, said: str, tmp_path: Path
) -> None:
    """Nothing would decide: the remedy is for the credentials that were sent."""
    project.catalogue({"m": entry(hf="o/r", file=NAME, engine="embedded")}, EMBEDDED)
    result = project.doit("download", env=credentials(project, kind, tmp_path))
    assert (result.status, len(refusing.requests)) == (1, 1)
    assert said in result.err


def test_a_password_that_helps(project: Project, refusing: FileServer, tmp_path: Path) -> None:
    """A mirror that wants the password of .netrc gets it."""
    right = base64.b64encode(f"me:{TOKEN}".encode()).decode()

    def guard(asked: Request) -> Reply | None:
        return None if asked.headers["Authorization"] == f"Basic {right}" else Reply(401, {})

    refusing.guard(f"/o/r/resolve/main/{NAME}", guard)
    project.catalogue({"m": entry(hf="o/r", file=NAME, engine="embedded", sha256=sha256(DATA))}, EMBEDDED)
    result = project.doit("download", env=credentials(project, "netrc", tmp_path))
    assert result.status == 0, result.err


# Proxies


@pytest.mark.parametrize(
    ("scheme", "variable", "answer", "said", "fix"),
    [
        ("https", "HTTPS_PROXY", 407, "HTTP 407 to CONNECT", "set HTTPS_PROXY=http://USER:PASSWORD@"),
        ("https", "ALL_PROXY", 407, "HTTP 407 to CONNECT", "set ALL_PROXY=http://USER:PASSWORD@"),
        ("https", "https_proxy", 403, "the proxy forbids access to the host", "in https_proxy, or list"),
        ("https", "HTTPS_PROXY", 405, "does not connect to the host", "is it an HTTP proxy?"),
        ("http", "HTTP_PROXY", 407, "HTTP 407", "set HTTP_PROXY=http://USER:PASSWORD@"),
    ],
)
def test_a_proxy_that_refuses(
    project: Project, scheme: str, variable: str, answer: int, said: str, fix: str
) -> None:
    """Named at once: six wrong passwords may lock an account."""
    url = f"{scheme}://models.example/{NAME}"
    project.catalogue({"m": entry(url=url, sha256=sha256(DATA), engine="embedded")}, EMBEDDED)
    with HostileServer(Row("proxy", status(f"{answer} x", "Content-Length: 0"))) as proxy:
        result = project.doit("download", env={variable: proxy.url()})
        assert len(proxy.requests) == 1
    assert result.status == 1
    assert said in result.err
    assert fix in result.err
    assert "tried" not in result.err


def test_a_socks_proxy(project: Project) -> None:
    """The package is named, by a download and by doctor."""
    pytest.importorskip("requests")
    try:
        import socks  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("PySocks is installed")
    url = f"https://models.example/{NAME}"
    project.catalogue({"m": entry(url=url, sha256=sha256(DATA), engine="embedded")}, EMBEDDED)
    env = {"ALL_PROXY": "socks5://127.0.0.1:9"}
    result = project.doit("download", env=env)
    assert result.status == 1
    assert "a SOCKS proxy needs the package PySocks; pip install pysocks" in result.err
    found = project.doit("doctor", env=env)
    assert "pip install pysocks" in found.out + found.err


# Web pages about a file

PAGES = [
    ("https://huggingface.co/o/r/blob/main/x.gguf", "https://huggingface.co/o/r/resolve/main/x.gguf"),
    ("https://huggingface.co/o/r/raw/main/x.gguf", "https://huggingface.co/o/r/resolve/main/x.gguf"),
    ("https://github.com/o/r/blob/v1/a/x.gguf", "https://github.com/o/r/raw/v1/a/x.gguf"),
]


@pytest.mark.parametrize(("page", "file"), PAGES)
def test_the_url_of_a_page(project: Project, page: str, file: str) -> None:
    """The catalogue's error has its line, the option's is a usage error; both have the URL to paste."""
    project.catalogue({"m": entry(url=page, engine="embedded", sha256=sha256(DATA))}, EMBEDDED)
    lines = (project.path / "models.yaml").read_text().splitlines()
    number = next(at for at, line in enumerate(lines, 1) if page in line)
    result = project.doit("download")
    assert (result.status, f"use {file}" in result.err) == (3, True), result.err
    assert f"models.yaml:{number}" in result.err
    project.catalogue({"m": entry(url=file, engine="embedded", sha256=sha256(DATA))}, EMBEDDED)
    result = project.doit("download", "--llamafile-url", page)
    assert (result.status, f"--llamafile-url: {page}" in result.err) == (3, True), result.err
    assert f"use {file}" in result.err
    assert not os.path.exists(project.cache / "models")
