"""An engine's log: its size limit, its mode, and reading it while it is written."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.server import logfile
from tasks.server.logfile import LogPosition, follow, last_lines, tail
from tasks.server.rotating_log import BEFORE, LIMIT, RotatingLog

LIMIT_OF_TEST = 100


def at(path: str | Path, offset: int) -> LogPosition:
    """Return a position in the current log file."""
    return LogPosition(Path(path).stat().st_ino, offset)


def old(path: Path) -> Path:
    """The file before it."""
    return path.with_name(path.name + ".1")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m-8080.log"


def test_it_begins_a_new_file_at_its_limit(path: Path) -> None:
    """The log's size stays within its limit."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    assert path.read_bytes() == b""
    log.write(b"a" * 60)
    log.write(b"b" * 40)
    assert path.read_bytes() == b"a" * 60 + b"b" * 40  # up to its limit, and not a byte more
    assert not old(path).exists()
    log.write(b"c")
    assert (path.read_bytes(), old(path).read_bytes()) == (b"c", b"a" * 60 + b"b" * 40)
    log.write(b"d" * 99)
    log.write(b"e")
    assert (path.read_bytes(), old(path).read_bytes()) == (b"e", b"c" + b"d" * 99)
    assert sorted(os.listdir(path.parent)) == [path.name, old(path).name]


@given(st.lists(st.integers(0, LIMIT_OF_TEST), max_size=40))
def test_never_more_than_twice_its_limit_on_disk(sizes: list[int]) -> None:
    """Whatever comes: two files within the limit, and together the end of all that was written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        log = RotatingLog(str(path), LIMIT_OF_TEST)
        everything = b""
        for n, size in enumerate(sizes):
            block = bytes([n]) * size
            everything += block
            log.write(block)
            files = [file for file in (old(path), path) if file.exists()]
            assert all(file.stat().st_size <= LIMIT_OF_TEST for file in files)
            kept = b"".join(file.read_bytes() for file in files)
            assert everything.endswith(kept)
            assert len(kept) == len(everything) or len(kept) > LIMIT_OF_TEST
        assert len(os.listdir(folder)) <= 2


def test_limits_of_a_real_one() -> None:
    """A supervisor's reads are far smaller than the limit."""
    assert 64 * 1024 < LIMIT <= 100 * 1024 * 1024


def test_the_log_before_is_kept(path: Path) -> None:
    """What the last run said is still there when the next one begins; the one before that is not."""
    for text in (b"first", b"second", b"third"):
        RotatingLog(str(path), LIMIT_OF_TEST).write(text)
    assert (path.read_bytes(), path.with_name(path.name + BEFORE).read_bytes()) == (b"third", b"second")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_for_its_owner_alone(path: Path) -> None:
    """R30: prompts may be in it; neither umask nor an older file makes it readable for others."""
    path.write_bytes(b"an older run")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        log = RotatingLog(str(path), LIMIT_OF_TEST)
        assert mode(path) == 0o600
        for _ in range(3):
            log.write(b"x" * 80)
    finally:
        os.umask(before)
    assert (mode(path), mode(old(path))) == (0o600, 0o600)


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for a right to make links")
def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A symbolic link in place of the log is not followed."""
    other = tmp_path / "precious"
    other.write_bytes(b"mine")
    path.symlink_to(other)
    RotatingLog(str(path), LIMIT_OF_TEST).write(b"a log")
    assert (other.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"mine", b"a log", False)


def test_a_full_disk_costs_lines_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not end the engine; later lines are written again."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    log.write(b"before\n")
    with monkeypatch.context() as patch:
        for name in ("write", "open", "replace"):
            patch.setattr(os, name, _full)
        log.write(b"lost\n")
        log.write(b"l" * LIMIT_OF_TEST)  # here the next file cannot be begun
        log.write(b"lost, too\n")
    log.write(b"after\n")
    log.write(b"and on\n")
    text = tail(str(path), 1000)
    assert text.endswith(b"after\nand on\n")
    assert text.startswith(b"before\n")


def _full(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_log_where_none_can_be_written(tmp_path: Path) -> None:
    """A log that cannot be created is an error before the engine is started."""
    with pytest.raises(FileNotFoundError):
        RotatingLog(str(tmp_path / "gone" / "log"))


def test_a_log_without_a_reader_loses_no_descriptor(path: Path) -> None:
    """Each file is closed before the next one."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0
    for _ in range(20):
        log.write(b"x" * LIMIT_OF_TEST)
    assert (len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0) == before


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(0, b"", id="nothing"),
        pytest.param(2, b"78", id="of the last file"),
        pytest.param(3, b"678", id="all of the last file"),
        pytest.param(5, b"45678", id="some of the file before"),
        pytest.param(8, b"12345678", id="all of both"),
        pytest.param(99, b"12345678", id="more than there is"),
    ],
)
def test_tail(path: Path, size: int, expected: bytes) -> None:
    """R26: the end of a log, whether it has just begun a new file or not."""
    old(path).write_bytes(b"12345")
    path.write_bytes(b"678")
    assert tail(str(path), size) == expected


