"""What lies in the cache under our names and is not ours: nothing is followed or written elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tasks.system.process_identity import this_boot

from tests.fakes import llamafile
from tests.fakes.server import FileServer, Reply, Request
from tests.support.partials import claim, leave_partial, wait_until
from tests.support.project import Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")
NAME, PATH = "m.gguf", "/m.gguf"
DATA = llamafile.gguf(300_000)
PRECIOUS = "precious\n"
BESIDE = ("", ".partial", ".partial.json", ".partial.live")
MIB = 1024**2


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[PATH] = DATA
        yield server


@pytest.fixture
def model(project: Project, server: FileServer) -> Project:
    project.catalogue({"m": project.entry(server.url(PATH), DATA, engine="embedded")})
    return project


@pytest.fixture
def precious(project: Project) -> Path:
    """A private file of the user's, outside the cache."""
    path = project.cache.parent / "home" / "precious"
    path.write_text(PRECIOUS)
    path.chmod(0o600)
    return path


def is_as_it_was(precious: Path) -> bool:
    return (precious.read_text(), precious.stat().st_mode & 0o777) == (PRECIOUS, 0o600)


def target(project: Project) -> Path:
    path = project.target(DATA, NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_whole(project: Project) -> bool:
    """The model is here, a file of its own, and nothing but its stamp is beside it."""
    path = target(project)
    own = path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
    names = sorted(os.listdir(path.parent))
    return own and path.read_bytes() == DATA and names == [NAME, f"{NAME}.stamp.json"]


def symlink(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def hard_link(path: Path, precious: Path) -> None:
    os.link(precious, path)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("kind", [symlink, hard_link, pipe])
@pytest.mark.parametrize("end", BESIDE)
def test_a_link_beside_the_target(
    model: Project, precious: Path, end: str, kind: Callable[[Path, Path], None]
) -> None:
    """Finding 13: it is replaced, and what it leads to is neither written nor made readable."""
    kind(Path(f"{target(model)}{end}"), precious)
    result = model.doit("download")
    assert result.status == 0, result.err
    assert is_whole(model)
    assert is_as_it_was(precious)


@pytest.mark.parametrize("kind", [symlink, hard_link])
def test_a_link_that_claims_to_be_a_partial(
    model: Project, server: FileServer, precious: Path, kind: Callable[[Path, Path], None]
) -> None:
    """Finding 13: its bytes do not count, whatever the journal beside it says."""
    leave_partial(target(model), DATA, 100_000)
    partial = Path(f"{target(model)}.partial")
    shutil.copy(partial, precious)
    before = precious.read_bytes()
    partial.unlink()
    kind(partial, precious)
    assert claim(target(model), DATA) == 0
    assert model.doit("download").status == 0
    assert is_whole(model)
    assert precious.read_bytes() == before
    assert server.asked(PATH)[0].range in (None, (0, None))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_partial_of_another_user(model: Project, server: FileServer) -> None:
    """Finding 13: another user could go on writing it: it is begun anew, in a file of ours."""
    leave_partial(target(model), DATA, 100_000)
    partial = Path(f"{target(model)}.partial")
    os.chown(partial, 1001, 1001)
    assert model.doit("download").status == 0
    assert is_whole(model)
    assert target(model).stat().st_uid == os.geteuid()
    assert server.bytes_sent(PATH) == len(DATA)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_whole_folder_of_another_user(model: Project, server: FileServer) -> None:
    """A volume whose files all belong to somebody else, as containers and NFS have it, goes on."""
    leave_partial(target(model), DATA, 100_000)
    for path in (target(model).parent, *target(model).parent.iterdir()):
        os.chown(path, 1001, 1001)
    assert model.doit("download").status == 0
    assert is_whole(model)
    assert server.asked(PATH)[0].range == (100_000, None)


def test_a_partial_of_ours_goes_on(model: Project, server: FileServer) -> None:
    """R18: all this costs no byte of what came."""
    leave_partial(target(model), DATA, 100_000)
    result = model.doit("download")
    assert "was here already, sha256 verified" in result.err
    assert server.asked(PATH)[0].range == (100_000, None)


@pytest.mark.parametrize("folder", ["models", "models/digest", "locks"])
def test_a_folder_that_is_a_link(model: Project, server: FileServer, folder: str) -> None:
    """Finding 13: below the cache no link is followed for writing; the error says which one it is."""
    link = model.cache / folder.replace("digest", target(model).parent.name)
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = model.cache.parent / "elsewhere"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    result = model.doit("download")
    assert (result.status, server.requests, list(elsewhere.iterdir())) == (1, [], [])
    assert f"ERROR: {link} is a symbolic link: nothing is written through it" in result.err


def test_the_catalogue_folder_is_a_link(model: Project) -> None:
    """Finding 13: nothing is written or removed behind it; that costs time and no more."""
    elsewhere = model.cache.parent / "elsewhere"
    elsewhere.mkdir()
    for number in range(12):
        (elsewhere / f"{number}.json").write_text("{}")
    model.cache.mkdir(exist_ok=True)
    for name in ("catalogue", "roots"):
        (model.cache / name).symlink_to(elsewhere)
    assert model.doit("download").status == 0
    assert len(list(elsewhere.iterdir())) == 12


def test_the_cache_itself_may_be_a_link(model: Project) -> None:
    """A cache on another disk, at its usual place."""
    disk = model.cache.parent / "disk"
    disk.mkdir()
    shutil.rmtree(model.cache, ignore_errors=True)
    model.cache.symlink_to(disk)
    assert model.doit("download").status == 0
    assert is_whole(model)


@pytest.mark.parametrize("kind", [symlink, hard_link])
def test_a_lock_file_that_is_a_link(
    model: Project, precious: Path, kind: Callable[[Path, Path], None]
) -> None:
    """Finding 13: opening a lock empties it."""
    assert model.doit("download").status == 0
    for lock in (model.cache / "locks").iterdir():
        lock.unlink()
        kind(lock, precious)
    target(model).unlink()
    assert model.doit("download").status == 0
    assert is_whole(model)
    assert is_as_it_was(precious)


# Files of the cache that hold something else than they should

DEEP = "[" * 8000
HUGE = f'{{"x": "{"y" * 2 * MIB}"}}'
JUNK = {"deep": DEEP, "huge": HUGE, "null": "null", "list": "[1]", "number": "9" * 5000, "empty": ""}


def a_root(path: object) -> str:
    return json.dumps({"path": path, "machine": "m"})


@pytest.mark.parametrize(
    "text",
    [
        *(pytest.param(text, id=name) for name, text in JUNK.items()),
        pytest.param(a_root("/a\0b"), id="NUL"),
        pytest.param(a_root("/\ud800"), id="surrogate"),
        pytest.param(a_root(["/a"]), id="a list"),
        pytest.param(a_root({}), id="an object"),
        pytest.param(a_root(1), id="1"),
        pytest.param(a_root("models.yaml"), id="relative"),
        pytest.param(None, id="a pipe"),
    ],
)
@pytest.mark.parametrize("folder", ["roots", "stamps", "catalogue"])
def test_records_that_are_not_records(model: Project, text: str | None, folder: str) -> None:
    """Finding 28: they count for nothing: no traceback, no waiting."""
    assert model.doit("download").status == 0
    name = f"{'a' * (64 if folder == 'catalogue' else 16)}.json"
    path = model.cache / folder / name
    path.parent.mkdir(exist_ok=True)
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text)
    result = model.doit("prune", "--dry-run")
    assert result.status == 0, result.err


def test_a_stamp_whose_source_cannot_be_a_path(model: Project) -> None:
    """Finding 28: a stamp of a user's file says where that lies."""
    assert model.doit("download").status == 0
    path = model.cache / "stamps" / f"{'a' * 16}.json"
    path.parent.mkdir(exist_ok=True)
    for source in ("/a\0b", "/\ud800", 1, None, ["x"]):
        path.write_text(json.dumps({"size": 1, "mtime_ns": 1, "sha256": None, "source": source}))
        result = model.doit("prune", "--dry-run")
        assert result.status == 0, result.err


def test_a_root_whose_catalogue_is_a_pipe(model: Project) -> None:
    """Finding 28: it is not waited for; the error says which record to delete."""
    assert model.doit("download").status == 0
    pipe = model.cache.parent / "pipe.yaml"
    os.mkfifo(pipe)
    (model.cache / "roots" / f"{'a' * 16}.json").write_text(a_root(str(pipe)))
    result = model.doit("prune", "--dry-run")
    assert result.status == 1
    assert f"{pipe} is not a regular file" in result.err


@pytest.mark.parametrize("text", [*JUNK.values(), None], ids=[*JUNK, "a pipe"])
@pytest.mark.parametrize("end", [".partial.json", ".partial.live", ".stamp.json"])
def test_files_beside_a_target_that_are_junk(model: Project, end: str, text: str | None) -> None:
    """Finding 28: whatever is in them, and with a right checksum too."""
    target(model).write_bytes(DATA) if end == ".stamp.json" else leave_partial(target(model), DATA, 100_000)
    path = Path(f"{target(model)}{end}")
    path.unlink(missing_ok=True)
    if text is None:
        os.mkfifo(path)
    elif end == ".partial.live":
        path.write_bytes(b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode()))
    else:
        path.write_text(text)
    for verb in ("catalogue", "plan", "download"):
        result = model.doit(verb)
        assert result.status == 0, result.err
    assert is_whole(model)


