"""Every way a download goes wrong, seen by the user: exit status, words, remedy, and what is on the disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.hub import Hub
from tests.fakes.llamafile import noise
from tests.fakes.server import Drop, Fault, FileServer, NoLength, Redirect, Reply, Request, Status
from tests.fakes.tls import self_signed
from tests.support.ports import closed_port
from tests.support.project import Project, Result

SIZE, HALF = 300_000, 150_000
DATA = noise(b"right", SIZE)
OTHER = noise(b"other", SIZE)
SHA256, OTHER_SHA256 = (hashlib.sha256(data).hexdigest() for data in (DATA, OTHER))
NAME = "m.llamafile"
PATH = f"/{NAME}"

Span = tuple[int, int | None]

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@dataclass(frozen=True)
class OldFile:
    """What the file was before it changed, and only half of it."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        return Drop(HALF).answer(request, OTHER)


@dataclass(frozen=True)
class Row:
    """A script of answers, and what the user sees of it.

    Args:
        faults: of the first requests; `always` those of all others.
        asked: the ranges of the requests; None where it depends on the network's timing.
        says: patterns of stderr, in this order.
        served: bytes that the server sent, where that is certain.
    """

    faults: tuple[Fault, ...] = ()
    always: Fault | None = None
    status: int = 0
    says: tuple[str, ...] = ()
    asked: tuple[Span | None, ...] | None = None
    served: int | None = None


PASSING = {
    "503 with Retry-After": Row(
        faults=(Status(503, {"Retry-After": "1"}),),
        says=(r"HTTP 503 from 127\.0\.0\.1; retrying in [12]\.\d s",),
        asked=(None, None),
    ),
    "dropped twice": Row(
        faults=(Drop(100_000), Drop(100_000)),
        says=("the connection ended before the file did", "33 % received", "66 % received"),
        asked=(None, (100_000, None), (200_000, None)),
        served=SIZE,
    ),
    "content changed in the middle": Row(
        faults=(OldFile(),),
        says=(r"wrong SHA-256 \(300\.0 kB\); downloading it again",),
        asked=(None, (HALF, None), None),
    ),
    "redirect": Row(always=Redirect("/elsewhere"), asked=(None,)),
}
FINAL = {
    "404": Row(always=Status(404), status=1, says=("HTTP 404", "the file is gone, or"), asked=(None,)),
    "403 after a drop": Row(
        faults=(Drop(HALF),),
        always=Status(403),
        status=1,
        says=("HTTP 403", "partial: 150.0 kB are kept", "run it again to resume the download"),
        asked=(None, (HALF, None)),
    ),
    "redirects in a circle": Row(always=Redirect("/circle"), status=1, says=("10 redirects",)),
}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[PATH] = DATA
        yield server


def target(project: Project) -> Path:
    return project.target(DATA, NAME)


def play(row: Row, project: Project, server: FileServer) -> Result:
    """`doit download` against the row's answers, and what holds for every row.

    That is: status, words, requests; the target right or absent, and no program.
    """
    server.files |= {"/elsewhere": DATA}
    server.always("/circle", Redirect("/circle"))
    server.script(PATH, *row.faults)
    if row.always:
        server.always(PATH, row.always)
    project.catalogue({"m": project.entry(server.url(PATH), DATA)})
    result = project.doit("download")
    assert (result.status, result.out) == (row.status, ""), result.err
    rest = result.err
    for pattern in row.says:
        found = re.search(pattern, rest)
        assert found, f"no {pattern!r} in\n{rest}\nof\n{result.err}"
        rest = rest[found.start() :]
    if row.asked is not None:
        assert tuple(request.range for request in server.asked(PATH)) == row.asked
    if row.served is not None:
        assert server.bytes_sent(PATH) == row.served
    if row.status == 0:
        assert target(project).read_bytes() == DATA
        assert sorted(os.listdir(target(project).parent)) == [NAME, f"{NAME}.stamp.json"]
    else:
        assert not target(project).exists()
        assert not target(project).with_name(f"{NAME}.stamp.json").exists()
    assert not programs(project)
    return result


def programs(project: Project) -> list[Path]:
    """Everything executable in the cache."""
    return [p for p in project.cache.rglob("*") if p.is_file() and p.stat().st_mode & 0o111]


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_survived(project: Project, server: FileServer, name: str) -> None:
    """R18, R19, R20, R21: retried, resumed or begun again; status 0 and the right bytes."""
    play(PASSING[name], project, server)


