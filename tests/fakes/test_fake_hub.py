"""The fake Hub is a Hub to huggingface_hub, the Hub's own client: else the tests that use it prove nothing.

The client is given its endpoint and its token (or the wish for none) at each place: what it reads from its
environment, it has read before a test could change it.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes.hub import blob_path
from tests.fakes.hub_repo import Repo
from tests.fakes.hub_site import HubSite
from tests.fakes.server import Drop, Status
from tests.fakes.tls import self_signed

hf = pytest.importorskip("huggingface_hub")
from huggingface_hub import errors  # noqa: E402  # it may be missing

pytestmark = pytest.mark.once
DATA = hashlib.shake_128(b"hub").digest(300_000)
OTHER = DATA[::-1]
CARD = b"---\nlicense: apache-2.0\n---\n# M\n"
SHA256 = hashlib.sha256(DATA).hexdigest()
FILES = {
    "README.md": CARD,
    "model-Q4.gguf": DATA,
    "split/m\u00f6del 100%#1-00001-of-00002.gguf": DATA[:1000],
    "split/m\u00f6del 100%#1-00002-of-00002.gguf": OTHER[:1000],
    "split/deep/config.json": b"{}",
}
TOKEN = "hf_ofOurs"


@pytest.fixture
def site() -> Iterator[HubSite]:
    with HubSite() as site:
        yield site


@pytest.fixture
def repo(site: HubSite) -> Repo:
    repo = site.repo("owner/model")
    repo.push(FILES)
    return repo


def client(site: HubSite, token: str | bool = False) -> Any:
    return hf.HfApi(endpoint=site.endpoint, token=token)


def metadata(site: HubSite, path: str, revision: str = "main", token: str | bool = False) -> Any:
    """What the client learns of a file without fetching it."""
    url = site.url("owner/model", path, revision)
    return hf.get_hf_file_metadata(url, token=token, endpoint=site.endpoint)


def fetched(site: HubSite, tmp_path: Path, path: str, token: str | bool = False, **more: str) -> bytes:
    """The bytes that the client downloads."""
    found = client(site, token).hf_hub_download("owner/model", path, cache_dir=tmp_path, **more)
    return Path(found).read_bytes()


# Files


def test_a_large_file_is_elsewhere(site: HubSite, repo: Repo) -> None:
    """Issue 5: commit, digest and size are on the 302; the link is signed, and on another host."""
    known = metadata(site, "model-Q4.gguf")
    assert (known.commit_hash, known.etag, known.size) == (repo.refs["main"], SHA256, len(DATA))
    assert known.location.startswith(f"http://localhost:{site.cdn.port}/")
    assert "Signature=" in known.location
    head = requests.head(site.url("owner/model", "model-Q4.gguf"), timeout=5)
    assert head.status_code == 302
    assert head.headers["Content-Length"] != str(len(DATA))
    assert site.cdn.requests == []


def test_a_small_file_is_answered_at_once(site: HubSite, repo: Repo) -> None:
    """Issue 5: 200 with git's own digest of it, as `git hash-object` computes it."""
    known = metadata(site, "split/deep/config.json")
    assert (known.commit_hash, known.size) == (repo.refs["main"], 2)
    assert known.etag == "9e26dfeeb6e641a33dae4961196235bdb965b21b"
    assert known.location == site.url("owner/model", "split/deep/config.json")


