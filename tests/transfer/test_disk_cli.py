"""Disks that are too small, fill up, or become read-only in the middle: real mounts, so Linux and root."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer, NoLength
from tests.support.partials import claim, wait_until
from tests.support.project import Project

MIB = 1024**2
NAME = "m.llamafile"
PATH = f"/{NAME}"
DATA = noise(b"disk", 24 * MIB)
RATE = 8_000_000  # bytes a second: time to do something in the middle

linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts file systems as Linux does")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[PATH] = DATA
        yield server


@pytest.fixture
def model(project: Project, server: FileServer) -> Project:
    """A project whose only model is DATA."""
    project.catalogue({"m": project.entry(server.url(PATH), DATA)})
    return project


class Disk:
    """A file system of its own, mounted as a project's cache."""

    def __init__(self, project: Project, folder: Path, *options: str) -> None:
        self.path, self._options = folder / "disk", options
        self.path.mkdir()
        self.mount()
        project.cache = self.path
        project.env["LLAMAFILE_CACHE"] = str(self.path)

    def mount(self) -> None:
        done = subprocess.run(["mount", *self._options, str(self.path)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount a file system here: {done.stderr.decode().strip()}")

    def mount_copy(self, image: Path) -> None:
        """Mount a copy of this image instead of it.

        A mount namespace of another test may hold the first file system; to mount the image again
        would then show it in the state that it is in.
        """
        self.umount()
        copy = image.with_suffix(".copy")
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True, timeout=60)
        self._options = (*self._options[:-1], str(copy))
        self.mount()

    def umount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True, timeout=30)

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.path)], check=True, timeout=30)

    def fill(self) -> Path:
        """Take every byte that is left; the file that has them."""
        hog = self.path / "hog"
        with hog.open("wb", buffering=0) as file:
            for size in (MIB, 4096):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass
        return hog


