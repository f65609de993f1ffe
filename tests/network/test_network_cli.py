"""Hostile servers, proxies and plain http against the real `doit` (security 4-33)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import llamafile
from tests.fakes.faults import Redirect
from tests.fakes.hostile import CHUNKED, HostileServer, Row, body, chunks, head
from tests.fakes.hub_site import HubSite
from tests.fakes.server import FileServer
from tests.support.project import ENGINES, Project
from tests.support.publishers import entry, failed, sha256
from tests.support.servers import known, process, rows, write_record

DATA = llamafile.gguf(300_000)
NAME = "m.gguf"
EMBEDDED = {"embedded": ENGINES["embedded"]}
CLEAR = "http://127.0.0.2:1"  # no loopback address that the recipe knows: nothing there is asked
TOKEN = "hf_aVerySecretTokenOfOurs"
PLAIN_HTTP = "plain http is allowed only with a sha256, or from this machine"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[f"/{NAME}"] = DATA
        yield server


def of_the_hub(project: Project, **keys: object) -> None:
    """A catalogue with one file of the Hub's main."""
    project.catalogue({"m": entry(hf="o/r", file=NAME, engine="embedded", **keys)}, EMBEDDED)


def mirrored(project: Project, first: str, server: FileServer) -> None:
    """A catalogue whose first source is another server; pinned, without a size."""
    model = entry(url=first, mirrors=[server.url(f"/{NAME}")], sha256=sha256(DATA), engine="embedded")
    project.catalogue({"m": model}, EMBEDDED)


# Bounds


def test_a_redirect_with_an_endless_body(project: Project, server: FileServer) -> None:
    """Security 4: it is not read, neither by a download nor by `doit lock`."""
    endless = Row("302", head("Location: /y", CHUNKED, status="HTTP/1.1 302 x"), then=chunks(b"x" * 65536))
    with HostileServer(endless) as site:
        mirrored(project, site.url(f"/{NAME}"), server)
        assert project.doit("download").status == 0
        url = site.url("/o/r/releases/download/1/m.gguf")
        project.catalogue({"m": entry(url=url, engine="embedded")}, EMBEDDED)
        assert "Exceeded 5 redirects" in failed(project.doit("lock"))
        assert max(site.sent) < 16 * 1024**2
    assert project.target(DATA, NAME).read_bytes() == DATA


@pytest.mark.parametrize("length", [9 * 10**18, 10**13, 10**25])
def test_a_length_that_cannot_be(project: Project, server: FileServer, length: int) -> None:
    """Security 14: that source's failure; the mirror is asked. Without a mirror, an error that says it."""
    row = Row("length", head(f"Content-Length: {length}") + b"x" * 4096)
    with HostileServer(row) as site:
        mirrored(project, site.url(f"/{NAME}"), server)
        result = project.doit("download")
        assert result.status == 0, result.err
        assert "trying the next source" in result.err
        assert project.target(DATA, NAME).read_bytes() == DATA
        url = site.url("/alone.gguf")
        project.catalogue({"m": entry(url=url, sha256="a" * 64, engine="embedded")}, EMBEDDED)
        said = failed(project.doit("download"))
    assert "does not fit on the disk" in said or "which is impossible" in said


# What publishers state


@pytest.mark.parametrize(
    "asset",
    [
        {"size": -5},
        {"size": 1e999},
        {"browser_download_url": "javascript:x"},
        {"browser_download_url": "/etc/x"},
    ],
    ids=str,
)
def test_a_release_that_states_nonsense(project: Project, asset: dict[str, object]) -> None:
    """Security 18: nothing is written that cannot be read again, and no path of this machine."""
    fine = {
        "name": NAME,
        "size": 5,
        "digest": f"sha256:{'a' * 64}",
        "browser_download_url": "https://h/m.gguf",
    }
    release = json.dumps({"tag_name": "1", "assets": [{**fine, **asset}]}).encode()
    with HostileServer(Row("release", body(release))) as site:
        url = site.url(f"/o/r/releases/download/1/{NAME}")
        project.catalogue({"m": entry(url=url, engine="embedded")}, EMBEDDED)
        text = (project.path / "models.yaml").read_bytes()
        assert "has no file m.gguf, or does not state" in failed(project.doit("lock"))
        assert "has no file m.gguf, or does not state" in failed(project.doit("add", url, "--name", "n"))
    assert not (project.path / "models.lock").exists()
    assert (project.path / "models.yaml").read_bytes() == text


