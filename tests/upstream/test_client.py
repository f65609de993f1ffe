"""Asking publishers what they state: the whole fake Hub, a fake GitHub, plain servers (issue 5.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from tasks.catalogue.file_specs import HubFile
from tasks.errors import TransferError
from tasks.transfer.download import check_endpoint
from tasks.upstream.client import UpstreamClient
from tasks.upstream.metadata import RemoteFile

from tests.fakes.faults import Redirect, Status
from tests.fakes.github import GitHub
from tests.fakes.hub_site import HubSite
from tests.fakes.server import FileServer, Gzip, LoginPage
from tests.support.ports import closed_port

DATA = hashlib.shake_128(b"publisher").digest(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "m.gguf"
URL = HubFile("o/r", "main", NAME).url
TOKEN = "hf_aVerySecretTokenOfOurs"
BY_HUB = "the Hub (X-Linked-Etag)"
BY_GITHUB = "GitHub (digest of the asset)"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubSite]:
    with HubSite() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.endpoint)
        yield site


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as site:
        yield site


class Asking(UpstreamClient):
    """Publishers whose pauses take no time, and are noted."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        super().__init__(self.pauses.append, lambda: 0.0)


def refused(url: str, version: str = "") -> TransferError:
    with pytest.raises(TransferError) as caught:
        Asking().fetch_metadata(url, version)
    return caught.value


def test_a_large_file_of_the_hub(hub: HubSite) -> None:
    """Issue 5.1: commit, digest and size by one question; not a byte of the file."""
    commit = hub.repo("o/r").push({NAME: DATA})
    pinned = HubFile("o/r", commit, NAME).url
    assert Asking().fetch_metadata(URL) == RemoteFile(pinned, SHA256, len(DATA), commit, by=BY_HUB)
    assert [request.method for request in hub.origin.requests] == ["HEAD"]
    assert hub.cdn.requests == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_small_file_of_the_hub(hub: HubSite, elsewhere: bool) -> None:
    """Issue 5.1: git's digest is none; its size is that of the file, not of the answer that leads to it."""
    hub.resolve_cache = elsewhere
    commit = hub.repo("o/r").push({"README.md": b"# Hello\n"})
    found = Asking().fetch_metadata(HubFile("o/r", "main", "README.md").url)
    assert found == RemoteFile(HubFile("o/r", commit, "README.md").url, None, 8, commit, by=BY_HUB)


