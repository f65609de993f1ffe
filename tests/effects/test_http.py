"""The network module against real sockets: every failure by name, and nothing but TransferError leaves it."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import TransferError
from tasks.effects import http
from tests.fakes.hub import Hub
from tests.fakes.server import (
    Drop,
    Fault,
    FileServer,
    Gzip,
    Hangup,
    NoLength,
    NoLengthTruncated,
    Redirect,
    Stall,
    Status,
    WrongLength,
)
from tests.fakes.tls import self_signed

DATA = hashlib.shake_128(b"http").digest(300_000)
FILE = "/m.llamafile"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of a server for 127.0.0.1 that nobody trusts."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[FileServer]:
    with FileServer(tls=certificate) as server:
        server.files[FILE] = DATA
        yield server


def read(url: str, headers: Mapping[str, str] | None = None) -> tuple[http.Answer, bytes]:
    """Ask once and read the whole body."""
    with http.get(http.new_session(), url, headers or {"Accept-Encoding": "identity"}) as answer:
        return answer, b"".join(answer.body)


def failure(url: str) -> TransferError:
    with pytest.raises(TransferError) as caught:
        read(url)
    return caught.value


def test_an_answer(server: FileServer) -> None:
    """R22: status and lower-case headers before the body."""
    with http.get(http.new_session(), server.url(FILE), {"Range": "bytes=5-"}) as answer:
        assert (answer.status, answer.url) == (206, server.url(FILE))
        assert answer.headers["content-range"] == f"bytes 5-{len(DATA) - 1}/{len(DATA)}"
        assert b"".join(answer.body) == DATA[5:]


def test_the_agent_says_who_asks(server: FileServer) -> None:
    """R22: a publisher can tell what this traffic is."""
    read(server.url(FILE))
    assert str(server.requests[0].headers["User-Agent"]).startswith("llamafile-recipe (python-requests/")


def test_an_error_page_is_an_answer(server: FileServer) -> None:
    """R19: what a status means is not decided here."""
    server.script(FILE, Status(503, {"Retry-After": "9"}))
    answer, _ = read(server.url(FILE))
    assert (answer.status, answer.headers["retry-after"]) == (503, "9")


def test_nothing_is_retried_behind_our_back(server: FileServer) -> None:
    """R19: urllib3 would sleep up to six hours on Retry-After."""
    server.always(FILE, Status(503, {"Retry-After": "1"}))
    read(server.url(FILE))
    server.always(FILE, Hangup())
    failure(server.url(FILE))
    assert len(server.asked(FILE)) == 2


def test_a_body_is_never_decoded(server: FileServer) -> None:
    """R20: the bytes of the wire; offsets of a decoded body would be others (hub#1449)."""
    server.script(FILE, Gzip())
    answer, body = read(server.url(FILE))
    assert answer.headers["content-encoding"] == "gzip"
    assert (body[:2], gzip.decompress(body)) == (b"\x1f\x8b", DATA)


def test_headers_of_the_hubs_redirect_are_kept(server: FileServer) -> None:
    """R21: the digest stands on the redirect, not on what it leads to."""
    with FileServer() as cdn:
        hub = Hub(server, cdn, FILE, DATA)
        answer, body = read(hub.url)
    assert answer.headers["x-linked-etag"] == f'"{hub.sha256}"'
    assert answer.headers["x-repo-commit"] == hub.commit
    assert answer.headers["content-length"] == str(len(DATA))
    assert (answer.url.split("?")[0], body) == (cdn.url(hub.cdn_path), DATA)


@pytest.mark.parametrize(
    ("fault", "says", "final"),
    [
        pytest.param(Hangup(), "Remote end closed connection without response", False, id="no answer"),
        pytest.param(Drop(1000), "the connection ended before the file did", False, id="dropped"),
        pytest.param(Drop(1000, reset=True), "Connection reset by peer", False, id="reset"),
        pytest.param(WrongLength(9), "the connection ended before the file did", False, id="too long"),
        pytest.param(Stall(1000, 60), "nothing came for 0 s", False, id="silence in the body"),
        pytest.param(Hangup(60), "nothing came for 0 s", False, id="silence before the answer"),
        pytest.param(Redirect(FILE), "Exceeded 30 redirects", True, id="redirects in a circle"),
        pytest.param(Redirect("ftp://127.0.0.1/x"), "No connection adapters", True, id="redirect to ftp"),
        pytest.param(Redirect("file:///etc/passwd"), "No connection adapters", True, id="redirect to a file"),
        pytest.param(Redirect("http://[::1/x"), "Invalid", True, id="redirect to nonsense"),
    ],
)
def test_failures_have_names(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, fault: Fault, says: str, final: bool
) -> None:
    """R19, R27: what the network does, in words; only what no retry can mend is final."""
    monkeypatch.setattr(http, "SILENCE_S", 0.3)
    server.always(FILE, fault)
    error = failure(server.url(FILE))
    assert says in str(error)
    assert isinstance(error, http.FatalTransfer) == final


@pytest.mark.parametrize("fault", [NoLength(), NoLengthTruncated(1000)], ids=["whole", "truncated"])
def test_an_end_without_a_length_is_an_end(server: FileServer, fault: Fault) -> None:
    """R19: HTTP cannot tell these two apart; the size and the digest do."""
    server.script(FILE, fault)
    answer, body = read(server.url(FILE))
    assert "content-length" not in answer.headers
    assert body == (DATA if isinstance(fault, NoLength) else DATA[:1000])


def test_a_closed_port(server: FileServer) -> None:
    """R19: the system's own words, and nothing of the library's insides."""
    server.close()
    message = str(failure(server.url(FILE)))
    assert "refused" in message
    assert "HTTPConnection" not in message


def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """R19: the usual sign of a network that is down."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure("https://models.invalid/m")
    assert "the host's name is not known (is the network up?)" in str(error)
    assert not isinstance(error, http.FatalTransfer)


def test_a_proxy_that_is_down(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """R19: the proxy is to blame, and the variable that names it is named."""
    server.close()
    monkeypatch.setenv("HTTPS_PROXY", server.url(""))
    error = failure("https://models.example/m")
    assert "the proxy does not answer" in str(error)
    assert "HTTPS_PROXY" in error.fix


@needs_openssl
def test_a_certificate_that_nobody_vouches_for(secure: FileServer) -> None:
    """R29: refused at once, before a request is sent, with the remedy."""
    error = failure(secure.url(FILE))
    assert isinstance(error, http.FatalTransfer)
    assert "the certificate is not trusted" in str(error)
    assert "REQUESTS_CA_BUNDLE=" in error.fix
    assert secure.requests == []


@needs_openssl
def test_a_certificate_for_another_host(
    secure: FileServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R29: trusted, and still not for this name."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    assert read(secure.url(FILE))[1] == DATA
    error = failure(secure.url(FILE, host="127.1"))  # the same address, spelled as nobody certified it
    assert isinstance(error, http.FatalTransfer)
    assert "the certificate is not trusted" in str(error)
    assert len(secure.requests) == 1


@needs_openssl
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_tls_that_breaks_is_no_certificate_problem(
    secure: FileServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, reset: bool
) -> None:
    """R19: a connection that ends in the middle is worth another try, encrypted or not."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    secure.script(FILE, Drop(1000, reset=reset))
    error = failure(secure.url(FILE))
    assert not isinstance(error, http.FatalTransfer)
    assert "certificate" not in str(error)


def test_a_handshake_that_fails_is_no_certificate_problem(server: FileServer) -> None:
    """R19: a server that speaks no TLS, or a load balancer that drops the handshake."""
    error = failure(server.url(FILE).replace("http://", "https://"))
    assert not isinstance(error, http.FatalTransfer)
    assert "certificate" not in str(error)
    assert "SSL" in str(error).upper()


def test_a_handshake_that_is_cut_short() -> None:
    """R19: the peer closes before a certificate was shown."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = failure(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert not isinstance(error, http.FatalTransfer)
    assert "certificate" not in str(error)


def test_redirects_are_asked_about_before_they_are_followed(server: FileServer) -> None:
    """R22, R29: with the absolute address, and nothing is sent where the answer is a problem."""
    server.script(FILE, Redirect("/two"))
    server.always("/two", Redirect("/three"))
    asked: list[str] = []

    def problem(url: str) -> str:
        asked.append(url)
        return "a place nobody goes" if url.endswith("three") else ""

    with (
        pytest.raises(http.FatalTransfer, match="a redirect to a place nobody goes"),
        http.get(http.new_session(), server.url(FILE), {}, problem),
    ):
        pass
    assert asked == [server.url("/two"), server.url("/three")]
    assert not server.asked("/three")


def test_ssl_errors_are_named_by_this_ssl_module() -> None:
    """The names that http.py looks for are those of this Python."""
    assert issubclass(ssl.SSLCertVerificationError, ssl.SSLError)