@pytest.mark.parametrize("name", FINAL)
def test_a_final_fault_is_named(project: Project, server: FileServer, name: str) -> None:
    """R14, R19: asked for once; the reason, its remedy, and the URL."""
    assert f"  {server.url(PATH)}: " in play(FINAL[name], project, server).err


def test_a_source_that_never_answers(project: Project) -> None:
    """R14, R19, R27: a bounded number of attempts, each announced; then the reason and the remedy."""
    with closed_port() as port:
        project.catalogue({"m": project.entry(f"http://127.0.0.1:{port}{PATH}", DATA)})
        result = project.doit("download")
    assert result.status == 1
    assert result.err.count("refused from 127.0.0.1; retrying in ") == 5
    assert "refused (tried 6 times)" in result.err
    assert "fix: run it again" in result.err
    assert not target(project).exists()


# The bytes are wrong


def test_wrong_bytes_never_become_a_program(project: Project, server: FileServer) -> None:
    """R14, R21: the steps after the download are not even begun."""
    server.files[PATH] = OTHER
    project.catalogue({"m": project.entry(server.url(PATH), DATA)})
    result = project.doit("verify")
    assert result.status == 1
    assert "ERROR: m: no source sent the right bytes" in result.err
    assert f"expected: sha256:{SHA256}" in result.err
    assert f"got: sha256:{OTHER_SHA256}" in result.err
    assert "fix: compare the digest with the publisher's" in result.err
    assert not [line for line in result.err.splitlines() if "chmod:" in line or "verify:" in line]
    assert [path for path in (project.cache / "models").rglob("*") if path.is_file()] == []
    assert len(server.requests) == 2


# Mirrors


def with_mirrors(project: Project, url: str, *mirrors: str) -> None:
    project.catalogue({"m": project.entry(url, DATA, mirrors=mirrors)})


def test_a_mirror_stands_in_for_a_missing_file(project: Project, server: FileServer) -> None:
    """R19: the next source at once, and the end says which one it was."""
    with_mirrors(project, server.url(f"/gone/{NAME}"), server.url(PATH, host="localhost"))
    result = project.doit("download")
    assert result.status == 0
    assert "from localhost, sha256 verified" in result.err
    assert target(project).read_bytes() == DATA
    assert project.doit("download").err == "-- download:m\n"


def test_a_mirror_stands_in_for_wrong_bytes(project: Project, server: FileServer) -> None:
    """R21: held to the same digest, from its first byte."""
    server.files[f"/wrong/{NAME}"] = OTHER
    with_mirrors(project, server.url(f"/wrong/{NAME}"), server.url(PATH))
    result = project.doit("download")
    assert result.status == 0
    assert target(project).read_bytes() == DATA
    assert [request.range for request in server.asked(PATH)] == [None]


def test_every_source_is_listed_with_its_reason(project: Project, server: FileServer) -> None:
    """R19: in the order of the catalogue."""
    server.files[f"/wrong/{NAME}"] = OTHER
    server.always(f"/closed/{NAME}", Status(403))
    urls = [server.url(f"/{place}/{NAME}") for place in ("gone", "wrong", "closed")]
    with_mirrors(project, *urls, "nowhere.llamafile")
    result = project.doit("download")
    assert result.status == 1
    places = [result.err.index(url) for url in (*urls, str(project.path / "nowhere.llamafile"))]
    assert places == sorted(places)
    for reason in ("HTTP 404", "wrong SHA-256", "HTTP 403", "No such file or directory"):
        assert reason in result.err
    assert not target(project).exists()


# Redirects and the Hub


def test_a_redirect_to_another_host(project: Project, server: FileServer) -> None:
    """R18: followed; after a drop the place it led to is asked again, which costs no resolve at the Hub."""
    server.script(PATH, Drop(HALF))
    with FileServer() as origin:
        origin.always(PATH, Redirect(server.url(PATH, host="localhost")))
        project.catalogue({"m": project.entry(origin.url(PATH), DATA)})
        assert project.doit("download").status == 0
        assert [request.range for request in origin.asked(PATH)] == [None]
    assert [request.range for request in server.asked(PATH)] == [None, (HALF, None)]
    assert server.bytes_sent(PATH) == SIZE
    assert target(project).read_bytes() == DATA


@contextmanager
def a_hub(project: Project, server: FileServer, *, pinned: bool, uses: int | None = None) -> Iterator[Hub]:
    """A Hub whose one file is the catalogue's one model."""
    with FileServer() as cdn:
        hub = Hub(server, cdn, f"/o/r/resolve/main/{NAME}", DATA, uses=uses)
        project.catalogue({"m": project.entry(hub.url, DATA if pinned else None)})
        yield hub
        cdn.close()


