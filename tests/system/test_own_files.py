"""Check what is at a path of the cache before writing, reading or removing it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tasks.errors import RecipeError
from tasks.system import own_files

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, pipes and devices of POSIX")


def opened(path: Path) -> bytes:
    """What a file that was opened for writing has; it is one of ours then."""
    handle = own_files.open_own(str(path))
    try:
        found = os.fstat(handle)
        assert (stat.S_ISREG(found.st_mode), found.st_nlink) == (True, 1)
        return os.read(handle, 100)
    finally:
        os.close(handle)


def test_what_is_ours_stays(tmp_path: Path) -> None:
    """A file of ours keeps its bytes; a missing one is made."""
    (tmp_path / "a").write_bytes(b"abc")
    assert (opened(tmp_path / "a"), opened(tmp_path / "b")) == (b"abc", b"")


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "pipe", "socket"])
def test_what_is_not_ours_is_replaced(tmp_path: Path, kind: str) -> None:
    """Finding 13: the name is taken over, and nothing behind it is touched."""
    path, precious = tmp_path / "a", tmp_path / "precious"
    precious.write_bytes(b"precious")
    if kind == "symlink":
        path.symlink_to(precious)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "hard link":
        os.link(precious, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as one:
            here = os.getcwd()
            os.chdir(tmp_path)  # a socket's path is short
            one.bind("a")
            os.chdir(here)
    assert opened(path) == b""
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    """What cannot be brought back is not removed."""
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a device or a folder"):
        own_files.open_own(str(tmp_path / "a"))
    assert (tmp_path / "a").is_dir()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Never the system's own devices: the test makes one of its own."""
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:
        pytest.skip("may not make devices here")
    with pytest.raises(OSError, match="a device or a folder"):
        own_files.open_own(str(device))
    (tmp_path / "locks").mkdir()
    device.rename(tmp_path / "locks" / "a.lock")
    own_files.lock_file(str(tmp_path), "a.lock")
    assert stat.S_ISCHR((tmp_path / "locks" / "a.lock").stat().st_mode)


@pytest.mark.parametrize(("length", "expected"), [(0, b""), (9, b"x" * 9), (10, b"x" * 10), (11, None)])
def test_reading_has_a_limit(tmp_path: Path, length: int, expected: bytes | None) -> None:
    """Finding 28: whatever lies there, no more than the limit is read."""
    (tmp_path / "a").write_bytes(b"x" * length)
    assert own_files.read_most(str(tmp_path / "a"), 10) == expected


def test_what_is_not_read(tmp_path: Path) -> None:
    """Finding 28: no pipe, no device, no folder, also behind a link; and no path that cannot be one."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    paths = [tmp_path, tmp_path / "pipe", tmp_path / "link", "/dev/zero", "a\0b", "\ud800", tmp_path / "no"]
    assert [own_files.read_most(str(path), 10) for path in paths] == [None] * len(paths)


def test_links_on_the_way(tmp_path: Path) -> None:
    """Finding 13: below the cache; the cache itself may be one, and what is elsewhere is the user's."""
    cache, disk = tmp_path / "cache", tmp_path / "disk"
    (disk / "models" / "a").mkdir(parents=True)
    cache.symlink_to(disk)
    (disk / "locks").symlink_to(tmp_path)
    (disk / "models" / "b").symlink_to(tmp_path)
    found = [
        own_files.link_inside(str(cache), f"{cache}/{name}") for name in ("x", "models/a/x", "models/no/x")
    ]
    assert found == ["", "", ""]
    assert own_files.link_inside(str(cache), f"{cache}/models/b/x") == f"{cache}/models/b"
    assert own_files.link_inside(str(cache), f"{tmp_path}/elsewhere/x") == ""
    with pytest.raises(RecipeError, match=r"locks is a symbolic link: nothing is written through it"):
        own_files.lock_file(str(cache), "a.lock")


def test_temporary_files(tmp_path: Path) -> None:
    """Finding 32: they are found by the file that they are for, and by nothing else."""
    path = str(tmp_path / ("m" * 240))
    one, two = (own_files.temporary_path(path, ".tmp") for _ in range(2))
    assert one != two
    for temporary in (one, two, own_files.temporary_path(f"{path}x", ".tmp")):
        os.close(own_files.create(temporary))
    assert own_files.temporaries(path, ".tmp") == sorted([one, two])
    assert own_files.temporaries(path, ".copy") == []
    with pytest.raises(FileExistsError):
        own_files.create(one)


RACE = """
import os, sys
from tasks.system import own_files as own
path = sys.argv[1]
for turn in range(300):
    try:
        os.close(own.open_own(path))
    except OSError:
        pass
"""


def test_links_that_come_and_go(tmp_path: Path) -> None:
    """Finding 13: somebody puts a link there all the time: what it leads to is never opened for writing."""
    path, precious = tmp_path / "a", tmp_path / "precious"
    precious.write_bytes(b"precious")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen([sys.executable, "-c", RACE, str(path)], env=env) as process:
        while process.poll() is None:
            (tmp_path / "next").symlink_to(precious)
            os.replace(tmp_path / "next", path)
    assert process.returncode == 0
    assert precious.read_bytes() == b"precious"
