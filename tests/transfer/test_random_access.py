"""One file, many threads, any offset: the same through POSIX calls and without them."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.transfer.random_access import RandomAccessFile, _Positioned, open_file

from tests.support.world import without_posix

DATA = hashlib.shake_128(b"random access").digest(300_000)
posix = pytest.mark.skipif(os.name != "posix", reason="limits and mounts of POSIX")


@pytest.fixture(params=["posix", "windows"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which calls `os` has."""
    if request.param == "windows":
        without_posix(monkeypatch)
    elif not hasattr(os, "pwrite"):
        pytest.skip("this system has no pwrite")
    return str(request.param)


@pytest.fixture
def file(tmp_path: Path, system: str) -> Iterator[RandomAccessFile]:
    file = open_file(str(tmp_path / "file"))
    yield file
    file.close()


def read(file: RandomAccessFile, offset: int, length: int) -> bytes:
    view = memoryview(bytearray(length))
    return bytes(view[: file.read_into(offset, view)])


def test_which_one_is_used(file: RandomAccessFile, system: str) -> None:
    """R28: what follows tests both."""
    assert type(file).__name__ == {"posix": "_Positioned", "windows": "_Seeking"}[system]


def test_written_is_read(file: RandomAccessFile, tmp_path: Path) -> None:
    """R18: at any offset, behind a hole too, and short only at the end."""
    file.write(1000, memoryview(DATA[1000:2000]))
    file.write(100, memoryview(DATA[100:1000]))
    assert read(file, 100, 1900) == DATA[100:2000]
    assert read(file, 0, 100) == bytes(100)
    assert read(file, 1990, 500) == DATA[1990:2000]
    assert read(file, 5000, 10) == b""
    file.write(0, memoryview(b""))
    file.sync()
    assert (tmp_path / "file").read_bytes() == bytes(100) + DATA[100:2000]


def test_what_is_there_stays(tmp_path: Path, system: str) -> None:
    """R18: opening cuts nothing off."""
    (tmp_path / "file").write_bytes(DATA)
    file = open_file(str(tmp_path / "file"))
    file.write(5, memoryview(b"xy"))
    file.close()
    assert (tmp_path / "file").read_bytes() == DATA[:5] + b"xy" + DATA[7:]


@pytest.mark.parametrize("size", [0, 10, 300_000, 400_000])
def test_truncate(file: RandomAccessFile, tmp_path: Path, size: int) -> None:
    """R20: cut, or extended by zeros."""
    file.write(0, memoryview(DATA))
    file.truncate(size)
    file.close()
    assert (tmp_path / "file").read_bytes() == (DATA + bytes(100_000))[:size]


def test_offsets_above_4_gib(file: RandomAccessFile, tmp_path: Path) -> None:
    """R22: models are larger than 32 bits count."""
    at = 5 * 1024**3
    try:
        file.write(at, memoryview(DATA[:1000]))
    except OSError as error:
        pytest.skip(f"no sparse file of this size here: {error}")
    assert read(file, at, 1000) == DATA[:1000]
    assert os.path.getsize(tmp_path / "file") == at + 1000
    file.truncate(0)


def test_threads_write_and_read_at_once(file: RandomAccessFile, tmp_path: Path) -> None:
    """R18: nobody's offset is another one's."""
    blocks = [(i, i + 500) for i in range(0, len(DATA), 500)]
    random.Random(1).shuffle(blocks)
    wrong: list[int] = []

    def connection(mine: list[tuple[int, int]]) -> None:
        for first, end in mine:
            file.write(first, memoryview(DATA[first:end]))
            if read(file, first, end - first) != DATA[first:end]:
                wrong.append(first)

    threads = [threading.Thread(target=connection, args=(blocks[i::6],)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    file.close()
    assert (tmp_path / "file").read_bytes() == DATA


writes = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3000)), max_size=20)