@pytest.mark.parametrize("answer", [b"[" * 3_000_000, b"null"])
def test_json_that_is_none(project: Project, answer: bytes) -> None:
    """Security 26: nested too deeply, too long, or something else: status 1 and a reason."""
    with HostileServer(Row("json", body(answer))) as site:
        url = site.url(f"/o/r/releases/download/1/{NAME}")
        project.catalogue({"m": entry(url=url, engine="embedded")}, EMBEDDED)
        for words in (["lock"], ["add", url, "--name", "n"]):
            assert failed(project.doit(*words)).startswith("ERROR: ")


# In the clear


def test_nothing_unpinned_comes_in_the_clear(project: Project) -> None:
    """Security 10: by plain http the Hub pins nothing: download, lock and add refuse."""
    of_the_hub(project)
    project.env["HF_ENDPOINT"] = CLEAR
    text = (project.path / "models.yaml").read_bytes()
    for words in (["download"], ["lock"], ["add", f"hf:o/r/{NAME}", "--name", "n"]):
        said = failed(project.doit(*words))
        assert f"HF_ENDPOINT: {CLEAR}: {PLAIN_HTTP}" in said
        assert "fix: set HF_ENDPOINT=https://HOST" in said
    assert (project.path / "models.yaml").read_bytes() == text
    assert not (project.path / "models.lock").exists()


@pytest.mark.parametrize("words", [["download"], ["lock", "--download"], ["add"]])
def test_plain_http_of_this_machine_through_a_proxy(project: Project, words: list[str]) -> None:
    """Without a digest it is not taken: what answers in the name of this machine is another one."""
    url = f"http://localhost:1/{NAME}"
    project.catalogue({"m": entry(url=url, engine="embedded")}, EMBEDDED)
    with HostileServer(Row("a proxy", body(DATA))) as proxy:
        env = {"HTTP_PROXY": proxy.url(), "http_proxy": proxy.url()}
        more = ["--download", url.replace(NAME, "n.gguf")] if words == ["add"] else []
        error = failed(project.doit(*words, *more, env=env))
        assert "plain http through a proxy is only taken with a sha256" in error
        assert proxy.sent == []
        project.catalogue({"m": entry(url=url, sha256=sha256(DATA), engine="embedded")}, EMBEDDED)
        assert project.doit("download", env=env).status == 0
    assert project.target(DATA, NAME).read_bytes() == DATA


def test_a_digest_that_came_with_the_bytes_verifies_nothing(project: Project) -> None:
    """Security 10: "verified" is what was known before; the publisher's digest is checked as well."""
    with HubSite() as hub:
        project.env["HF_ENDPOINT"] = hub.endpoint
        commit = hub.repo("o/r").push({NAME: DATA})
        of_the_hub(project)
        result = project.doit("download")
        assert result.status == 0, result.err
        assert f"not pinned; its sha256 is {sha256(DATA)}" in result.err
        assert "verified" not in result.err
        hub.cdn.files = dict.fromkeys(hub.cdn.files, DATA[:-1] + b"?")
        of_the_hub(project, revision=commit)
        assert "no source sent the right bytes" in failed(project.doit("download"))


@pytest.mark.parametrize("words", [["--sha256", sha256(DATA)], []], ids=["one digest", "none"])
def test_the_first_of_two_parts_in_the_clear(project: Project, words: list[str]) -> None:
    """Security 8: a digest of one part does not let the other one come by plain http."""
    url = f"{CLEAR}/x-00001-of-00002.gguf"
    said = failed(project.doit("download", "--llamafile-url", url, *words), 3)
    assert ("only 1 of them would be verified" in said) is bool(words)
    assert (PLAIN_HTTP in said) is not bool(words)


