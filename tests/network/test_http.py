"""HTTP against real sockets: every failure is a TransferError with a clear text."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tasks.errors import TransferError
from tasks.network import access, http

from tests.fakes.faults import Reply
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
DATA_AND_MORE = 400_000

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1, signed by no trusted CA."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[FileServer]:
    with FileServer(tls=certificate) as server:
        server.files[FILE] = DATA
        yield server


def read(
    url: str, headers: Mapping[str, str] | None = None, session: Any = None, token: str = ""
) -> tuple[http.StreamedResponse, bytes]:
    """Ask once and read the whole body."""
    headers = headers or {"Accept-Encoding": "identity"}
    with http.stream_get(session or http.new_session(), url, headers, token=token) as answer:
        return answer, rest(answer)


def rest(answer: http.StreamedResponse, at_once: int = 64 * 1024) -> bytes:
    """A body to its end, buffer by buffer."""
    buffer, out = memoryview(bytearray(at_once)), bytearray()
    while got := answer.body.read_into(buffer):
        out += buffer[:got]
    return bytes(out)


def failure(url: str) -> TransferError:
    with pytest.raises(TransferError) as caught:
        read(url)
    return caught.value


def test_an_answer(server: FileServer) -> None:
    """R22: status and lower-case headers before the body."""
    with http.stream_get(http.new_session(), server.url(FILE), {"Range": "bytes=5-"}) as answer:
        assert (answer.status, answer.url) == (206, server.url(FILE))
        assert answer.headers["content-range"] == f"bytes 5-{len(DATA) - 1}/{len(DATA)}"
        assert rest(answer) == DATA[5:]


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


@pytest.mark.parametrize(
    "at_once", [1000, 7_919, DATA_AND_MORE], ids=["small", "odd", "larger than the body"]
)
def test_a_buffer_is_filled_but_for_the_last(server: FileServer, at_once: int) -> None:
    """R18: few calls and no partly filled buffers, whatever pieces the network makes."""
    server.set_rate(FILE, 3_000_000)
    buffer, sizes = memoryview(bytearray(at_once)), []
    with http.stream_get(http.new_session(), server.url(FILE), {}) as answer:
        while got := answer.body.read_into(buffer):
            sizes.append(got)
        assert answer.body.read_into(buffer) == 0
    assert sum(sizes) == len(DATA)
    assert set(sizes[:-1]) <= {at_once}


def test_more_than_was_expected_can_be_asked_for(server: FileServer) -> None:
    """R22: after the bytes that are wanted, whether another one comes."""
    server.script(FILE, NoLength(), NoLength())
    for extra in (0, 1):
        with http.stream_get(http.new_session(), server.url(FILE), {}) as answer:
            assert answer.body.read_into(memoryview(bytearray(len(DATA) - extra))) == len(DATA) - extra
            assert answer.body.has_more() == bool(extra)


def test_one_connection_for_one_piece_after_the_other(server: FileServer) -> None:
    """R18: a body that was read to its end gives its connection back."""
    session, out = http.new_session(), b""
    for first in range(0, len(DATA), 100_000):
        headers = {"Range": f"bytes={first}-{first + 99_999}"}
        with http.stream_get(session, server.url(FILE), headers) as answer:
            buffer = memoryview(bytearray(100_000))
            assert answer.body.read_into(buffer) == 100_000
            out += buffer
    assert out == DATA
    assert len({request.peer for request in server.asked(FILE)}) == 1


@pytest.mark.parametrize("fault", [None, Status(503)], ids=["half a body", "an error page"])
def test_a_body_that_was_not_read_is_never_taken_for_the_next(
    server: FileServer, fault: Fault | None
) -> None:
    """R20: its connection is closed; else its rest would be read as the next answer."""
    if fault:
        server.script(FILE, fault)
    session = http.new_session()
    with http.stream_get(session, server.url(FILE), {}) as answer:
        if not fault:
            answer.body.read_into(memoryview(bytearray(1000)))
    assert read(server.url(FILE), session=session)[1] == DATA
    assert len({request.peer for request in server.asked(FILE)}) == 2


def sent_tokens(server: FileServer, path: str = FILE) -> list[str | None]:
    return [request.headers["Authorization"] for request in server.asked(path)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another host"])
def test_a_token_stays_at_its_host(server: FileServer, host: str) -> None:
    """R29: the origin may see it, where it redirects to may not (aria2#1176)."""
    with FileServer() as other:
        other.files["/file"] = DATA
        server.script(FILE, Redirect(other.url("/file", host=host)))
        assert read(server.url(FILE), token="hf_secret")[1] == DATA
        assert sent_tokens(other, "/file") == [None]
    assert sent_tokens(server) == ["Bearer hf_secret"]


def test_a_token_does_not_come_back(server: FileServer) -> None:
    """R29: origin, elsewhere, origin again: a redirect of others may not have it sent."""
    with FileServer() as other:
        other.always("/hop", Redirect(server.url(FILE)))
        server.script(FILE, Redirect(other.url("/hop")))
        assert read(server.url(FILE), token="hf_secret")[1] == DATA
    assert sent_tokens(server) == ["Bearer hf_secret", None]


def test_a_token_goes_along_within_its_host(server: FileServer) -> None:
    """R29: the Hub redirects small files to another path of its own."""
    server.files["/api/resolve-cache"] = DATA
    server.script(FILE, Redirect("/api/resolve-cache"))
    assert read(server.url(FILE), token="hf_secret")[1] == DATA
    assert sent_tokens(server, "/api/resolve-cache") == ["Bearer hf_secret"]


def test_a_netrc_does_not_stand_in_for_the_token(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R29: requests prefers a .netrc to a header of this name."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password pw\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    read(server.url(FILE), token="hf_secret")
    read(server.url(FILE))
    ours, users = sent_tokens(server)
    assert ours == "Bearer hf_secret"
    assert str(users).startswith("Basic ")  # without a token of ours, the user's own file counts


def test_a_netrc_and_redirects(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F5: on a redirect to the same host requests would replace the token; nothing is sent if so wanted."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password pw\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.files["/b"] = DATA
    server.always("/a", Redirect("/b"))
    read(server.url("/a"), token="hf_secret")
    assert sent_tokens(server, "/b") == ["Bearer hf_secret"]
    with http.stream_get(http.new_session(), server.url("/a"), {}, use_netrc=False) as answer:
        assert (answer.sent, answer.status) == ("", 200)
    with http.stream_get(http.new_session(), server.url("/a"), {}) as answer:
        assert answer.sent == access.NETRC
    with http.stream_get(http.new_session(), server.url("/b"), {}, token="hf_secret") as answer:
        assert answer.sent == access.TOKEN
    assert [str(sent)[:5] for sent in sent_tokens(server, "/b")] == ["Beare", "None", "Basic", "Beare"]


def test_no_token_is_sent_where_none_is_given(server: FileServer) -> None:
    """R29: nor one of an earlier request over the same session."""
    session = http.new_session()
    read(server.url(FILE), session=session, token="hf_secret")
    read(server.url(FILE), session=session)
    assert sent_tokens(server) == ["Bearer hf_secret", None]


def test_headers_of_the_hubs_redirect_are_kept(server: FileServer) -> None:
    """R21: the digest is in the headers of the redirect, not of its target."""
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
        pytest.param(Drop(1000, reset=True), "Connection reset by peer", False, id="reset"),
        pytest.param(Stall(1000, 60), "no data for 0 s", False, id="silence in the body"),
        pytest.param(Hangup(60), "no data for 0 s", False, id="silence before the answer"),
        pytest.param(Redirect(FILE), "Exceeded 10 redirects", True, id="redirects in a circle"),
        pytest.param(Redirect("ftp://127.0.0.1/x"), "No connection adapters", True, id="redirect to ftp"),
        pytest.param(Redirect("file:///etc/passwd"), "No connection adapters", True, id="redirect to a file"),
        pytest.param(Redirect("http://[::1/x"), "Invalid", True, id="redirect to nonsense"),
    ],
)
def test_failures_have_names(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, fault: Fault, says: str, final: bool
) -> None:
    """R19, R27: what the network does, in words; only what no retry can mend is final."""
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)
    server.always(FILE, fault)
    error = failure(server.url(FILE))
    assert says in str(error)
    assert isinstance(error, http.PermanentTransferError) == final