def test_the_tag_of_the_cache_is_a_pipe(model: Project) -> None:
    """Finding 28: `doit prune` looks whether the directory is a cache of ours."""
    assert model.doit("download").status == 0
    (model.cache / "README.txt").unlink()
    os.mkfifo(model.cache / "README.txt")
    result = model.doit("prune")
    assert result.status == 1
    assert "is not marked as a cache of this recipe" in result.err


# Local sources


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "zero", "link to zero", "folder"])
def test_a_source_that_is_not_a_file(project: Project, kind: str, pinned: bool) -> None:
    """Finding 32: a pipe is not waited for, and nothing is copied without end."""
    source = project.cache.parent / "x.gguf"
    if kind == "pipe":
        os.mkfifo(source)
    elif kind == "folder":
        source.mkdir()
    elif kind == "link to zero":
        source.symlink_to("/dev/zero")
    url = "file:///dev/zero" if kind == "zero" else str(source)
    if kind == "zero":
        project.catalogue({"m": project.entry("file:///dev/zero", DATA if pinned else None, engine="self")})
    else:
        project.catalogue({"m": project.entry(url, DATA if pinned else None, engine="embedded")})
    result = project.doit("download")
    assert result.status == 1
    assert ("Is a directory" if kind == "folder" else "it is not a regular file") in result.err
    assert sum(path.stat().st_size for path in project.cache.rglob("models/*/*")) == 0


