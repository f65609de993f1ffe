"""Bytes that are on this machine already: taken where they are right, left as they are in any case."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks.cache import space
from tasks.catalogue.artifact import Artifact
from tasks.errors import RecipeError
from tasks.system import files
from tasks.transfer import local_sources
from tasks.transfer.download import fetch

from tests.fakes.server import FileServer
from tests.support.world import (
    DATA,
    FILE,
    HALF,
    OTHER,
    SIZE,
    World,
    heard,
    is_whole,
    leave_partial,
    ranges,
    wanted,
)
from tests.transfer.test_partial import full_disk

SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    with heard(caplog, monkeypatch):
        yield caplog


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's home, as conftest.py sets it."""
    home = Path(os.path.expanduser("~"))
    assert home == tmp_path / "home"
    return home


def adopting(folder: Path, *sources: str, places: tuple[str, ...] = (), **more: Any) -> Artifact:
    return wanted(folder, *sources, **more)._replace(adopt_from=places)


def lay(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def facts(path: Path) -> tuple[Any, ...]:
    """What may not change of another program's file."""
    found = os.stat(path)
    return found.st_ino, found.st_mode, found.st_mtime_ns, found.st_size, found.st_nlink, path.read_bytes()


PLACES: list[Any] = [
    pytest.param(f".cache/huggingface/hub/models--org--m/blobs/{SHA256}", {}, (), id="Hub"),
    pytest.param(f"hf/hub/models--o--m/blobs/{SHA256}", {"HF_HOME": "~/hf"}, (), id="HF_HOME"),
    pytest.param(f"c/models--o--m/blobs/{SHA256}", {"HF_HUB_CACHE": "~/c"}, (), id="HF_HUB_CACHE"),
    pytest.param(f".ollama/models/blobs/sha256-{SHA256}", {}, (), id="Ollama"),
    pytest.param(f"o/blobs/sha256-{SHA256}", {"OLLAMA_MODELS": "~/o"}, (), id="OLLAMA_MODELS"),
    pytest.param("models/m.llamafile", {}, ("~/models",), id="a folder, by name"),
    pytest.param(f"share/models/{SHA256[:16]}/m.llamafile", {}, ("~/share",), id="another recipe's cache"),
    pytest.param(f"hub/models--a--b/blobs/{SHA256}", {}, ("~/hub",), id="another Hub cache"),
    pytest.param(f"[x]*?/blobs/sha256-{SHA256}", {}, ("~/[x]*?/",), id="a folder with glob's signs"),
]


@pytest.mark.parametrize(("place", "env", "folders"), PLACES)
def test_where_it_is_looked_for(
    server: FileServer,
    world: World,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
    place: str,
    env: dict[str, str],
    folders: tuple[str, ...],
) -> None:
    """R21: taken and proven, and not a byte over the network; what lies there is as it was."""
    if sys.platform == "win32" and "*" in place:
        pytest.skip("Windows has no such names")
    for name, text in env.items():
        monkeypatch.setenv(name, text.replace("~", str(home)))
    source = lay(home / place)
    source.chmod(0o400)
    before = facts(source)
    artifact = adopting(tmp_path, server.url(FILE), places=folders)
    stamp = fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert (stamp.source, stamp.sha256, stamp.stat.size) == (str(source), SHA256, SIZE)
    assert stamp.stat == files.stat(artifact.target)
    assert server.requests == []
    assert facts(source) == before
    assert os.stat(artifact.target).st_ino != before[0]
    assert str(source) in said.messages[-1]


def test_a_hub_snapshot_is_followed_to_its_blob(world: World, tmp_path: Path, home: Path) -> None:
    """R21: names there are symbolic links; the file itself comes, not the link."""
    hub = home / ".cache/huggingface/hub/models--org--m"
    blob = lay(hub / "blobs" / SHA256)
    snapshot = hub / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    try:
        (snapshot / "m.llamafile").symlink_to(Path("../../blobs") / SHA256)
    except OSError:
        pytest.skip("no symbolic links here")
    artifact = adopting(tmp_path, places=(str(snapshot),))
    assert len(list(local_sources.candidates(artifact))) == 1  # the same file by two names
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert not os.path.islink(artifact.target)
    assert (snapshot / "m.llamafile").is_symlink()
    blob.unlink()
    assert is_whole(artifact)


@pytest.mark.parametrize("why", ["not pinned", "turned off"])
def test_when_it_is_not_looked_for(
    server: FileServer, world: World, tmp_path: Path, home: Path, why: str
) -> None:
    """R21: without a digest nothing proves it; --no-adopt."""
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    lay(home / "models" / "m.llamafile")
    artifact = adopting(tmp_path, server.url(FILE), places=(f"{home}/models",), pinned=why != "not pinned")
    if why == "turned off":
        artifact = artifact._replace(adopt_from=None)
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert len(server.asked(FILE)) == 1


WRONG: list[Any] = [
    pytest.param(OTHER, "wrong SHA-256", id="other bytes"),
    pytest.param(DATA[:-1], "", id="too short"),
    pytest.param(DATA + b"x", "", id="too long"),
    pytest.param(b"", "", id="empty"),
    pytest.param(None, "", id="a directory"),
]


@pytest.mark.parametrize(("data", "says"), WRONG)
def test_what_is_not_it_costs_nothing(
    server: FileServer,
    world: World,
    tmp_path: Path,
    home: Path,
    said: pytest.LogCaptureFixture,
    data: bytes | None,
    says: str,
) -> None:
    """R18, R21: a wrong file elsewhere: not a byte of a download that has begun is lost, and it is named."""
    source = home / ".ollama/models/blobs" / f"sha256-{SHA256}"
    if data is None:
        source.mkdir(parents=True)
    else:
        lay(source, data)
    artifact = adopting(tmp_path, server.url(FILE))
    leave_partial(artifact, DATA[:HALF])
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert ranges(server) == [(HALF, None)]
    assert data is None or source.read_bytes() == data
    if says:
        assert f"{source} is not used: {says}" in said.text


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(server: FileServer, world: World, tmp_path: Path, home: Path) -> None:
    """R19: Ollama's own user keeps its files."""
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}").chmod(0)
    artifact = adopting(tmp_path, server.url(FILE))
    fetch(artifact, world.tools())
    assert is_whole(artifact)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="symbolic links")
