"""`doit download` from a whole Hub: gates, tokens, repositories that have moved or are not there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.fakes.hub import blob_path
from tests.fakes.hub_repo import Repo
from tests.fakes.hub_site import HubSite
from tests.fakes.llamafile import noise
from tests.fakes.server import Drop
from tests.support.project import Project

DATA = noise(b"hub", 3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "m.llamafile"
TOKEN = "hf_aVerySecretTokenOfOurs"


@pytest.fixture
def site(project: Project) -> Iterator[HubSite]:
    """The Hub at HF_ENDPOINT."""
    with HubSite() as site:
        project.env["HF_ENDPOINT"] = site.endpoint
        yield site


def publish(project: Project, repo: Repo) -> str:
    """Push the model and have it in the catalogue, pinned to its commit; return that."""
    commit = repo.push({NAME: DATA})
    url = f"https://huggingface.co/{repo.name}/resolve/{commit}/{NAME}"
    project.catalogue({"m": project.entry(url, DATA)})
    return commit


def is_secret(project: Project, text: str) -> bool:
    """Whether the token is nowhere: neither shown nor written."""
    written = [path.read_bytes() for path in project.cache.rglob("*") if path.is_file()]
    return TOKEN not in text and not any(TOKEN.encode() in data for data in written)


def test_a_gated_file(project: Project, site: HubSite) -> None:
    """Issue 3.4: 401 names HF_TOKEN; with one that was let in, the file comes; the CDN does not see it."""
    repo = site.repo("o/r", gated="manual")
    publish(project, repo)
    site.allow(TOKEN, repo)
    refused = project.doit("download")
    assert refused.status == 1
    assert "HTTP 401; the file needs an account: accept its licence on its page and set HF_TOKEN" in (
        refused.err
    )
    assert (len(site.origin.requests), site.cdn.requests) == (1, [])
    wrong = project.doit("download", env={"HF_TOKEN": "hf_wrong"})
    assert "the token is not accepted, and the file needs one" in wrong.err
    assert (wrong.status, "hf auth login" in wrong.err, "hf_wrong" in wrong.err) == (1, True, False)
    allowed = project.doit("download", env={"HF_TOKEN": TOKEN})
    assert allowed.status == 0, allowed.err
    assert project.target(DATA, NAME).read_bytes() == DATA
    assert {request.headers["Authorization"] for request in site.cdn.requests} == {None}
    assert is_secret(project, allowed.out + allowed.err)


def test_a_token_without_the_right(project: Project, site: HubSite) -> None:
    """Issue 3.4: 403 says what the token lacks, and does not show it."""
    publish(project, site.repo("o/r", gated="manual"))
    site.allow(TOKEN)
    refused = project.doit("download", env={"HF_TOKEN": TOKEN})
    assert refused.status == 1
    assert "the token does not give access: accept the licence on its page, or run hf auth" in refused.err
    assert [request.status for request in site.origin.requests] == [403, 401]  # with it and without it
    assert is_secret(project, refused.out + refused.err)


def test_a_repository_that_has_moved(project: Project, site: HubSite) -> None:
    """R1: the old owner's address leads to the new one, on the same host, and the token goes along."""
    repo = site.repo("old/r", private=True)
    commit = publish(project, repo)
    site.rename("old/r", "new.org/r")
    site.allow(TOKEN, repo)
    result = project.doit("download", env={"HF_TOKEN": TOKEN})
    assert result.status == 0, result.err
    asked = [(r.path.split("/resolve/")[0], r.status) for r in site.origin.requests]
    assert asked == [("/old/r", 307), ("/new.org/r", 302)]
    assert site.origin.requests[1].path.endswith(f"/{commit}/{NAME}")
    assert {r.headers["Authorization"] for r in site.origin.requests} == {f"Bearer {TOKEN}"}
    assert {r.headers["Authorization"] for r in site.cdn.requests} == {None}


def test_a_link_dies_on_the_way(project: Project, site: HubSite) -> None:
    """R18: as when it expires; the origin gives another one, which continues the file."""
    publish(project, site.repo("o/r"))
    site.links.uses = 1
    site.cdn.script(blob_path(SHA256), Drop(1_000_000))
    result = project.doit("download")
    assert result.status == 0, result.err
    assert [r.status for r in site.cdn.requests] == [200, 403, 206]
    assert [r.status for r in site.origin.requests] == [302, 302]
    assert project.target(DATA, NAME).read_bytes() == DATA


@pytest.mark.parametrize("where", ["file", "revision"])
def test_what_the_hub_does_not_have(project: Project, site: HubSite, where: str) -> None:
    """Issue 3.4: 404 at once, and nothing is left behind."""
    commit = publish(project, site.repo("o/r"))
    path = f"{commit}/gone.llamafile" if where == "file" else f"gone/{NAME}"
    project.catalogue({"m": project.entry(f"https://huggingface.co/o/r/resolve/{path}", DATA)})
    result = project.doit("download")
    assert (result.status, "HTTP 404" in result.err) == (1, True), result.err
    assert len(site.origin.requests) == 1
    assert not list(project.cache.rglob("*.partial"))


def test_the_lock_follows_main_when_asked(project: Project, site: HubSite) -> None:
    """Issue 5.1: a pin stays while main moves on; --upgrade moves it, and says from where to where."""
    repo = site.repo("o/r")
    first = repo.push({NAME: DATA})
    project.catalogue({"m": {"title": "M", "license": "MIT", "hf": "o/r", "file": NAME}})
    written = project.doit("lock")
    assert written.status == 0, written.err
    second = repo.push({NAME: DATA[1:]})
    lock = (project.path / "models.lock").read_text("utf-8")
    assert (first in lock, SHA256 in lock, second in lock) == (True, True, False)
    assert "nothing changed" in project.doit("lock").out
    asked = list(site.origin.requests)
    assert [r.method for r in asked].count("HEAD") == 1  # the first command's
    moved = project.doit("lock", "--upgrade")
    assert moved.status == 0, moved.err
    assert f"{first[:12]} sha256:{SHA256}" in moved.out
    assert f"{second[:12]} sha256:{hashlib.sha256(DATA[1:]).hexdigest()}" in moved.out
    # no whole file: only ranges of its head
    assert all(r.method == "HEAD" or r.range for r in (*site.origin.requests, *site.cdn.requests))