def test_a_pipe_before_a_mirror(project: Project, server: FileServer) -> None:
    """Finding 32: the next source is tried."""
    os.mkfifo(project.cache.parent / "x.gguf")
    model = project.entry(str(project.cache.parent / "x.gguf"), DATA, mirrors=[server.url(PATH)])
    project.catalogue({"m": {**model, "engine": "embedded"}})
    assert project.doit("download").status == 0
    assert project.target(DATA, "x.gguf").read_bytes() == DATA


def test_a_target_of_the_user_that_is_not_a_file(project: Project, server: FileServer) -> None:
    """Finding 13: a download does not replace a pipe or a device by a file."""
    own = project.path / "own.gguf"
    os.mkfifo(own)
    digest = hashlib.sha256(DATA).hexdigest()
    result = project.doit(
        "download", "--llamafile", "own.gguf", "--llamafile-url", server.url(PATH), "--sha256", digest
    )
    assert (result.status, server.requests) == (1, [])
    assert f"{own} is not a regular file, and is not replaced" in result.err
    assert own.is_fifo()


# Space


class Promise:
    """A file of 40 GB, of which 4096 bytes come."""

    def answer(self, request: Request, data: bytes | None) -> Reply:
        body = llamafile.gguf(4096)[:4096]
        return Reply(200, {"Content-Length": str(40 * 10**9)}, body, cut=len(body))


