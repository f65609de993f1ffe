"""The Hub behind HF_ENDPOINT, its token, and bytes that another program has on this machine already."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.fakes.hub import COMMIT, Hub
from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer, Status
from tests.support.project import Project, Result

DATA = noise(b"hub", 3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
WRONG = DATA[::-1]
NAME = "m.llamafile"
REPO_PATH = f"/o/r/resolve/{COMMIT}/{NAME}"
TOKEN = "hf_aVerySecretTokenOfOurs"


@pytest.fixture
def origin() -> Iterator[FileServer]:
    with FileServer() as origin:
        yield origin


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    with FileServer() as cdn:
        yield cdn


@pytest.fixture
def hub(project: Project, origin: FileServer, cdn: FileServer) -> Hub:
    """A Hub at HF_ENDPOINT; the catalogue knows the public one only."""
    project.catalogue({"m": project.entry(f"https://huggingface.co{REPO_PATH}", DATA)})
    project.env["HF_ENDPOINT"] = f"http://127.0.0.1:{origin.port}"
    return Hub(origin, cdn, REPO_PATH, DATA)


def target(project: Project) -> Path:
    return project.target(DATA, NAME)


def home(project: Project) -> Path:
    return Path(project.env["HOME"])


def tokens(server: FileServer) -> set[str | None]:
    """What the requests had as Authorization."""
    return {request.headers.get("Authorization") for request in server.requests}


def is_secret(project: Project, result: Result) -> bool:
    """Whether the token is nowhere: neither shown nor written."""
    written = [path.read_bytes() for path in project.cache.rglob("*") if path.is_file()]
    return TOKEN not in result.out + result.err and not any(TOKEN.encode() in text for text in written)


# HF_ENDPOINT and the token


def test_a_mirror_of_the_hub(project: Project, hub: Hub, cdn: FileServer) -> None:
    """Issue 3.5: HF_ENDPOINT stands in for https://huggingface.co; the catalogue stays as it is."""
    result = project.doit("download")
    assert result.status == 0, result.err
    assert "m: 3.00 MB in " in result.err
    assert target(project).read_bytes() == DATA
    assert cdn.bytes_sent(hub.cdn_path) == len(DATA)
    assert project.doit("download").err == "-- download:m\n"
    del project.env["HF_ENDPOINT"]
    assert project.doit("download").err == "-- download:m\n"