def test_an_unpinned_file_is_held_to_the_publishers_digest(project: Project, server: FileServer) -> None:
    """R21: X-Linked-Etag of the redirect; a warning says what would pin it. Then a second run is quiet."""
    with a_hub(project, server, pinned=False) as hub:
        result = project.doit("download")
        assert result.status == 0
        assert f"m is not pinned; its publisher states --sha256 {hub.sha256}" in result.err
        assert f"not pinned; its sha256 is {hub.sha256}" in result.err  # security 10
        assert project.doit("download").err == "-- download:m\n"


def test_other_bytes_than_the_publisher_says_are_refused(project: Project, server: FileServer) -> None:
    """R21: a bad proxy or mirror is noticed without a digest of ours."""
    with a_hub(project, server, pinned=False) as hub:
        hub._cdn.files[hub.cdn_path] = OTHER
        result = project.doit("download")
    assert result.status == 1
    assert f"expected: sha256:{SHA256}" in result.err
    assert f"got: sha256:{OTHER_SHA256}" in result.err
    assert list((project.cache / "models").rglob("*.llamafile*")) == []


def test_a_signed_link_that_expired_after_a_drop(project: Project, server: FileServer) -> None:
    """R18: every link is good for one request; the download keeps its bytes and goes on through a new one."""
    with a_hub(project, server, pinned=True, uses=1) as hub:
        hub._cdn.script(hub.cdn_path, Drop(HALF))
        assert project.doit("download").status == 0
        asked = [(request.status, request.range) for request in hub._cdn.asked(hub.cdn_path)]
        assert asked == [(200, None), (403, (HALF, None)), (206, (HALF, None))]
        assert len(server.asked(hub.path)) == 2
    assert target(project).read_bytes() == DATA


# TLS


@needs_openssl
def test_a_certificate_that_nobody_vouches_for(project: Project, tmp_path: Path) -> None:
    """R29: refused at once with the remedy; with that remedy it is taken."""
    certificate = self_signed(tmp_path)
    with FileServer(tls=certificate) as server:
        server.files[PATH] = DATA
        project.catalogue({"m": project.entry(server.url(PATH), DATA)})
        refused = project.doit("download", timeout=10)
        assert refused.status == 1
        assert "the certificate is not trusted" in refused.err
        assert "self-signed certificate" in refused.err
        assert "REQUESTS_CA_BUNDLE=/path/of/its/ca.pem" in refused.err
        assert "retrying in" not in refused.err
        assert (server.requests, target(project).exists()) == ([], False)
        trusted = project.doit("download", env={"REQUESTS_CA_BUNDLE": str(certificate[0])})
        assert (trusted.status, target(project).read_bytes()) == (0, DATA)


# The disk


def test_space_is_looked_at_before_the_first_byte(project: Project, server: FileServer) -> None:
    """R19, R22: what it needs and what is missing, and no request at all where the catalogue has the size."""
    project.catalogue({"m": {**project.entry(server.url(PATH), DATA), "size": 10**15}})
    result = project.doit("download")
    assert result.status == 1
    assert "cannot work: the disk has " in result.err
    assert " for 1000000.0 GB" in result.err
    missing = re.search(r"(\d+\.\d) GB are missing", result.err)
    assert missing
    assert 0 < float(missing[1]) < 10**6
    assert "`doit prune`, or LLAMAFILE_CACHE on another disk" in result.err
    assert server.requests == []


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts a tmpfs")
def test_a_disk_that_fills_up_in_the_middle(project: Project, server: FileServer, tmp_path: Path) -> None:
    """R19, R20: said as what it is; with room, the same command succeeds."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        server.always(PATH, NoLength())
        entry = {**project.entry(server.url(PATH)), "sha256": SHA256}  # no size, so no look at the space
        project.catalogue({"m": entry})
        environment = {"LLAMAFILE_CACHE": str(small)}
        full = project.doit("download", env=environment)
        assert full.status == 1
        assert "ERROR: m: the disk is full" in full.err
        assert "free some space and run it again" in full.err
        assert not list(small.rglob(NAME))
        assert not list(small.rglob("*.tmp"))
        # it resumes, so the size is known now, and 64 MiB have to stay free
        subprocess.run(["mount", "-o", "remount,size=80m", str(small)], check=True)
        assert project.doit("download", env=environment).status == 0
        assert [path.read_bytes() for path in small.rglob(NAME)] == [DATA]
    finally:
        subprocess.run(["umount", str(small)], check=True)