def test_links_that_lead_nowhere(server: FileServer, world: World, tmp_path: Path, home: Path) -> None:
    """R19: a cache that was cleaned up by hand."""
    blobs = home / ".ollama/models/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"sha256-{SHA256}").symlink_to(blobs / "gone")
    loop = home / ".cache/huggingface/hub/models--o--m/blobs"
    loop.mkdir(parents=True)
    (loop / SHA256).symlink_to(loop / SHA256)
    artifact = adopting(tmp_path, server.url(FILE))
    fetch(artifact, world.tools())
    assert is_whole(artifact)


def test_the_next_place_is_tried(world: World, tmp_path: Path, home: Path) -> None:
    """R21: the Hub's file is wrong, Ollama's is right."""
    lay(home / ".cache/huggingface/hub/models--org--m/blobs" / SHA256, OTHER)
    right = lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    artifact = adopting(tmp_path)
    assert fetch(artifact, world.tools()).source == str(right)
    assert is_whole(artifact)


def test_a_partial_is_of_no_use_then(server: FileServer, world: World, tmp_path: Path, home: Path) -> None:
    """R21: preferred over the network, also where half is here."""
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    artifact = adopting(tmp_path, server.url(FILE))
    leave_partial(artifact, DATA[:HALF])
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert server.requests == []


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts a tmpfs")
def test_a_disk_without_room_for_a_copy_has_room_for_the_rest(
    server: FileServer, world: World, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R22: the download is nearly done; a copy of another program's file would not fit beside it."""
    monkeypatch.setattr(space, "SPACE_MARGIN", 0)
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    with full_disk(tmp_path / "small", "300k") as folder:
        artifact = adopting(folder, server.url(FILE))
        leave_partial(artifact, DATA[:180_000])
        fetch(artifact, world.tools())
        assert is_whole(artifact)


@pytest.mark.parametrize("source", ["adopted", "file URL"])
def test_a_copy_that_is_interrupted_leaves_nothing(
    server: FileServer, tmp_path: Path, home: Path, source: str
) -> None:
    """R20: Ctrl-C while it is read; the partial is as it was."""

    class Interrupted(World):
        def update(self, done: int, total: int | None, note: str = "") -> None:
            raise KeyboardInterrupt

    path = lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    artifact = adopting(tmp_path, path.as_uri() if source == "file URL" else server.url(FILE))
    if source == "file URL":
        artifact = artifact._replace(adopt_from=None)
    leave_partial(artifact, DATA[:HALF])
    before = sorted(os.listdir(tmp_path / "models"))
    with pytest.raises(KeyboardInterrupt):
        fetch(artifact, Interrupted().tools())
    assert sorted(os.listdir(tmp_path / "models")) == before
    assert Path(artifact.partial).read_bytes() == DATA[:HALF]


def test_two_that_copy_at_once_both_succeed(tmp_path: Path, home: Path) -> None:
    """R19, R20: where file locks lie, a second process copies while the first does."""
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}", DATA)
    artifact = adopting(tmp_path)
    halfway, goes_on = threading.Event(), threading.Event()

    class Held(World):
        def update(self, done: int, total: int | None, note: str = "") -> None:
            halfway.set()
            assert goes_on.wait(60)

    errors: list[BaseException] = []

    def first() -> None:
        try:
            fetch(artifact, Held().tools())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert halfway.wait(60)
    try:
        fetch(artifact, World().tools())
        assert Path(artifact.target).read_bytes() == DATA
    finally:
        goes_on.set()
        thread.join(60)
    assert errors == []
    assert is_whole(artifact)