def test_tail_of_one_file_or_none(path: Path) -> None:
    """R26: the tail of a missing log is empty, of a short one all of it."""
    assert tail(str(path), 5) == b""
    path.write_bytes(b"678")
    assert tail(str(path), 5) == b"678"
    path.rename(old(path))  # between two files
    assert tail(str(path), 2) == b"78"


@pytest.mark.parametrize(
    ("before", "now", "count", "expected"),
    [
        pytest.param(None, "a\nb\nc\n", None, "a\nb\nc\n", id="all"),
        pytest.param(None, "a\nb\nc\n", 2, "b\nc\n", id="the last two"),
        pytest.param(None, "a\nb\nc\n", 3, "a\nb\nc\n", id="as many as there are"),
        pytest.param(None, "a\nb\nc\n", 99, "a\nb\nc\n", id="more than there are"),
        pytest.param(None, "a\nb\nc\n", 0, "", id="none"),
        pytest.param(None, "a\nb\nc", 2, "b\nc", id="one that is still written"),
        pytest.param(None, "", 5, "", id="an empty log"),
        pytest.param(None, "a\n\n\n", 2, "\n\n", id="empty lines are lines"),
        pytest.param("a\nb\n", "c\n", None, "a\nb\nc\n", id="all of both files"),
        pytest.param("a\nb\n", "c\n", 1, "c\n", id="what the last file has"),
        pytest.param("a\nb\n", "c\n", 2, "b\nc\n", id="some of the file before"),
        pytest.param("a\nb\n", "c\n", 9, "a\nb\nc\n", id="more than both have"),
        pytest.param("a\nb\n", "", 1, "b\n", id="a file that has just begun"),
    ],
)
def test_last_lines(path: Path, before: str | None, now: str, count: int | None, expected: str) -> None:
    """`doit logs -n N`: the last N lines, and the position after them."""
    if before is not None:
        old(path).write_bytes(before.encode())
    path.write_bytes(now.encode())
    text, end = last_lines(str(path), count)
    assert (text, end.offset) == (expected.encode(), len(now))


def test_last_lines_are_bytes(path: Path) -> None:
    """Bytes that are not text are returned unchanged."""
    path.write_bytes(b"\xff\x00\n\xfe")
    text, end = last_lines(str(path), 1)
    assert (text, end.offset) == (b"\xfe", 4)


def test_last_lines_of_no_log(path: Path) -> None:
    """A missing log raises an error."""
    with pytest.raises(FileNotFoundError):
        last_lines(str(path), 5)