def test_a_repository_that_has_moved(hub: HubSite) -> None:
    """Issue 5.1: the old name leads to the new one; the token goes along, for it is the same host."""
    repo = hub.repo("o/r", private=True)
    commit = repo.push({NAME: DATA})
    hub.rename("o/r", "new/r")
    hub.allow(TOKEN, repo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        found = Asking().fetch_metadata(URL)
    assert (found.sha256, found.commit) == (SHA256, commit)
    assert [request.status for request in hub.origin.requests] == [307, 302]
    assert {request.headers["Authorization"] for request in hub.origin.requests} == {f"Bearer {TOKEN}"}


def test_a_gated_repository(hub: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5.1: 401 and 403 in words, with the remedy; the token is in no message."""
    repo = hub.repo("o/r", gated="manual")
    repo.push({NAME: DATA})
    hub.allow(TOKEN)
    for token in ("", TOKEN):
        monkeypatch.setenv("HF_TOKEN", token)
        error = refused(URL)
        assert error.what == "o/r is gated: accept its licence on its page"
        assert error.fix == "set HF_TOKEN to a token that may read it"
    assert [request.status for request in hub.origin.requests] == [401, 403]
    hub.allow(TOKEN, repo)
    assert Asking().fetch_metadata(URL).sha256 == SHA256


@pytest.mark.parametrize(
    ("file", "what", "fix"),
    [
        pytest.param(
            HubFile("o/none", "main", NAME),
            "there is no repository o/none on the Hub, or it is private",
            "set HF_TOKEN to a token that may read it",
            id="repository",
        ),
        pytest.param(HubFile("o/r", "v9", NAME), "o/r has no revision v9", "", id="revision"),
        pytest.param(HubFile("o/r", "main", "x/n.gguf"), "o/r has no file x/n.gguf at main", "", id="file"),
    ],
)
def test_what_is_not_there(hub: HubSite, file: HubFile, what: str, fix: str) -> None:
    """Issue 5.1: which of the three is missing; asked once."""
    hub.repo("o/r").push({NAME: DATA})
    error = refused(file.url)
    assert error.what == what
    assert fix in error.fix
    assert len(hub.origin.requests) == 1


def test_a_token_that_nobody_knows(hub: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5.1: it is not the repository that is missing."""
    hub.repo("o/r").push({NAME: DATA})
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    error = refused(URL)
    assert error.what == "the Hub does not accept the token"
    assert "HF_TOKEN" in error.fix
    assert "hf_wrong" not in str(error)


def test_the_hubs_limit(hub: HubSite) -> None:
    """Issue 5.1: 429 is waited for as long as its RateLimit says."""
    hub.repo("o/r").push({NAME: DATA})
    hub.limit("resolvers", 1, window_s=2)
    Asking().fetch_metadata(URL)
    publishers = Asking()
    with pytest.raises(TransferError, match="HTTP 429"):
        publishers.fetch_metadata(URL)
    assert len(publishers.pauses) == 2
    assert all(1 <= pause <= 2 for pause in publishers.pauses)


def test_the_token_goes_nowhere_else(hub: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5.1: not to a plain server, and not along a redirect."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with FileServer() as server:
        server.files["/m.gguf"] = DATA
        assert Asking().fetch_metadata(server.url("/m.gguf")).size == len(DATA)
        hub.origin.always("/moved", Redirect(server.url("/m.gguf", "localhost")))
        Asking().fetch_metadata(f"{hub.endpoint}/moved")
        assert {request.headers["Authorization"] for request in server.requests} == {None}


def test_a_redirect_of_the_hub_to_another_host(hub: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5.1: what it states itself counts; the other host is not even asked."""
    hub.repo("o/r").push({NAME: DATA})
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.allow(TOKEN)
    Asking().fetch_metadata(URL)
    assert hub.cdn.requests == []


@pytest.mark.parametrize("digests", [True, False])
def test_a_release(github: GitHub, digests: bool) -> None:
    """Issue 5.1: the asset's digest; an older one has none, but a size."""
    github.repo("o/r").release("v0.10.5", {"e": DATA, "other": b"x"}, digests=digests)
    url = github.url("o/r", "v0.10.5", "e")
    sha256 = SHA256 if digests else None
    assert Asking().fetch_metadata(url) == RemoteFile(url, sha256, len(DATA), None, "0.10.5", BY_GITHUB)
    assert github.cdn.requests == []


def test_a_release_is_asked_for_once(github: GitHub) -> None:
    """Issue 5.1: two files of one release are one question of sixty."""
    github.repo("o/r").release("1", {"a": DATA, "b": b"x"})
    publishers = Asking()
    assert publishers.fetch_metadata(github.url("o/r", "1", "a")).size == len(DATA)
    assert publishers.fetch_metadata(github.url("o/r", "1", "b")).size == 1
    assert len(github.origin.requests) == 1


def test_the_latest_release(github: GitHub) -> None:
    """R16: the newest that is no prerelease, whose file is named after it."""
    project = github.repo("o/r")
    for tag in ("0.9.3", "0.10.5"):
        project.release(tag, {f"e-{tag}": DATA})
    project.release("0.11.0", {"e-0.11.0": b"x"}, prerelease=True)
    url = f"{github.endpoint}/o/r/releases/download/{{version}}/e-{{version}}"
    found = Asking().fetch_metadata(url, "latest")
    assert (found.version, found.sha256) == ("0.10.5", SHA256)
    assert found.url == github.url("o/r", "0.10.5", "e-0.10.5")


def test_a_moved_project(github: GitHub) -> None:
    """Issue 5.1: GitHub's API leads from the old name to a number."""
    github.repo("o/r").release("1", {"a": DATA})
    old = github.url("o/r", "1", "a")
    github.rename("o/r", "new/r")
    assert Asking().fetch_metadata(old).sha256 == SHA256


def test_a_tag_with_a_slash(github: GitHub) -> None:
    """Issue 5.1: it is one word of the API's path."""
    github.repo("o/r").release("b/1", {"a": DATA})
    url = github.url("o/r", "b%2F1", "a").replace("%25", "%")
    assert Asking().fetch_metadata(url).sha256 == SHA256


def test_githubs_limit(github: GitHub) -> None:
    """Issue 5.1: 403 of the limit names the token that lifts it; it is not waited for, that takes an hour."""
    github.repo("o/r").release("1", {"a": DATA})
    github.limit(0)
    error = refused(github.url("o/r", "1", "a"))
    assert "HTTP 403" in error.what
    assert "set GITHUB_TOKEN" in error.fix
    assert len(github.origin.requests) == 1


def test_a_file_that_a_release_lacks(github: GitHub) -> None:
    """Issue 5.1: the release is there, the file is not."""
    github.repo("o/r").release("1", {"a": DATA})
    assert "has no file b" in refused(github.url("o/r", "1", "b")).what


def test_releases_of_another_program() -> None:
    """Issue 5.1: Forgejo has such addresses, too, and another API: its file is asked for itself."""
    with FileServer() as server:
        server.files["/o/r/releases/download/1/a"] = DATA
        assert Asking().fetch_metadata(server.url("/o/r/releases/download/1/a")) == RemoteFile(
            server.url("/o/r/releases/download/1/a"), None, len(DATA)
        )


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        pytest.param(None, len(DATA), id="a length"),
        pytest.param(Status(405), None, id="it knows no HEAD"),
        pytest.param(Status(403), None, id="it refuses HEAD, as signed addresses do"),
        pytest.param(LoginPage(), None, id="a login page"),
        pytest.param(Gzip(), None, id="another encoding"),
    ],
)
def test_a_plain_server(fault: Status | LoginPage | Gzip | None, size: int | None) -> None:
    """Issue 5.1: no digest, and a length where it is that of the file."""
    with FileServer() as server:
        server.files["/m.gguf"] = DATA
        if fault:
            server.always("/m.gguf", fault)
        url = server.url("/m.gguf")
        assert Asking().fetch_metadata(url) == RemoteFile(url, None, size)


def test_a_plain_server_without_the_file() -> None:
    """Issue 5.1: 404 is said as what it is, not as a lack of digests."""
    with FileServer() as server:
        error = refused(server.url("/gone.gguf"))
    assert "HTTP 404" in error.what
    assert "misspelt" in error.what


def test_nobody_answers() -> None:
    """Issue 5.1: tried three times, and the next file of that host is not waited for again."""
    publishers = Asking()
    with closed_port() as port:
        for name in ("a.gguf", "b.gguf"):
            with pytest.raises(TransferError, match=r"127\.0\.0\.1: .* \(tried 3 times\)"):
                publishers.fetch_metadata(f"http://127.0.0.1:{port}/{name}")
    assert len(publishers.pauses) == 2


@pytest.mark.parametrize("variable", ["LLAMAFILE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Issue 5.4: nobody is asked, and the variable is named; not tried three times."""
    monkeypatch.setenv(variable, "1")
    with FileServer() as server:
        publishers = Asking()
        with pytest.raises(TransferError, match=f"{variable} forbids the network"):
            publishers.fetch_metadata(server.url("/m.gguf"))
        assert (server.requests, publishers.pauses) == ([], [])


@pytest.mark.parametrize(
    ("endpoint", "pinned", "says"),
    [
        ("https://hub.example", False, ""),
        ("http://127.0.0.1:1", False, ""),
        ("http://hub.example", True, ""),  # a digest that is known finds a forged answer
        ("http://hub.example", False, "plain http is allowed only with a sha256"),
        ("http://127.0.0.1.example", False, "plain http is allowed only with a sha256"),
        ("hf-mirror.com", True, "expected https://HOST, got hf-mirror.com"),
        ("hf-mirror.com:8443/x", True, "expected https://HOST, got hf-mirror.com:8443/x"),
        ('"https://hub.example"', True, 'got "https://hub.example"; remove the quotes'),
        ("'http://127.0.0.1:1'", True, "got 'http://127.0.0.1:1'; remove the quotes"),
        ("https://u:p@hub.example", True, "no user or password"),
        ("https://[::1", True, "is not a URL"),
    ],
)
def test_an_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str, pinned: bool, says: str) -> None:
    """Security 10: what it states could be forged on the way; faults F19: it needs its scheme."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    if not says:
        check_endpoint(pinned=pinned)
        return
    with pytest.raises(TransferError, match=f"HF_ENDPOINT: .*{says}") as caught:
        check_endpoint(pinned=pinned)
    assert caught.value.fix == "set HF_ENDPOINT=https://HOST, or unset it"