def test_a_target_that_cannot_be_written(tmp_path: Path, world: World, home: Path) -> None:
    """R19: the place and the remedy; not the candidate is to blame."""
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    (tmp_path / "models").write_text("a file")
    with pytest.raises(RecipeError, match="cannot write") as caught:
        fetch(adopting(tmp_path), world.tools())
    assert "LLAMAFILE_CACHE" in str(caught.value)


# Shared blocks


@pytest.fixture(params=["btrfs", "xfs"])
def reflinks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system that shares blocks between files, in an image."""
    make = shutil.which(f"mkfs.{request.param}")
    if sys.platform != "linux" or os.getuid() != 0 or make is None:
        pytest.skip(f"needs Linux, root and mkfs.{request.param}")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    with open(image, "wb") as file:
        file.truncate(400 * 1024**2)
    made = subprocess.run([make, "-q", str(image)], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"{make} does not work here: {made.stderr.decode().strip()}")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"may not mount here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_blocks_are_shared(reflinks: Path, world: World, said: pytest.LogCaptureFixture) -> None:
    """R21: the same disk twice is not the same bytes twice; later changes there do not reach us."""
    data = DATA * 50
    source = lay(reflinks / "ollama" / "m.llamafile", data)
    os.sync()
    before, free = facts(source), shutil.disk_usage(reflinks).free
    artifact = wanted(reflinks, data=data, size=len(data))
    artifact = artifact._replace(adopt_from=(str(source.parent),))
    fetch(artifact, world.tools())
    os.sync()
    assert is_whole(artifact, data)
    assert facts(source) == before
    assert free - shutil.disk_usage(reflinks).free < len(data) / 2
    assert "shared with" in said.messages[-1]
    with open(source, "r+b") as file:
        file.write(b"changed")
    assert is_whole(artifact, data)


def test_wrong_bytes_that_were_cloned_are_removed(reflinks: Path, world: World, server: FileServer) -> None:
    """R20: proven after the clone, and before the name."""
    source = lay(reflinks / "ollama" / "m.llamafile", OTHER)
    artifact = adopting(reflinks, server.url(FILE), places=(str(source.parent),))
    fetch(artifact, world.tools())
    assert is_whole(artifact)
    assert source.read_bytes() == OTHER


def test_progress_of_a_copy(tmp_path: Path, home: Path, said: pytest.LogCaptureFixture) -> None:
    """R7: a copy of 40 GB takes its time, too."""
    lay(home / ".ollama/models/blobs" / f"sha256-{SHA256}")
    world = World()
    fetch(adopting(tmp_path), world.tools())
    assert world.shown[-1] == (SIZE, SIZE)
    assert "copied from" in said.messages[-1]