def taken(project: Project) -> int:
    """Bytes of the disk that the files of the model have."""
    return sum(path.stat().st_blocks * 512 for path in project.cache.rglob("models/*/*"))


def test_what_a_server_says_is_not_reserved(project: Project, server: FileServer) -> None:
    """Finding 15: nobody but the server says how long an unpinned file is."""
    if shutil.disk_usage(project.path).free < 41 * 10**9:
        pytest.skip("needs 41 GB that are free")
    server.always(PATH, Promise())
    project.catalogue({"m": {"title": "m", "license": "MIT", "url": server.url(PATH), "engine": "embedded"}})
    assert project.doit("download", timeout=120).status == 1
    assert taken(project) < MIB


def test_what_did_not_come_is_given_back(project: Project, server: FileServer) -> None:
    """Finding 15: the room of a pinned file is reserved while it is fetched, not afterwards."""
    data = llamafile.gguf(64 * MIB)
    server.files[PATH] = data
    project.catalogue({"m": project.entry(server.url(PATH), data, engine="embedded")})
    path = project.target(data, NAME)
    partial = Path(f"{path}.partial")
    server.set_rate(PATH, 4_000_000)
    with project.start("download") as running:
        wait_until(lambda: claim(path, data) > 0, "a claim")
        most = partial.stat().st_blocks * 512
        running.send(15)
        assert running.finish().status == 143
    kept = claim(path, data)
    assert kept > 0
    assert partial.stat().st_blocks * 512 <= kept + MIB
    if sys.platform == "linux":
        assert most >= len(data), "this file system takes no room in advance"
    server.set_rate(PATH, None)
    server.clear(PATH)
    assert project.doit("download").status == 0
    assert path.read_bytes() == data
    # connections that share a piece leave up to a socket's buffer unread
    assert sum(one.sent for one in server.asked(PATH)) <= len(data) + 8 * MIB


# Containers

IN_CONTAINER = """
set -e
mount --make-rprivate /
mkdir -p "$PLACE"
mount --bind "$SHARED" "$PLACE"
export LLAMAFILE_CACHE="$PLACE"
exec "$DOIT" download
"""


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="makes namespaces")
def test_two_containers_with_one_volume(model: Project, server: FileServer, tmp_path: Path) -> None:
    """Finding 31: at different paths, with pids of their own: the bytes cross the network once."""
    shared = tmp_path / "shared"
    shared.mkdir()
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "sh", "-c"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not make namespaces here")
    server.set_rate(PATH, 20_000, shared=True)
    waits = "another process is downloading m"
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    begun: list[subprocess.Popen[bytes]] = []
    try:
        for name, log in zip(("one", "two/deeper"), logs, strict=True):
            env = {
                **model.env,
                "SHARED": str(shared),
                "PLACE": str(tmp_path / name),
                "DOIT": model.doit_program,
            }
            with log.open("wb") as out:
                begun.append(subprocess.Popen([*command, IN_CONTAINER], cwd=model.path, env=env, stderr=out))
            wait_until(lambda: server.bytes_sent(PATH) > 20_000, "the first has begun")
        wait_until(lambda: waits in logs[1].read_text(), "the second waits")
        server.set_rate(PATH, None)
        assert [process.wait(120) for process in begun] == [0, 0], [log.read_text() for log in logs]
    finally:
        for process in begun:
            process.kill()
    assert server.bytes_sent(PATH) == len(DATA)
    assert [log.read_text().count(waits) for log in logs] == [0, 1]
    path = shared / target(model).relative_to(model.cache)
    assert path.read_bytes() == DATA


def test_a_partial_of_the_version_before_goes_on(model: Project, server: FileServer) -> None:
    """A journal whose owner has no namespace of pids, as earlier versions wrote it."""
    leave_partial(target(model), DATA, 100_000)
    journal = Path(f"{target(model)}.partial.json")
    said = json.loads(journal.read_text())
    journal.write_text(json.dumps({**said, "owner": ["elsewhere", this_boot(), 10**6 * 3, 1.0]}))
    assert model.doit("download").status == 0
    assert server.asked(PATH)[0].range == (100_000, None)