@settings(max_examples=60)
@given(writes=writes)
def test_any_writes(file: RandomAccessFile, writes: list[tuple[int, int]]) -> None:
    """R18: the same as in a bytearray."""
    file.truncate(0)
    model = bytearray()
    for number, (offset, length) in enumerate(writes):
        data = DATA[number * 100 : number * 100 + length]
        file.write(offset, memoryview(data))
        if data:
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + length] = data
    assert read(file, 0, 9000) == bytes(model)


def test_close_twice(file: RandomAccessFile) -> None:
    """R14: leaving after publishing closes again."""
    file.close()
    file.close()


def test_a_closed_file_writes_nowhere(file: RandomAccessFile, tmp_path: Path) -> None:
    """R20: a late connection may not meet a file that has got the same number since."""
    file.close()
    other = open(tmp_path / "other", "w+b")  # noqa: SIM115 - takes the number that has become free
    with pytest.raises((OSError, ValueError)):
        file.write(0, memoryview(b"late"))
    with pytest.raises((OSError, ValueError)):
        file.truncate(0)
    other.close()
    assert (tmp_path / "other").read_bytes() == b""


def test_a_folder_that_is_not_there(tmp_path: Path, system: str) -> None:
    """R19: the system's own error."""
    with pytest.raises(FileNotFoundError):
        open_file(str(tmp_path / "none" / "file"))


def test_reserving_does_not_pretend_that_bytes_came(
    file: RandomAccessFile, tmp_path: Path, system: str
) -> None:
    """R22: the size shows what came (fused-render#516); the disk's blocks are taken, where that is cheap."""
    file.preallocate(5_000_000)
    file.preallocate(0)
    assert os.path.getsize(tmp_path / "file") == 0
    if system == "posix" and sys.platform == "linux":
        assert file.allocated_bytes() >= 5_000_000
    file.write(10, memoryview(b"x"))
    assert os.path.getsize(tmp_path / "file") == 11


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """A file system of its own, or a skip."""
    folder.mkdir()
    made = subprocess.run(["mount", *words, str(folder)], capture_output=True, check=False, text=True)
    if made.returncode:
        pytest.skip(f"may not mount here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts a tmpfs")
def test_a_disk_that_is_too_small_is_known_at_once(tmp_path: Path) -> None:
    """R19, R22: before a byte is fetched."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        file = open_file(str(folder / "file"))
        file.preallocate(500_000)
        with pytest.raises(OSError, match="No space left") as caught:
            file.preallocate(5_000_000)
        file.close()
    assert caught.value.errno == errno.ENOSPC


def test_only_what_came_is_kept(tmp_path: Path, system: str) -> None:
    """Finding 15: the bytes of the spans stay, and the rest costs no space where that can be had."""
    file = open_file(str(tmp_path / "file"))
    data = bytes(range(1, 251)) * 4000
    file.preallocate(50_000_000)
    file.write(0, memoryview(data)[:200_000])
    file.write(600_000, memoryview(data)[600_000:])
    file.keep_only([(0, 100_000), (700_000, 800_000)])
    file.close()
    left = (tmp_path / "file").read_bytes()
    assert len(left) == 800_000
    assert (left[:100_000], left[700_000:]) == (data[:100_000], data[700_000:800_000])
    if system == "posix" and sys.platform == "linux":
        assert (tmp_path / "file").stat().st_blocks * 512 <= 300_000
    file = open_file(str(tmp_path / "file"))
    file.keep_only([])
    file.close()
    assert (tmp_path / "file").stat().st_size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_reserving_where_it_is_not_supported_is_no_error() -> None:
    """R22: the download goes on without."""
    file = _Positioned(os.open("/dev/null", os.O_RDWR))  # a device has no blocks: ENODEV or EOPNOTSUPP
    try:
        file.preallocate(1000)
    except OSError as error:
        assert error.errno == errno.ENODEV  # noqa: PT017
    file.close()


@posix
def test_a_write_that_is_cut_short_goes_on_or_fails(tmp_path: Path, system: str) -> None:
    """R19: the kernel wrote a part: the rest is tried, and its error is the one that is seen."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = open_file(str(tmp_path / "file"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.write(0, memoryview(DATA))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    file.close()
    assert (tmp_path / "file").read_bytes() == DATA[:1000]