def test_a_small_file_may_be_at_a_relative_address(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: as the Hub's resolve cache; the client follows it, since it stays on the same host."""
    site.resolve_cache = True
    assert metadata(site, "README.md").location.startswith(f"{site.endpoint}/api/resolve-cache/models/owner/")
    assert fetched(site, tmp_path, "README.md") == CARD
    assert metadata(site, "model-Q4.gguf").etag == SHA256


@pytest.mark.parametrize("path", FILES)
def test_files_are_downloaded(site: HubSite, repo: Repo, tmp_path: Path, path: str) -> None:
    """Issue 5: also those in folders, and with letters that a URL must encode."""
    assert fetched(site, tmp_path, path) == FILES[path]
    assert fetched(site, tmp_path, path, revision=repo.refs["main"]) == FILES[path]


def test_the_token_stays_at_the_origin(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: the CDN is another host."""
    site.allow(TOKEN)
    assert fetched(site, tmp_path, "model-Q4.gguf", TOKEN) == DATA
    assert {r.headers["Authorization"] for r in site.origin.requests} == {f"Bearer {TOKEN}"}
    assert [r.headers["Authorization"] for r in site.cdn.requests] == [None]


def test_links_expire(site: HubSite, repo: Repo) -> None:
    """Issue 5: on command, with time, and for any query but the signed one."""
    link = metadata(site, "model-Q4.gguf").location
    assert requests.get(link, timeout=5).content == DATA
    assert requests.get(f"{link}x", timeout=5).status_code == 403
    assert requests.get(link.replace(SHA256, hashlib.sha256(DATA[:1000]).hexdigest())).status_code == 403
    site.links.expire()
    refused = requests.get(link, timeout=5)
    assert (refused.status_code, "AccessDenied" in refused.text) == (403, True)
    site.links.lifetime = 0.05
    link = metadata(site, "model-Q4.gguf").location
    time.sleep(0.1)
    assert requests.get(link, timeout=5).status_code == 403


def test_faults_are_scripted_as_on_any_server(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: after a body that breaks off, the client asks the CDN again, over the link that it has."""
    site.cdn.script(blob_path(SHA256), Drop(100_000))
    assert fetched(site, tmp_path, "model-Q4.gguf") == DATA
    assert [r.sent for r in site.cdn.requests] == [100_000, len(DATA)]
    assert len({r.query for r in site.cdn.requests}) == 1
    site.origin.script("/api/models/owner/model", Status(500))
    with pytest.raises(errors.HfHubHTTPError, match="500"):
        client(site).model_info("owner/model")


# Revisions


def test_a_push_moves_main(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5.1: the old commit stays what it was; a tag and a branch are names of commits."""
    first = repo.refs["main"]
    repo.tag("v1")
    second = repo.push({"model-Q4.gguf": OTHER, "README.md": None})
    draft = repo.push({"draft.gguf": b"draft"}, "refs/pr/1")
    assert len({first, second, draft}) == 3
    known = {name: metadata(site, "model-Q4.gguf", name) for name in (first, "v1", "main", "refs/pr/1")}
    assert [k.commit_hash for k in known.values()] == [first, first, second, draft]
    assert known[first].etag == known["v1"].etag != known["main"].etag == known["refs/pr/1"].etag
    assert fetched(site, tmp_path, "model-Q4.gguf", revision="v1") == DATA
    assert fetched(site, tmp_path, "draft.gguf", revision="refs/pr/1") == b"draft"
    api = client(site)
    assert [api.model_info("owner/model", revision=r).sha for r in (None, "v1", "refs/pr/1")] == [
        second,
        first,
        draft,
    ]
    assert set(api.list_repo_files("owner/model", revision="v1")) == set(FILES)
    assert "README.md" not in api.list_repo_files("owner/model")


def test_a_renamed_repository_redirects(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: 307 to a relative address with the query kept, for files and for the API."""
    site.rename("owner/model", "new.owner/model_2")
    answer = requests.get(
        f"{site.endpoint}/api/models/owner/model?blobs=true", allow_redirects=False, timeout=5
    )
    assert (answer.status_code, answer.headers["Location"]) == (
        307,
        "/api/models/new.owner/model_2?blobs=true",
    )
    assert metadata(site, "README.md").location == site.url("new.owner/model_2", "README.md")
    assert metadata(site, "model-Q4.gguf").etag == SHA256
    assert client(site).model_info("owner/model").id == "new.owner/model_2"
    assert set(client(site).list_repo_files("owner/model")) == set(FILES)
    path = "split/m\u00f6del 100%#1-00001-of-00002.gguf"
    assert fetched(site, tmp_path, path) == FILES[path]


# What the API knows


def test_model_info(site: HubSite, repo: Repo) -> None:
    """Issue 5.1: licence, commit, and with files_metadata size and digest of every file."""
    info = client(site).model_info("owner/model", files_metadata=True)
    assert (info.id, info.author, info.sha) == ("owner/model", "owner", repo.refs["main"])
    assert (info.private, info.gated, info.disabled) == (False, False, False)
    assert "license:apache-2.0" in info.tags
    assert info.card_data.license == "apache-2.0"
    files = {s.rfilename: s for s in info.siblings}
    assert set(files) == set(FILES)
    large, small = files["model-Q4.gguf"], files["README.md"]
    assert (large.size, large.lfs.sha256, large.lfs.size) == (len(DATA), SHA256, len(DATA))
    assert (small.size, small.lfs) == (len(CARD), None)
    plain = client(site).model_info("owner/model").siblings[0]
    assert (plain.size, plain.blob_id, plain.lfs) == (None, None, None)
    few = client(site).model_info("owner/model", expand=["gated", "sha"])
    assert (few.id, few.gated, few.sha, few.tags, few.siblings) == (
        "owner/model",
        False,
        info.sha,
        None,
        None,
    )


def test_a_model_without_a_licence(site: HubSite) -> None:
    """Issue 5.1: neither a tag nor a card speaks of it."""
    site.repo("owner/model", licence=None).push({"m.gguf": DATA})
    info = client(site).model_info("owner/model")
    assert (info.card_data, info.tags) == (None, ["region:us"])


def test_the_tree(site: HubSite, repo: Repo) -> None:
    """Issue 5.1: folders and files with both digests, page by page."""
    api = client(site)
    top = {entry.path: entry for entry in api.list_repo_tree("owner/model")}
    assert set(top) == {"README.md", "model-Q4.gguf", "split"}
    large, small = top["model-Q4.gguf"], top["README.md"]
    assert (large.size, large.lfs.sha256, large.lfs.size) == (len(DATA), SHA256, len(DATA))
    assert (small.size, small.lfs, small.last_commit) == (len(CARD), None, None)
    assert isinstance(top["split"], hf.hf_api.RepoFolder)
    whole = [entry.path for entry in api.list_repo_tree("owner/model", recursive=True)]
    assert sorted(whole) == sorted([*FILES, "split", "split/deep"])
    queries = [r.query for r in site.origin.requests[-4:]]
    assert queries[0] == "recursive=true&expand=false"
    assert ["cursor=" in query for query in queries] == [False, True, True, True]
    inside = [entry.path for entry in api.list_repo_tree("owner/model", "split/deep")]
    assert inside == ["split/deep/config.json"]
    more = next(e for e in api.list_repo_tree("owner/model", expand=True) if e.path == "README.md")
    assert (more.last_commit.oid, more.security.safe) == (repo.refs["main"], True)


def test_the_pointer_is_that_of_git_lfs(site: HubSite, repo: Repo) -> None:
    """Issue 5.1: git's own digest of a large file is its pointer's; `lfs.oid` and `size` are what counts."""
    (entry,) = (e for e in client(site).list_repo_tree("owner/model") if e.path == "model-Q4.gguf")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize 300000\n".encode()
    assert entry.lfs.pointer_size == len(pointer)
    assert entry.blob_id == hashlib.sha1(b"blob %d\0%s" % (len(pointer), pointer)).hexdigest()


def test_a_snapshot(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: the client's way of taking a whole repository."""
    found = Path(client(site).snapshot_download("owner/model", cache_dir=tmp_path))
    files = [path for path in found.rglob("*") if path.is_file()]
    assert {path.relative_to(found).as_posix(): path.read_bytes() for path in files} == FILES
    assert found.name == repo.refs["main"]


# Refusals


def test_what_is_not_there(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: the three kinds of not found, each by its own name."""
    site.allow(TOKEN)
    api = client(site, TOKEN)
    for revision in ("gone", "main/gone", "0" * 40):
        with pytest.raises(errors.RevisionNotFoundError):
            api.model_info("owner/model", revision=revision)
    with pytest.raises(errors.RevisionNotFoundError, match="Invalid rev id: gone"):
        list(api.list_repo_tree("owner/model", revision="gone"))
    with pytest.raises(errors.RevisionNotFoundError):
        fetched(site, tmp_path, "README.md", TOKEN, revision="gone")
    with pytest.raises(errors.RemoteEntryNotFoundError) as caught:
        metadata(site, "gone.gguf")
    assert caught.value.response.headers["X-Repo-Commit"] == repo.refs["main"]
    with pytest.raises(errors.EntryNotFoundError):
        fetched(site, tmp_path, "split", TOKEN)
    with pytest.raises(errors.EntryNotFoundError):
        list(api.list_repo_tree("owner/model", "gone"))
    with pytest.raises(errors.RepositoryNotFoundError) as missing:
        api.model_info("owner/gone")
    assert missing.value.response.status_code == 404
    assert requests.get(f"{site.endpoint}/gone", timeout=5).status_code == 404


@pytest.mark.parametrize("name", ["owner/gone", "owner/private"])
def test_who_is_nobody_learns_nothing(site: HubSite, name: str) -> None:
    """Issue 5: 401 for what is missing and what is private, without an error code."""
    site.repo("owner/private", private=True).push({"m.gguf": DATA})
    for url in (f"{site.endpoint}/api/models/{name}", site.url(name, "m.gguf")):
        answer = requests.get(url, timeout=5)
        assert (answer.status_code, "X-Error-Code" in answer.headers) == (401, False)
        assert answer.json()["error"] == answer.headers["X-Error-Message"] == "Invalid username or password."


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_missing_repository_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5: the client takes the Hub's bare 401 for a missing repository where the address is https."""
    cert, key = self_signed(tmp_path)
    httpx = pytest.importorskip("httpx2")
    trust = ssl.create_default_context(cafile=str(cert))
    hf.set_client_factory(lambda: httpx.Client(verify=trust, follow_redirects=True))
    try:
        with HubSite((cert, key)) as site:
            site.repo("owner/model").push(FILES)
            assert fetched(site, tmp_path, "model-Q4.gguf") == DATA
            with pytest.raises(errors.RepositoryNotFoundError) as caught:
                client(site).model_info("owner/gone")
            assert not isinstance(caught.value, errors.GatedRepoError)
            with pytest.raises(errors.RepositoryNotFoundError):
                client(site).hf_hub_download("owner/gone", "m.gguf", cache_dir=tmp_path)
    finally:
        hf.set_client_factory(hf.utils._http.default_client_factory)


def test_a_gated_repository(site: HubSite, tmp_path: Path) -> None:
    """Issue 5: its files want a token that was let in; what the API says of it is public."""
    repo = site.repo("owner/model", gated="manual")
    repo.push(FILES)
    site.allow("hf_other")
    site.allow(TOKEN, repo)
    for token, status in ((False, 401), ("hf_other", 403), ("hf_nobodys", 401)):
        with pytest.raises(
            errors.GatedRepoError, match="Access to model owner/model is restricted"
        ) as caught:
            fetched(site, tmp_path, "model-Q4.gguf", token)
        assert caught.value.response.status_code == status
        with pytest.raises(errors.GatedRepoError):
            metadata(site, "README.md", token=token)
    assert client(site).model_info("owner/model").gated == "manual"
    assert set(client(site).list_repo_files("owner/model")) == set(FILES)
    assert fetched(site, tmp_path, "model-Q4.gguf", TOKEN) == DATA


def test_a_private_repository(site: HubSite, tmp_path: Path) -> None:
    """Issue 5: for a token that was not let in, it is not there."""
    repo = site.repo("owner/model", private=True)
    repo.push(FILES)
    site.allow("hf_other")
    site.allow(TOKEN, repo)
    with pytest.raises(errors.RepositoryNotFoundError) as caught:
        client(site, "hf_other").model_info("owner/model")
    assert caught.value.response.status_code == 404
    with pytest.raises(errors.RepositoryNotFoundError):
        metadata(site, "README.md", token="hf_other")
    assert client(site, TOKEN).model_info("owner/model").private is True
    assert fetched(site, tmp_path, "model-Q4.gguf", TOKEN) == DATA


def test_a_token_of_nobody(site: HubSite, repo: Repo) -> None:
    """Issue 5: 401 that speaks of credentials, which is not a missing repository."""
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
        client(site, "hf_nobodys").model_info("owner/model")
    assert caught.value.response.status_code == 401
    assert not isinstance(caught.value, errors.RepositoryNotFoundError)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials"):
        metadata(site, "README.md", token="hf_nobodys")


# Limits


def test_limits_are_told_with_every_answer(site: HubSite, repo: Repo) -> None:
    """Issue 5: each kind of request has its own budget; a refusal costs, too."""
    site.limit("resolvers", 10)
    for left, path, status in ((9, "README.md", 200), (8, "model-Q4.gguf", 302), (7, "gone", 404)):
        answer = requests.head(site.url("owner/model", path), timeout=5)
        assert answer.status_code == status
        told = hf.utils.parse_ratelimit_headers(answer.headers)
        assert (told.resource_type, told.remaining) == ("resolvers", left)
        assert (told.limit, told.window_seconds) == (10, 300)
        assert 290 < told.reset_in_seconds <= 300
    answer = requests.get(f"{site.endpoint}/api/models/owner/model", timeout=5)
    assert answer.headers["RateLimit"].startswith('"api";r=499;t=')


def test_too_many_questions(site: HubSite, repo: Repo, tmp_path: Path) -> None:
    """Issue 5: 429, from which the client reads quota, window and wait; the other budget is untouched."""
    site.limit("api", 1)
    assert client(site).model_info("owner/model").id == "owner/model"
    with pytest.raises(errors.HfHubHTTPError) as caught:
        client(site).model_info("owner/model")
    assert caught.value.response.status_code == 429
    assert "you have reached your 'api' rate limit" in str(caught.value)
    assert "(0/1 requests remaining in current 300s window)" in str(caught.value)
    assert fetched(site, tmp_path, "README.md") == CARD
    site.limit("resolvers", 0)
    with pytest.raises(errors.HfHubHTTPError, match="'resolvers' rate limit"):
        metadata(site, "README.md")


def test_a_window_ends(site: HubSite, repo: Repo) -> None:
    """Issue 5: the client waits as long as it is told, and is answered."""
    site.limit("api", 2, window_s=2)
    assert set(client(site).list_repo_files("owner/model")) == set(FILES)
    assert [r.status for r in site.origin.requests] == [200, 200, 429, 200, 200]