def test_unpinned_parts_of_another_host(project: Project) -> None:
    """Security 8: what one host has sent is not used for another one."""
    names = [f"x-0000{n}-of-00002.gguf" for n in (1, 2)]
    with FileServer() as a, FileServer() as b:
        for host, number in ((a, 1), (b, 2)):
            host.files = {f"/{name}": llamafile.gguf(5000 + number) for name in names}
            result = project.doit("download", "--llamafile-url", host.url(f"/{names[0]}"))
            assert result.status == 0, result.err
            assert [len(host.asked(f"/{name}")) for name in names] == [1, 1]


# The token


def test_the_token_avoids_a_proxy(project: Project, server: FileServer) -> None:
    """Security 33: by plain http it goes to this machine directly, or nowhere."""
    path = f"/o/r/resolve/main/{NAME}"
    server.files[path] = DATA
    with FileServer() as proxy:
        proxy.files[path] = DATA
        of_the_hub(project, sha256=sha256(DATA))
        project.env |= {"HF_ENDPOINT": server.url(""), "HF_TOKEN": TOKEN, "http_proxy": proxy.url("")}
        result = project.doit("download", "--no-adopt")
        assert result.status == 0, result.err
        assert "the Hub's token is not sent: HTTP_PROXY would see it; NO_PROXY=127.0.0.1" in result.err
        assert [request.headers["Authorization"] for request in proxy.requests] == [None]
        project.doit("lock")
        assert {request.headers["Authorization"] for request in proxy.requests} == {None}
        project.target(DATA, NAME).unlink()
        assert project.doit("download", env={"no_proxy": "127.0.0.1"}).status == 0
    assert [request.headers["Authorization"] for request in server.asked(path)] == [f"Bearer {TOKEN}"]


@pytest.mark.skipif(os.name == "nt", reason="no such device")
def test_a_file_of_the_token_without_end(project: Project) -> None:
    """It has no token, and is not read to its end."""
    with HubSite() as site:
        site.repo("o/r").push({NAME: DATA})
        of_the_hub(project)
        env = {"HF_ENDPOINT": site.endpoint, "HF_TOKEN_PATH": "/dev/zero"}
        assert project.doit("download", env=env).status == 0


def test_a_redirect_by_plain_http_is_not_followed_to_another_host(
    project: Project, server: FileServer
) -> None:
    """Security 10: nor is one of a release's API, when it is asked for a digest."""
    server.always("/api/v3/repos/o/r/releases/tags/1", Redirect(f"{CLEAR}/x"))
    url = server.url(f"/o/r/releases/download/1/{NAME}")
    project.catalogue({"m": entry(url=url, engine="embedded")}, EMBEDDED)
    assert f"a redirect to {CLEAR}/x: {PLAIN_HTTP}" in failed(project.doit("lock"))


# A server that runs


@pytest.mark.parametrize(
    "event",
    [
        b"data: nope\n\n",
        b"data: null\n\n",
        b"data: [1]\n\n",
        b'data: {"error": "text"}\n\n',
        b"data:\n\n",
        b'data: {"c',
    ],
)
def test_chat_with_a_server_of_odd_events(project: Project, event: bytes) -> None:
    """Security 26, faults F11: a reason and status 1, and what came before is shown."""
    word = b'data: {"choices": [{"delta": {"content": "word"}}]}\n\n'
    with HostileServer(Row("event", body(word + event))) as site, process() as engine:
        run_at(project, site.port, engine.pid)
        result = project.doit("chat", "--model", "m", "Hello")
    assert (result.status, result.out.strip()) == (1, "word")
    assert "ERROR: " in result.err


def test_status_of_a_server_of_odd_slots(project: Project) -> None:
    """Security 26: /slots may be anything."""
    with HostileServer(Row("slots", body(b"[" * 500_000))) as site, process() as engine:
        run_at(project, site.port, engine.pid)
        [row] = rows(project)
    assert (row["state"], row["requests"]) == ("ready", None)


def run_at(project: Project, port: int, pid: int) -> Path:
    """A record that says that a server of the model `m` runs there."""
    project.catalogue({"m": entry(url=NAME, engine="embedded")}, EMBEDDED)
    (project.path / NAME).write_bytes(DATA)
    mark = hashlib.sha256(str(port).encode()).hexdigest()[:16]
    return write_record(project, port, mark=mark, engine=known(pid), keeper=known(pid))
