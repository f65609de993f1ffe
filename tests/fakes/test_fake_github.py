"""The fake of GitHub's releases says what GitHub does: else the tests that use it prove nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.github import GitHub, Project, asset_path
from tests.fakes.server import Drop

pytestmark = pytest.mark.once
DATA = hashlib.shake_128(b"engine").digest(100_000)
OTHER = DATA[::-1]
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "mozilla-ai/llamafile"


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as github:
        yield github


@pytest.fixture
def project(github: GitHub) -> Project:
    project = github.repo(NAME)
    project.release("0.9.3", {"llamafile-0.9.3": b"old"}, digests=False)
    project.release("0.10.5", {"llamafile-0.10.5": DATA, "notes 1.txt": b"notes"})
    project.release("0.11-rc1", {"llamafile-0.11-rc1": b"new"}, prerelease=True)
    return project


def asked(github: GitHub, path: str) -> requests.Response:
    return requests.get(f"{github.endpoint}/api/v3{path}", timeout=5)


def assets(answer: requests.Response) -> dict[str, Any]:
    return {asset["name"]: asset for asset in answer.json()["assets"]}


def test_the_latest_release(github: GitHub, project: Project) -> None:
    """Issue 5.1: no prerelease; each asset with size and digest."""
    answer = asked(github, f"/repos/{NAME}/releases/latest")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    release, asset = answer.json(), assets(answer)["llamafile-0.10.5"]
    assert (release["tag_name"], release["name"], release["prerelease"]) == ("0.10.5", "0.10.5", False)
    assert release["published_at"] == "2026-01-02T00:00:00Z"
    assert (asset["size"], asset["digest"]) == (len(DATA), f"sha256:{SHA256}")
    assert requests.get(asset["browser_download_url"], timeout=5).content == DATA
    project.release("0.10.6", {"llamafile-0.10.6": OTHER})
    assert asked(github, f"/repos/{NAME}/releases/latest").json()["tag_name"] == "0.10.6"


def test_a_release_by_its_tag(github: GitHub, project: Project) -> None:
    """Issue 5.1: an old one has no digests."""
    old = asked(github, f"/repos/{NAME}/releases/tags/0.9.3")
    assert assets(old)["llamafile-0.9.3"]["digest"] is None
    rc = asked(github, f"/repos/{NAME}/releases/tags/0.11-rc1").json()
    assert (rc["tag_name"], rc["prerelease"]) == ("0.11-rc1", True)


def test_the_licence(github: GitHub, project: Project) -> None:
    """Issue 5.1: of the repository."""
    github.repo("o/none", licence=None)
    assert asked(github, f"/repos/{NAME}").json()["license"]["spdx_id"] == "Apache-2.0"
    assert asked(github, "/repos/o/none").json()["license"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/repos/o/gone",
        "/repos/o/gone/releases/latest",
        "/repos/o/empty/releases/latest",
        f"/repos/{NAME}/releases/tags/9.9",
        "/repositories/7/releases/latest",
        "/gone",
    ],
)
def test_what_is_not_there(github: GitHub, project: Project, path: str) -> None:
    """Issue 5.1: 404 in JSON."""
    github.repo("o/empty").release("1-rc1", {}, prerelease=True)
    answer = asked(github, path)
    assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")


@pytest.mark.parametrize(
    "path", [f"{NAME}/releases/download/0.10.5/gone", f"{NAME}/releases/download/9/x", "x"]
)
def test_an_asset_that_is_not_there(github: GitHub, project: Project, path: str) -> None:
    """Issue 5.1: 404, and a page."""
    assert requests.get(f"{github.endpoint}/{path}", timeout=5).status_code == 404


def test_an_asset_is_on_another_host(github: GitHub, project: Project) -> None:
    """Issue 5.1: 302 to a signed link, to which no token follows; ranges and faults as on any server."""
    url = github.url(NAME, "0.10.5", "llamafile-0.10.5")
    head = requests.head(url, timeout=5)
    assert head.status_code == 302
    assert head.headers["Location"].startswith(
        f"http://localhost:{github.cdn.port}/github-production-release-"
    )
    got = requests.get(url, timeout=5, headers={"Range": "bytes=5-9", "Authorization": "Bearer t"})
    assert (got.status_code, got.content) == (206, DATA[5:10])
    assert github.cdn.requests[-1].headers["Authorization"] is None
    github.cdn.script(asset_path(DATA), Drop(10))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, timeout=5)
    assert requests.get(github.url(NAME, "0.10.5", "notes 1.txt"), timeout=5).content == b"notes"


def test_links_expire(github: GitHub, project: Project) -> None:
    """Issue 5.1: after five minutes, with GitHub's own status; on command here."""
    url = github.url(NAME, "0.10.5", "llamafile-0.10.5")
    link = requests.head(url, timeout=5).headers["Location"]
    assert int(link.split("se=")[1].split("&")[0]) == pytest.approx(time.time() + 300, abs=5)
    assert requests.get(link, timeout=5).content == DATA
    github.links.expire()
    refused = requests.get(link, timeout=5)
    assert (refused.status_code, "jwt:expired" in refused.text) == (618, True)
    assert requests.get(url, timeout=5).content == DATA


def test_a_renamed_repository_redirects(github: GitHub, project: Project) -> None:
    """Issue 5.1: 301, in the API to the repository's number; llamafile itself has moved twice."""
    github.rename(NAME, "new/llama")
    moved = requests.get(
        f"{github.endpoint}/api/v3/repos/{NAME}/releases/latest", timeout=5, allow_redirects=False
    )
    assert (moved.status_code, moved.json()["message"]) == (301, "Moved Permanently")
    assert moved.headers["Location"] == f"{github.endpoint}/api/v3/repositories/{project.id}/releases/latest"
    asset = assets(asked(github, f"/repos/{NAME}/releases/latest"))["llamafile-0.10.5"]
    assert asset["browser_download_url"] == github.url("new/llama", "0.10.5", "llamafile-0.10.5")
    assert asked(github, f"/repos/{NAME}").json()["full_name"] == "new/llama"
    old = requests.get(github.url(NAME, "0.10.5", "llamafile-0.10.5"), timeout=5)
    assert ([r.status_code for r in old.history], old.content) == ([301, 302], DATA)


@pytest.mark.parametrize("status", [403, 429])
def test_too_many_questions(github: GitHub, project: Project, status: int) -> None:
    """Issue 5.1: the API has a limit, and says when it ends; downloads have none."""
    first = asked(github, f"/repos/{NAME}")
    assert (first.headers["X-RateLimit-Limit"], first.headers["X-RateLimit-Remaining"]) == ("60", "59")
    github.limit(1, window_s=100, status=status)
    assert asked(github, "/repos/o/gone").status_code == 404
    refused = asked(github, f"/repos/{NAME}")
    assert refused.status_code == status
    assert "rate limit" in refused.json()["message"]
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert int(refused.headers["X-RateLimit-Reset"]) == pytest.approx(time.time() + 100, abs=5)
    assert requests.get(github.url(NAME, "0.10.5", "llamafile-0.10.5"), timeout=5).content == DATA