class Reader:
    """Follow a log in a thread."""

    def __init__(self, path: Path, start: int | LogPosition) -> None:
        self.alive = True
        self.got = b""
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(str(path), start), daemon=True)
        self._thread.start()

    def _run(self, path: str, start: int | LogPosition) -> None:
        for block in follow(path, at(path, start) if isinstance(start, int) else start, lambda: self.alive):
            with self._more:
                self.got += block
                self._more.notify_all()

    def has(self, expected: bytes) -> bool:
        """Wait until it has read as much."""
        with self._more:
            self._more.wait_for(lambda: len(self.got) >= len(expected), 10)
        return self.got == expected

    def end(self) -> bytes:
        """The writer is gone; all that was read."""
        self.alive = False
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.got


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, int | LogPosition], Reader]]:
    monkeypatch.setattr(logfile, "_POLL_S", 0.005)
    readers: list[Reader] = []

    def start(path: Path, offset: int | LogPosition) -> Reader:
        readers.append(Reader(path, offset))
        return readers[-1]

    yield start
    for one in readers:
        one.end()


def test_follow_through_every_rotation(
    path: Path, reader: Callable[[Path, int | LogPosition], Reader]
) -> None:
    """`doit logs -f`: everything once and in order, also where a new file begins; what was there is not
    repeated."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    log.write(b"before\n")
    text, end = last_lines(str(path), None)
    assert text == b"before\n"
    follower, expected = reader(path, end), b""
    for n in range(40):
        block = b"%d " % n * 7 + b"\n"
        expected += block
        log.write(block)
        assert follower.has(expected), n
    assert follower.end() == expected
    assert old(path).exists()


def test_follow_to_the_end_of_the_writer(
    path: Path, reader: Callable[[Path, int | LogPosition], Reader]
) -> None:
    """The last lines of a writer that has ended are read; then `follow` returns."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    log.write(b"x" * 90)
    follower = reader(path, 90)
    log.write(b"y" * 10)
    assert follower.has(b"y" * 10)
    log.write(b"last words")  # in a file of its own
    assert follower.end() == b"y" * 10 + b"last words"


def test_follow_what_has_ended(path: Path) -> None:
    """The log of a stopped server is read without a wait."""
    path.write_bytes(b"before\nafter\n")
    assert b"".join(follow(str(path), at(path, 7), lambda: False)) == b"after\n"
    assert list(follow(str(path), at(path, 13), lambda: False)) == []


def test_follow_asks_whether_it_lives_before_it_reads(path: Path) -> None:
    """A writer's last lines are not lost."""
    path.write_bytes(b"")

    def alive() -> bool:
        with path.open("ab") as file:
            file.write(b"bye")
        return False

    assert next(follow(str(path), at(path, 0), alive)) == b"bye"


def test_follow_from_before_a_rotation(path: Path) -> None:
    """A reader that took its time (`doit logs -f | less`) goes on with what came since, not in the midst
    of another file."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    log.write(b"x" * 90)
    _, end = last_lines(str(path), 1)
    log.write(b"y" * 95)  # a new file
    got = b"".join(follow(str(path), end, lambda: False))
    assert got.endswith(b"y" * 95)


def test_follow_a_file_that_was_deleted_since(path: Path) -> None:
    """A reader that is behind by two rotations reads both files that there are."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    log.write(b"x" * 90)
    follower = follow(str(path), at(path, 80), lambda: False)
    assert next(iter(follower)) == b"x" * 10
    log.write(b"y" * 95)
    log.write(b"z" * 95)  # here the first file is deleted
    assert b"".join(follower) == b"y" * 95 + b"z" * 95


def test_last_lines_during_rotations(path: Path) -> None:
    """Both files are read as they were at one time: no line is missing between them, none is twice."""
    log = RotatingLog(str(path), LIMIT_OF_TEST)
    log.write(b"0\n")

    def write() -> None:
        for n in range(1, 2000):
            log.write(b"%d\n" % n)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        text, _ = last_lines(str(path), None)
        numbers = [int(line) for line in text.splitlines()]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    writer.join()


def test_last_lines_where_no_next_file_can_be_created(path: Path) -> None:
    """On a full disk, the log is its earlier part."""
    old(path).write_bytes(b"a\nb\n")
    assert last_lines(str(path), 1)[0] == b"b\n"