@pytest.mark.parametrize("fault", [Drop(1000), WrongLength(9)], ids=["dropped", "length too large"])
def test_an_end_before_the_length_is_an_end(server: FileServer, fault: Fault) -> None:
    """R19: bytes before an early end are returned, without an exception."""
    server.script(FILE, fault)
    assert read(server.url(FILE))[1] == (DATA[:1000] if isinstance(fault, Drop) else DATA)


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
    assert "cannot resolve models.invalid" in str(error)
    assert "fix: check the network or the proxy: `doit doctor`" in str(error)
    assert not isinstance(error, http.PermanentTransferError)


def test_a_proxy_that_is_down(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """R19: the proxy is to blame, and the variable that names it is named."""
    server.close()
    monkeypatch.setenv("HTTPS_PROXY", server.url(""))
    error = failure("https://models.example/m")
    assert "the proxy does not answer" in str(error)
    assert "HTTPS_PROXY" in error.fix


@pytest.mark.parametrize(
    "proxy", ["http://user:secret@", "http://", "http://[::1", "http://h:99999", "http://h:x"]
)
def test_a_proxy_that_is_no_address(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Security 29: the error does not show the password, and there is no retry."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    error = failure("https://models.example/m")
    assert isinstance(error, http.PermanentTransferError)
    assert "secret" not in str(error)


@needs_openssl
def test_a_certificate_that_nobody_vouches_for(secure: FileServer) -> None:
    """R29: refused at once, before a request is sent, with the remedy."""
    error = failure(secure.url(FILE))
    assert isinstance(error, http.PermanentTransferError)
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
    assert isinstance(error, http.PermanentTransferError)
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
    try:
        assert len(read(secure.url(FILE))[1]) <= 1000
    except TransferError as error:
        assert not isinstance(error, http.PermanentTransferError)  # noqa: PT017
        assert "certificate" not in str(error)  # noqa: PT017


def test_a_handshake_that_fails_is_no_certificate_problem(server: FileServer) -> None:
    """R19: a server that speaks no TLS, or a load balancer that drops the handshake."""
    error = failure(server.url(FILE).replace("http://", "https://"))
    assert not isinstance(error, http.PermanentTransferError)
    assert "certificate" not in str(error)
    assert "no TLS answer" in str(error)


def test_a_handshake_that_is_cut_short() -> None:
    """R19: the peer closes before a certificate was shown."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = failure(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert not isinstance(error, http.PermanentTransferError)
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
        pytest.raises(http.PermanentTransferError, match="a redirect to a place nobody goes"),
        http.stream_get(http.new_session(), server.url(FILE), {}, problem),
    ):
        pass
    assert asked == [server.url("/two"), server.url("/three")]
    assert not server.asked("/three")


def test_head_asks_for_headers_alone(server: FileServer) -> None:
    """Issue 5.8: through redirects, with lower-case names and no body."""
    server.always("/old", Redirect(FILE))
    said = http.request(http.new_session(), "HEAD", server.url("/old"), {}, hops=2)
    assert (said.status, said.headers["content-length"], said.text) == (200, str(len(DATA)), "")
    assert [(r.method, r.sent) for r in server.requests] == [("HEAD", 0), ("HEAD", 0)]


def test_a_short_question_has_its_own_limit(server: FileServer) -> None:
    """Issue 5.8, R27: it does not wait for as long as a download does."""
    server.always(FILE, Hangup(60))
    with pytest.raises(TransferError, match=r"no complete answer within 0\.6 s"):
        http.request(http.new_session(), "HEAD", server.url(FILE), {}, limit_s=0.6)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("hops", [0, 2])
def test_the_body_of_a_redirect_is_not_read(server: FileServer, status: int, hops: int) -> None:
    """Security 4: requests reads it to its end, also where it follows none."""
    big = bytes(16 * 1024**2)
    server.guard("/old", lambda _: Reply(status, {"Location": FILE, "Content-Length": str(len(big))}, big))
    session = http.new_session()
    said = http.request(session, "GET", server.url("/old"), {}, hops=hops)
    assert (said.status, len(said.text) > 0) == ((200, True) if hops else (status, False))
    with http.stream_get(session, server.url("/old"), {}) as answer:
        assert rest(answer) == DATA
    assert server.bytes_sent("/old") < len(big)


def test_a_redirect_without_a_body_keeps_its_connection(server: FileServer) -> None:
    """Security 4: closing what is not read costs no second handshake where there was nothing to read."""
    server.always("/old", Redirect(FILE))
    session = http.new_session()
    for method in ("HEAD", "HEAD"):
        http.request(session, method, server.url("/old"), {}, hops=2)
    assert len({request.peer for request in server.requests}) == 1


def test_an_answer_that_trickles(server: FileServer) -> None:
    """Security 16: one deadline for all of it; each byte would start a timeout again."""
    server.guard(FILE, lambda _: Reply(200, {"Content-Length": "100000"}, bytes(100_000), rate=50))
    begin = time.monotonic()
    with pytest.raises(TransferError, match=r"no complete answer within 0\.3 s"):
        http.request(http.new_session(), "GET", server.url(FILE), {}, limit_s=0.3)
    assert time.monotonic() - begin < 300  # the whole takes 2000


def test_an_answer_that_is_too_long(server: FileServer) -> None:
    """Security 16: refused, not cut."""
    server.files[FILE] = bytes(http.MAX_TEXT + 1)
    with pytest.raises(http.PermanentTransferError, match="the answer is longer than 4194304 bytes"):
        http.request(http.new_session(), "GET", server.url(FILE), {})


def test_ssl_errors_are_named_by_this_ssl_module() -> None:
    """The names that http.py looks for are those of this Python."""
    assert issubclass(ssl.SSLCertVerificationError, ssl.SSLError)