@pytest.mark.parametrize("place", ["HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "~/.cache/huggingface"])
def test_the_token_goes_to_the_hub_alone(
    project: Project, hub: Hub, origin: FileServer, cdn: FileServer, tmp_path: Path, place: str
) -> None:
    """Issue 3.5: from the variable or the file that `hf auth login` writes; the CDN never sees it."""
    folder = home(project) / ".cache" / "huggingface" if place.startswith("~") else tmp_path / "hf"
    folder.mkdir(parents=True)
    if place == "HF_TOKEN":
        project.env[place] = TOKEN
    else:
        (folder / "token").write_text(f"{TOKEN}\n")
    if place in ("HF_HOME", "HF_TOKEN_PATH"):
        project.env[place] = str(folder / "token" if place == "HF_TOKEN_PATH" else folder)
    result = project.doit("download")
    assert result.status == 0, result.err
    assert (tokens(origin), tokens(cdn)) == ({f"Bearer {TOKEN}"}, {None})
    assert is_secret(project, result)


def test_no_token_for_others(project: Project, hub: Hub, origin: FileServer, cdn: FileServer) -> None:
    """Issue 3.5: a mirror of ours is another host, and gets none; nor does any host when none is wanted."""
    hub.expire()
    origin.always(REPO_PATH, Status(404))
    with FileServer() as mirror:
        mirror.files[f"/{NAME}"] = DATA
        entry = project.entry(f"https://huggingface.co{REPO_PATH}", DATA, mirrors=[mirror.url(f"/{NAME}")])
        project.catalogue({"m": entry})
        result = project.doit("download", env={"HF_TOKEN": TOKEN})
        assert result.status == 0, result.err
        assert (tokens(origin), tokens(mirror)) == ({f"Bearer {TOKEN}"}, {None})
    assert is_secret(project, result)


def test_a_saved_token_may_be_kept_back(project: Project, hub: Hub, origin: FileServer) -> None:
    """Issue 3.5: HF_HUB_DISABLE_IMPLICIT_TOKEN, as in the Hub's own client."""
    folder = home(project) / ".cache" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "token").write_text(TOKEN)
    assert project.doit("download", env={"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).status == 0
    assert tokens(origin) == {None}


# Bytes that are here already


@pytest.fixture
def closed(project: Project) -> Project:
    """A catalogue whose source answers nobody: what comes, comes from this machine."""
    with FileServer() as gone:
        url = gone.url(f"/{NAME}")
    project.catalogue({"m": project.entry(url, DATA)})
    return project


def facts(path: Path) -> tuple[bytes, int, int, int, int]:
    """What must not change about a file of another program."""
    found = path.stat()
    return path.read_bytes(), found.st_mtime_ns, found.st_mode, found.st_ino, found.st_nlink


def lay(path: Path, data: bytes = DATA) -> Path:
    """Put a file where another program keeps it, read-only as that does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return path


def hub_layout(folder: Path, data: bytes = DATA) -> Path:
    """A model as huggingface_hub keeps it: a blob, and a link to it from a snapshot."""
    repo = folder / "models--o--r"
    blob = lay(repo / "blobs" / SHA256, data)
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / NAME).symlink_to(os.path.relpath(blob, snapshot))
    return blob


def taken_from(result: Result, path: Path) -> bool:
    """Whether it says that the bytes come from there."""
    return any(
        f"{how} {path}, sha256 verified" in result.err for how in ("copied from", "blocks shared with")
    )


PLACES: dict[str, tuple[str, Mapping[str, str]]] = {
    "hub": ("home/.cache/huggingface/hub", {}),
    "HF_HOME": ("hf/hub", {"HF_HOME": "hf"}),
    "HF_HUB_CACHE": ("cached", {"HF_HUB_CACHE": "cached"}),
    "XDG_CACHE_HOME": ("xdg/huggingface/hub", {"XDG_CACHE_HOME": "xdg"}),
    "ollama": ("home/.ollama/models", {}),
    "OLLAMA_MODELS": ("big disk/[ollama]", {"OLLAMA_MODELS": "big disk/[ollama]"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_taken_from_another_program(closed: Project, tmp_path: Path, place: str) -> None:
    """Issue 3.10: proven on the way, said, without a network; the other program's file stays as it was."""
    folder, env = PLACES[place]
    full = tmp_path / folder
    found = lay(full / "blobs" / f"sha256-{SHA256}") if "ollama" in folder else hub_layout(full)
    before = facts(found)
    result = closed.doit("download", env={name: str(tmp_path / value) for name, value in env.items()})
    assert result.status == 0, result.err
    assert taken_from(result, found), result.err
    assert target(closed).read_bytes() == DATA
    assert target(closed).stat().st_ino != found.stat().st_ino
    assert facts(found) == before
    assert sorted(os.listdir(target(closed).parent)) == [NAME, f"{NAME}.stamp.json"]
    assert closed.doit("download").err == "-- download:m\n"


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is missing")
def test_taken_from_a_real_cache_of_the_hubs_client(
    project: Project, hub: Hub, origin: FileServer, cdn: FileServer
) -> None:
    """Issue 3.10: as huggingface_hub itself has left it."""
    call = f"hf_hub_download('o/r', {NAME!r}, revision={COMMIT!r})"
    code = f"from huggingface_hub import hf_hub_download; print({call})"
    env = {**project.env, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    theirs = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert theirs.returncode == 0, theirs.stderr
    link = Path(theirs.stdout.strip())
    assert link.read_bytes() == DATA
    blob = link.resolve()
    assert (blob.name, blob.parent.name) == (SHA256, "blobs")
    before = facts(blob)
    origin.close()
    cdn.close()
    result = project.doit("download")
    assert result.status == 0, result.err
    assert taken_from(result, blob), result.err
    assert (target(project).read_bytes(), facts(blob)) == (DATA, before)


@pytest.mark.parametrize(
    ("form", "where"),
    [
        pytest.param("absolute", NAME, id="a folder of files"),
        pytest.param("relative", f"models/{SHA256[:16]}/{NAME}", id="a cache of this recipe"),
        pytest.param("~", f"blobs/sha256-{SHA256}", id="a copy of Ollama's"),
        pytest.param("absolute", f"models--o--r/blobs/{SHA256}", id="a copy of the Hub's"),
    ],
)
def test_a_place_that_the_catalogue_names(closed: Project, tmp_path: Path, form: str, where: str) -> None:
    """Issue 3.10: adopt_from, seen from models.yaml or from home; in any of the layouts that are known."""
    roots = {"absolute": tmp_path / "nas", "relative": closed.path / "nas", "~": home(closed) / "nas"}
    names = {"absolute": str(tmp_path / "nas"), "relative": "nas", "~": "~/nas"}
    found = lay(roots[form] / where)
    with FileServer() as gone:
        url = gone.url(f"/{NAME}")
    closed.catalogue({"m": closed.entry(url, DATA)}, adopt_from=[names[form]])
    result = closed.doit("download", cwd=tmp_path)
    assert result.status == 0, result.err
    assert taken_from(result, found), result.err
    assert target(closed).read_bytes() == DATA


def test_no_adopt_downloads(project: Project, hub: Hub, cdn: FileServer) -> None:
    """Issue 3.10: --no-adopt turns it off."""
    blob = hub_layout(home(project) / ".cache" / "huggingface" / "hub")
    before = facts(blob)
    result = project.doit("download", "--no-adopt")
    assert result.status == 0, result.err
    assert "from 127.0.0.1, sha256 verified" in result.err
    assert cdn.bytes_sent(hub.cdn_path) == len(DATA)
    assert (target(project).read_bytes(), facts(blob)) == (DATA, before)


@pytest.mark.parametrize("data", [WRONG, DATA[:-1]], ids=["other bytes", "too short"])
def test_a_damaged_blob_is_left_alone(project: Project, hub: Hub, cdn: FileServer, data: bytes) -> None:
    """Issue 3.10: the right bytes are downloaded; wrong ones are named, and stay where they are."""
    blob = hub_layout(home(project) / ".cache" / "huggingface" / "hub", data)
    before = facts(blob)
    result = project.doit("download")
    assert result.status == 0, result.err
    if data == WRONG:  # of another size it is seen without being read
        assert f"m: {blob} is not used: wrong SHA-256, expected: sha256:{SHA256}, got: sha256:" in result.err
    assert (target(project).read_bytes(), facts(blob)) == (DATA, before)
    assert cdn.bytes_sent(hub.cdn_path) == len(DATA)
    assert sorted(os.listdir(target(project).parent)) == [NAME, f"{NAME}.stamp.json"]


def test_a_second_place_stands_in_for_a_damaged_one(closed: Project, tmp_path: Path) -> None:
    """Issue 3.10: each place is looked at, still without a network."""
    hub_layout(home(closed) / ".cache" / "huggingface" / "hub", WRONG)
    found = lay(home(closed) / ".ollama" / "models" / "blobs" / f"sha256-{SHA256}")
    result = closed.doit("download")
    assert result.status == 0, result.err
    assert "wrong SHA-256" in result.err
    assert taken_from(result, found), result.err


def test_what_is_here_is_better_than_a_download_that_has_begun(project: Project, hub: Hub) -> None:
    """Issue 3.10: the partial is dropped, for it is of no use any more."""
    hub_layout(home(project) / ".cache" / "huggingface" / "hub")
    folder = target(project).parent
    folder.mkdir(parents=True)
    (folder / f"{NAME}.partial").write_bytes(b"x" * 1000)
    assert project.doit("download").status == 0
    assert sorted(os.listdir(folder)) == [NAME, f"{NAME}.stamp.json"]
    assert target(project).read_bytes() == DATA