@pytest.fixture
def tmpfs(model: Project, tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """Make a tmpfs of this size the cache."""
    disks: list[Disk] = []

    def make(size: str) -> Disk:
        disks.append(Disk(model, tmp_path, "-t", "tmpfs", "-o", f"size={size}", "none"))
        return disks[0]

    yield make
    for disk in disks:
        disk.umount()


@pytest.fixture
def ext4(model: Project, tmp_path: Path) -> Iterator[Disk]:
    """An ext4 of 160 MiB as the cache."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(160 * MIB)
    if subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, check=False).returncode:
        pytest.skip("no mkfs.ext4 here")
    disk = Disk(model, tmp_path, "-o", "loop", str(image))
    yield disk
    disk.umount()


def wait_for_claim(project: Project, more_than: int = 0) -> int:
    """Wait until the next run would keep something; how much."""
    wait_until(lambda: kept(project) > more_than, f"a claim of more than {more_than} bytes")
    return kept(project)


def kept(project: Project) -> int:
    """Bytes that the next run will not fetch again."""
    return claim(project.target(DATA, NAME), DATA)


def megabytes(name: str, text: str) -> float:
    """The number of a line `name: 5.23 MB` of an error."""
    found = re.search(rf"^  {name}: ([\d.]+) MB", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def goes_on(project: Project, server: FileServer, have: int) -> None:
    """The same command ends well, and asks only for what is not claimed."""
    server.set_rate(PATH, None)
    result = project.doit("download")
    assert result.status == 0, result.err
    assert "was here already, sha256 verified" in result.err
    assert server.asked(PATH)[-1].range == (have, None)
    target = project.target(DATA, NAME)
    assert target.read_bytes() == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == [NAME, f"{NAME}.stamp.json"]


@linux
def test_too_small_from_the_start(model: Project, server: FileServer, tmpfs: Callable[[str], Disk]) -> None:
    """Issue 3.7: what it needs, what is missing, where; nothing is asked of the server, nothing is taken."""
    tmpfs("50m")
    refused = model.doit("download")
    assert refused.status == 1
    assert "ERROR: cannot work: the disk has 52.4 MB free: " in refused.err
    result = model.doit("download", "--force")
    assert result.status == 1
    assert "ERROR: m does not fit on the disk" in result.err
    [missing] = re.findall(r"missing: (.*)", result.err)
    assert f"{missing} are missing for 25.2 MB and 67.1 MB that stay free (in {model.cache})" in refused.err
    assert megabytes("needs", result.err) == 25.2
    assert megabytes("missing", result.err) == pytest.approx(25.2 + 67.1 - 52.4, abs=0.2)
    assert f"in: {model.target(DATA, NAME).parent}" in result.err
    assert "fix: free some space, or set LLAMAFILE_CACHE to another disk" in result.err
    assert server.requests == []
    assert not list(model.target(DATA, NAME).parent.iterdir())


@linux
def test_filled_up_in_the_middle(model: Project, server: FileServer, tmpfs: Callable[[str], Disk]) -> None:
    """Issue 3.7: nobody knew the size; what came is kept and said, and the next run goes on."""
    disk = tmpfs("100m")
    server.set_rate(PATH, RATE)
    server.always(PATH, NoLength())
    entry = model.entry(server.url(PATH), DATA)
    del entry["size"]
    model.catalogue({"m": entry})
    with model.start("download") as running:
        wait_for_claim(model)
        hog = disk.fill()
        full = running.finish()
    have = kept(model)
    assert (full.status, have > 0) == (1, True)
    assert "ERROR: m: the disk is full" in full.err
    assert megabytes("kept", full.err) == pytest.approx(have / 1e6, abs=0.06)
    assert f"in: {model.target(DATA, NAME).parent}" in full.err
    assert "fix: free some space and run it again" in full.err
    again = model.doit("download")
    assert (again.status, kept(model)) == (1, have)
    assert "ERROR: m: the disk is full" in again.err
    hog.unlink()
    goes_on(model, server, have)


@linux
def test_filled_up_when_the_room_was_taken(
    model: Project, server: FileServer, tmpfs: Callable[[str], Disk]
) -> None:
    """Issue 3.7: the rest of the file has its room; at most the journal's few kB are missing."""
    disk = tmpfs("100m")
    server.set_rate(PATH, RATE)
    with model.start("download") as running:
        wait_for_claim(model)
        taken = model.target(DATA, NAME).with_name(f"{NAME}.partial").stat().st_blocks * 512
        assert taken >= len(DATA), "this file system takes no room in advance"
        hog = disk.fill()
        full = running.finish()
    if full.status == 0:
        assert model.target(DATA, NAME).read_bytes() == DATA
        return
    assert "ERROR: m: the disk is full" in full.err
    have = kept(model)
    hog.unlink()
    goes_on(model, server, have)
    missing = re.search(r"missing: ([\d.]+) MB", full.err)
    assert not missing or float(missing[1]) < 1, full.err


@linux
def test_read_only_before_it_begins(model: Project, server: FileServer, tmpfs: Callable[[str], Disk]) -> None:
    """Issue 3.7: a cache that has a partial and cannot be written any more; later it goes on."""
    disk = tmpfs("100m")
    server.set_rate(PATH, RATE)
    with model.start("download") as running:
        wait_for_claim(model)
        running.send(15)
        assert running.finish().status == 143
    have = kept(model)
    disk.remount("ro")
    asked = len(server.requests)
    refused = model.doit("download")
    assert refused.status == 1
    assert "Read-only file system" in refused.err
    assert "LLAMAFILE_CACHE" in refused.err
    assert (len(server.requests), kept(model)) == (asked, have)
    disk.remount("rw")
    goes_on(model, server, have)


@linux
def test_read_only_in_the_middle(model: Project, server: FileServer, ext4: Disk, tmp_path: Path) -> None:
    """Issue 3.7: as ext4 becomes after an error of the disk; the partial is kept."""
    server.set_rate(PATH, RATE)
    with model.start("download") as running:
        wait_for_claim(model, 2 * RATE)  # what came in the first of two seconds is on the disk
        ext4.remount("abort")
        failed = running.finish()
    assert failed.status == 1
    assert "ERROR: m: cannot write: Read-only file system" in failed.err
    assert "fix: set LLAMAFILE_CACHE to another directory" in failed.err
    ext4.mount_copy(tmp_path / "image")
    have = kept(model)
    assert have > RATE // 2
    goes_on(model, server, have)
