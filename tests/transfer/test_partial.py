"""The partial file: whatever kills the process or the machine, what it claims is there; the end is right."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tasks.catalogue.artifact import Artifact
from tasks.errors import RecipeError
from tasks.system import files
from tasks.system.process_id import ProcessId
from tasks.system.process_identity import current
from tasks.transfer import partial
from tasks.transfer.journal import SavedProgress, load_progress, owned_by_other
from tasks.transfer.owned_journal import OwnershipLostError
from tasks.transfer.partial import BEAT_S, SAVE_S, Partial
from tasks.transfer.ranges import Piece, count

from tests.support.world import until, without_posix

ROOT = Path(__file__).resolve().parents[2]
SIZE = 50_000
DATA = hashlib.shake_128(b"partial").digest(SIZE)
SHA256 = hashlib.sha256(DATA).hexdigest()
ANOTHER = ProcessId(1, 1.0, "another boot", host="elsewhere")


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def artifact_in(
    folder: Path, sha256: str | None = SHA256, *sources: str, size: int | None = None
) -> Artifact:
    return Artifact("m", sources or ("https://a/m",), str(folder / "m.llamafile"), sha256, size)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return artifact_in(tmp_path)


def journal(artifact: Artifact) -> Any:
    """What the journal says; None without one."""
    return files.read_json(artifact.journal)


def spans(artifact: Artifact) -> list[list[int]]:
    """What the journal claims."""
    found = journal(artifact)
    return list(found["spans"]) if found else []


def put(open_: Partial, first: int, end: int, data: bytes = DATA) -> None:
    """What a connection does with a piece."""
    piece = Piece(first, end)
    with open_.changed:
        open_.tracker.active.append(piece)
    open_.write(first, memoryview(data[first:end]))
    piece.pos = end
    with open_.changed:
        open_.tracker.finish(piece)


_numbers = itertools.count()


def killed(artifact: Artifact) -> Artifact:
    """The artifact in a copy of its folder as SIGKILL at this moment would leave it."""
    folder = Path(artifact.target).parent
    copy = folder.parent / f"killed-{next(_numbers)}"
    shutil.copytree(folder, copy)
    return artifact._replace(target=str(copy / "m.llamafile"))


def is_true(saved: SavedProgress, artifact: Artifact, data: bytes = DATA) -> bool:
    """Whether every claimed byte is in the file, and right."""
    if not saved.spans:
        return True
    held = Path(artifact.partial).read_bytes()
    inside = saved.spans[0][0] >= 0 and saved.spans[-1][1] <= len(held)
    return inside and all(held[a:b] == data[a:b] for a, b in saved.spans)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> Iterator[None]:
    """Copies lie beside the folder of a test."""
    yield
    for copy in tmp_path.parent.glob("killed-*"):
        shutil.rmtree(copy)


# The life of one


def test_written_saved_and_published(artifact: Artifact) -> None:
    """R20: bytes, then the claim, then the final name; afterwards nothing else is there."""
    with Partial(artifact, Clock()) as open_:
        put(open_, 0, 1000)
        put(open_, 5000, 6000)
        assert spans(artifact) == []
        open_.save()
        assert spans(artifact) == [[0, 1000], [5000, 6000]]
        put(open_, 1000, SIZE)
        assert not os.path.exists(artifact.target)
        open_.publish(SIZE)
        assert os.listdir(Path(artifact.target).parent) == ["m.llamafile"]
    assert Path(artifact.target).read_bytes() == DATA
    assert os.listdir(Path(artifact.target).parent) == ["m.llamafile"]


def test_the_digest_follows(artifact: Artifact) -> None:
    """R21: also over what an earlier run left."""
    with Partial(artifact) as open_:
        put(open_, 0, 1000)
        put(open_, 3000, SIZE)
    with Partial(artifact) as open_:
        put(open_, 1000, 3000)
        until(lambda: open_.hasher.wait(SIZE, 0.1), "everything is hashed")
        assert open_.hasher.hexdigest() == SHA256


def test_leaving_saves(artifact: Artifact) -> None:
    """R18: also when an exception leaves; then nobody is writing it."""
    with suppress(KeyboardInterrupt), Partial(artifact, Clock()) as open_:
        assert ProcessId.parse_owner(journal(artifact)["owner"]) == current()
        put(open_, 500, 1000)
        raise KeyboardInterrupt
    assert load_progress(artifact) == SavedProgress(((500, 1000),), "", None, None)
    assert sorted(os.listdir(Path(artifact.target).parent)) == [
        "m.llamafile.partial",
        "m.llamafile.partial.json",
    ]
    with Partial(artifact) as open_:
        assert open_.done == 500


def test_nothing_is_left_of_nothing(artifact: Artifact) -> None:
    """R20: a transfer without a byte leaves no file."""
    with Partial(artifact):
        pass
    assert os.listdir(Path(artifact.target).parent) == []


def test_discarded(artifact: Artifact) -> None:
    """R20: a local file was found instead."""
    with Partial(artifact) as open_:
        put(open_, 0, 1000)
        open_.save()
        open_.discard()
    assert os.listdir(Path(artifact.target).parent) == []


def test_no_thread_is_left(artifact: Artifact) -> None:
    """R14: of the three that it has."""
    with Partial(artifact) as open_:
        put(open_, 0, 1000)
    assert not {t.name for t in threading.enumerate()} & {"journal", "live", "sha256", "connection"}


# When it is saved


def test_a_claim_is_made_every_second(artifact: Artifact) -> None:
    """R18: a loss of power costs SAVE_S seconds of work at most; no more is written than is needed."""
    clock = Clock()
    with Partial(artifact, clock) as open_:
        put(open_, 0, 1000)
        time.sleep(3 * partial.LOOK_S)
        assert spans(artifact) == []
        clock.now += SAVE_S
        until(lambda: spans(artifact) == [[0, 1000]], "the claim")
        put(open_, 1000, 1500)
        time.sleep(3 * partial.LOOK_S)
        assert spans(artifact) == [[0, 1000]]


def test_a_claim_is_made_every_so_many_bytes(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """R18: a fast line does not lose more for being fast."""
    monkeypatch.setattr(partial, "SAVE_BYTES", 10_000)
    with Partial(artifact, Clock()) as open_:
        put(open_, 0, 9000)
        time.sleep(3 * partial.LOOK_S)
        assert spans(artifact) == []
        put(open_, 20_000, 21_000)
        until(lambda: spans(artifact) == [[0, 9000], [20_000, 21_000]], "the claim")


def test_others_see_that_it_lives(artifact: Artifact) -> None:
    """R19: without news the journal is written now and then: another machine goes by its age."""
    clock = Clock()
    with Partial(artifact, clock):
        before = os.stat(artifact.journal).st_mtime_ns
        clock.now += BEAT_S
        until(lambda: os.stat(artifact.journal).st_mtime_ns > before, "a beat")


# What counts


def test_what_is_not_claimed_does_not_count(artifact: Artifact) -> None:
    """R18, R20: progress is never inferred from the file's size (hub#4306)."""
    with Partial(artifact, Clock()) as open_:
        put(open_, 0, 1000)
        open_.save()
        open_.file.write(2000, memoryview(b"nobody claims this" * 100))
        after = killed(artifact)
        assert load_progress(after).spans in (((0, 1000),),)
        with Partial(after) as again:
            assert again.done == 1000


def test_restart_takes_the_claim_back_first(artifact: Artifact) -> None:
    """R20: else new bytes would stand under the old claim after a SIGKILL."""
    with Partial(artifact, Clock()) as open_:
        put(open_, 0, 1000)
        open_.save()
        open_.validator = '"old"'
        open_.restart()
        assert (open_.done, open_.validator, open_.restarts, open_.answers) == (0, "", 1, 0)
        open_.file.write(0, memoryview(bytes(2000)))
        assert load_progress(killed(artifact)).done == 0
        put(open_, 0, SIZE)
        until(lambda: open_.hasher.wait(SIZE, 0.1), "everything is hashed")
        assert open_.hasher.hexdigest() == SHA256


@pytest.mark.parametrize(
    ("change", "done"),
    [
        pytest.param({}, 1000, id="as it was"),
        pytest.param({"spans": [[0, 1001]]}, 0, id="more than is on disk"),
        pytest.param({"spans": [[500, 600], [0, 100]]}, 200, id="out of order"),
        pytest.param({"spans": [[0, 600], [500, 1000]]}, 1000, id="overlapping"),
        pytest.param({"spans": [[-1, 10]]}, 0, id="negative"),
        pytest.param({"spans": [["a", "b"]]}, 0, id="no numbers"),
        pytest.param({"spans": [[0]]}, 0, id="half a span"),
        pytest.param({"spans": None}, 0, id="null"),
        pytest.param({"spans": 1000}, 0, id="a number"),
        pytest.param({"spans": [[0, 10**400]]}, 0, id="huge"),
        pytest.param({"sha256": "0" * 64}, 0, id="another digest"),
        pytest.param({"sha256": None}, 0, id="no digest"),
        pytest.param({"size": 999}, 0, id="more than the size it states"),
        pytest.param({"sources": ["https://b/m"]}, 1000, id="another source of the same bytes"),
    ],
)
def test_a_claim_is_checked(artifact: Artifact, change: dict[str, Any], done: int) -> None:
    """R18, R20: only bytes of this very artifact count; a pinned partial may move between mirrors."""
    with Partial(artifact) as open_:
        put(open_, 0, 1000)
    Path(artifact.journal).write_text(json.dumps({**journal(artifact), **change}))
    assert load_progress(artifact).done == done


JUNK = [
    "",
    "{",
    "[]",
    "null",
    '"text"',
    "\x00",
    "0",
    "{}",
    '{"spans": []}',
    "[[[[",
    "[" * 100_000,
    "9" * 6000,
]


@pytest.mark.parametrize("name", ["journal", "volatile_journal"])
@pytest.mark.parametrize("text", JUNK, ids=range(len(JUNK)))
def test_a_journal_that_is_none_counts_for_nothing(artifact: Artifact, text: str, name: str) -> None:
    """R20: whatever a crash leaves of it (aria2#790)."""
    with Partial(artifact) as open_:
        put(open_, 0, 1000)
    if name == "journal":
        os.unlink(artifact.journal)
    Path(getattr(artifact, name)).write_text(text)
    assert load_progress(artifact).done == (0 if name == "journal" else 1000)
    assert not owned_by_other(artifact)
    with Partial(artifact) as open_:
        put(open_, 0, SIZE)
        open_.publish(SIZE)
    assert Path(artifact.target).read_bytes() == DATA
    assert os.listdir(Path(artifact.target).parent) == ["m.llamafile"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, SIZE) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
owners = st.tuples(
    st.sampled_from([current().host, "elsewhere"]),
    st.sampled_from([current().boot, "another"]),
    st.integers(-5, 5) | st.integers(),
    st.sampled_from([0.0, -1.0, 1e300]) | st.floats(),
)
claims = st.fixed_dictionaries(
    {},
    optional={
        "spans": values | st.lists(st.tuples(st.integers(-5, SIZE), st.integers(-5, SIZE)), max_size=4),
        "sha256": st.just(SHA256) | values,
        "size": st.none() | st.integers(0, SIZE) | values,
        "validator": st.just("") | values,
        "sources": values,
        "owner": st.none() | owners | values,
    },
)


@settings(max_examples=75)
@given(data=values | claims, pinned=st.booleans())
@example(data={"owner": [current().host, current().boot, -1, 0.0]}, pinned=True)
@example(data={"owner": [current().host, current().boot, 10**30, 0.0]}, pinned=True)
@example(
    data={
        "sha256": SHA256,
        "size": "50000",
        "validator": "",
        "spans": [[0, 9]],
        "sources": [],
        "owner": None,
    },
    pinned=True,
)
def test_no_journal_makes_it_fail(tmp_path: Path, data: Any, pinned: bool) -> None:
    """R20, R27: any JSON at all: a claim of bytes that the file has, or none, and no exception."""
    folder = tmp_path / str(next(_numbers))
    folder.mkdir()
    artifact = artifact_in(folder, SHA256 if pinned else None)
    Path(artifact.partial).write_bytes(DATA[:1000])
    Path(artifact.journal).write_text(json.dumps(data))
    saved = load_progress(artifact)
    assert is_true(saved, artifact)
    assert saved.size is None or isinstance(saved.size, int)
    if owned_by_other(artifact):  # another machine's name, and the journal is seconds old
        with pytest.raises(OwnershipLostError):
            Partial(artifact)
        os.utime(artifact.journal, (0, 0))
    with Partial(artifact) as open_:
        put(open_, 0, SIZE)
        open_.publish(SIZE)
    assert Path(artifact.target).read_bytes() == DATA
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("validator", "source", "done"),
    [
        pytest.param('"tag"', "https://a/m", 1000, id="same source, validator"),
        pytest.param("", "https://a/m", 0, id="no validator"),
        pytest.param('"tag"', "https://b/m", 0, id="another source"),
    ],
)
def test_unpinned_bytes_need_a_validator(tmp_path: Path, validator: str, source: str, done: int) -> None:
    """R20: without a digest only the source can say whether a rest fits."""
    with Partial(artifact_in(tmp_path, None)) as open_:
        open_.validator = validator
        put(open_, 0, 1000)
    found = load_progress(artifact_in(tmp_path, None, source))
    assert (found.done, found.validator) == (done, validator if done else "")


@pytest.mark.parametrize("ended", ["left", "killed"])
def test_bytes_of_one_source_never_stand_under_the_claim_of_another(tmp_path: Path, ended: str) -> None:
    """R20: A was interrupted, B was killed before its first claim, and then A is asked for again."""
    folder = tmp_path / "one"
    folder.mkdir()
    a, b = (artifact_in(folder, None, f"https://{host}/m") for host in "ab")
    with Partial(a, Clock()) as open_:
        open_.validator = '"a"'
        put(open_, 0, 1000)
        until(lambda: open_.done == 1000, "written")
        open_.save()
        if ended == "killed":
            a = killed(a)
    b = b._replace(target=a.target)
    with Partial(b, Clock()) as open_:
        open_.file.write(0, memoryview(bytes(2000)))
        after = killed(a)
        assert load_progress(after).done == 0


# What the disk may not have yet


def test_sigkill_costs_less_than_a_loss_of_power(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """R18: what the kernel was given counts while this machine is up, and only then."""
    from tasks.transfer import journal as live

    monkeypatch.setattr(live, "EVERY_BYTES", 1000)
    with Partial(artifact, Clock()) as open_:
        put(open_, 0, 1000)
        put(open_, 4000, 6000)
        until(lambda: load_progress(artifact).done >= 1000, "the live note")
        assert spans(artifact) == []
        after = killed(artifact)
    assert load_progress(after).done >= 1000
    assert is_true(load_progress(after), after)
    text = Path(after.volatile_journal).read_bytes()
    assert b"[[0, 1000]" in text
    Path(after.volatile_journal).write_bytes(text.replace(b"[[0, 1000]", b"[[0, 2000]"))
    assert load_progress(after).done == 0  # half a note, over half of the one before: its checksum is wrong


def test_a_note_of_before_a_restart_of_the_machine_does_not_count(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R18, R20: then the page cache is gone, and the journal alone is true."""
    from tasks.transfer import journal as live

    monkeypatch.setattr(live, "EVERY_BYTES", 1)
    with Partial(artifact, Clock()) as open_:
        put(open_, 0, 1000)
        open_.save()
        put(open_, 1000, 3000)
        until(lambda: load_progress(artifact).done == 3000, "the live note")
        after = killed(artifact)
    monkeypatch.setattr(live, "this_boot", lambda: "another boot")
    assert load_progress(after).spans == ((0, 1000),)


class Power:
    """A disk that has what was synced; looks at every journal that gets its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, artifact: Artifact) -> None:
        self.artifact, self.durable, self.journals = artifact, b"", 0
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._synced(getattr(os, name)))
        replace = os.replace

        def renamed(source: Any, target: Any) -> None:
            replace(source, target)
            if str(target) == artifact.journal:
                self.check()

        monkeypatch.setattr(os, "replace", renamed)

    def _synced(self, call: Any) -> Any:
        def sync(handle: int) -> None:
            held = Path(self.artifact.partial)  # before the call: what is written during it may not be on it
            inside = held.exists() and os.path.sameopenfile(handle, self._open(held))
            content = held.read_bytes() if inside else self.durable
            call(handle)
            self.durable = content

        return sync

    _handle: int

    def _open(self, path: Path) -> int:
        with suppress(AttributeError):
            os.close(self._handle)
        self._handle = os.open(path, os.O_RDONLY)
        return self._handle

    def check(self) -> None:
        """What the journal claims is on the disk."""
        self.journals += 1
        for first, end in spans(self.artifact):
            assert self.durable[first:end] == DATA[first:end], (first, end)


@pytest.mark.parametrize("system", ["posix", "windows"])
def test_data_reaches_the_disk_before_its_claim(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """R18: a loss of power leaves a claim of bytes that are there, also after the next run has begun."""
    from tasks.transfer import journal as live

    monkeypatch.setattr(live, "EVERY_BYTES", 1)
    monkeypatch.setattr(partial, "SAVE_BYTES", 5000)
    if system == "windows":
        monkeypatch.setattr(os, "fdatasync", os.fsync, raising=False)
        for name in ("pwrite", "preadv", "posix_fallocate"):
            monkeypatch.delattr(os, name, raising=False)
    power = Power(monkeypatch, artifact)
    order = [(i, i + 1000) for i in range(0, SIZE, 1000)]
    random.Random(0).shuffle(order)
    with Partial(artifact) as open_:
        for first, end in order[:25]:
            put(open_, first, end)
            time.sleep(0.005)
        until(lambda: power.journals > 2, "some journals")
        until(lambda: load_progress(artifact).done == 25_000, "the live note")
        after = killed(artifact)
        assert open_.error is None
    power = Power(monkeypatch, after)  # nothing of the killed run is known to be on the disk
    journal_before = spans(after)
    power.durable = DATA if journal_before == [] else bytes(SIZE)
    for first, end in journal_before:
        power.durable = power.durable[:first] + DATA[first:end] + power.durable[end:]
    with Partial(after) as open_:
        assert open_.done == 25_000
        for first, end in order[25:]:
            put(open_, first, end)
        open_.save()
        assert open_.error is None
        open_.publish(SIZE)
    assert Path(after.target).read_bytes() == DATA


# Failures of the disk


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_failed_claim_leaves_no_litter(tmp_path: Path) -> None:
    """R20: a journal that cannot be written is there as it was, and no temporary file beside it."""
    import resource

    path = tmp_path / "journal.json"
    files.write_atomic(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            files.write_atomic(path, "new and longer than ten bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert (os.listdir(tmp_path), path.read_text()) == (["journal.json"], "old")


@contextmanager
def full_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of so many bytes."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts a tmpfs")
def test_a_full_disk_does_not_harm_what_was_claimed(tmp_path: Path) -> None:
    """R19, R20: ENOSPC comes out as it is, and what was claimed before is good."""
    with full_disk(tmp_path / "small", "64k") as folder:
        artifact = artifact_in(folder)
        open_ = Partial(artifact, Clock())
        put(open_, 0, 30_000)
        open_.save()
        with pytest.raises(OSError, match="No space left") as caught:
            open_.write(30_000, memoryview(DATA + DATA))
        assert caught.value.errno == errno.ENOSPC
        with suppress(OSError):  # the claim may not fit either; then the old one stays
            open_.__exit__()
        left = {f"m.llamafile.{end}" for end in ("partial", "partial.json", "partial.live")}
        assert set(os.listdir(folder)) <= left
        saved = load_progress(artifact)
        assert saved.done >= 30_000
        assert is_true(saved, artifact)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_while_saving(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """R19, R20: some disks speak at the sync: it is seen, and the old claim stays."""
    clock = Clock()
    with Partial(artifact, clock) as open_:
        put(open_, 0, 1000)
        open_.save()
        put(open_, 1000, 2000)

        def fails(_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fdatasync", fails)
        clock.now += SAVE_S
        with open_.changed:
            assert open_.changed.wait_for(lambda: open_.error, 10)
        assert isinstance(open_.error, OSError)
        assert open_.error.errno == number
    assert spans(artifact) == [[0, 1000]]
    assert is_true(load_progress(artifact), artifact)


def test_too_large_for_the_disk(artifact: Artifact) -> None:
    """R22: known before a byte is fetched, net of what is here."""
    with Partial(artifact) as open_, pytest.raises(RecipeError, match="does not fit on the disk"):
        open_.set_size(10**16)


def test_a_target_that_cannot_be_replaced_says_so(artifact: Artifact) -> None:
    """R19: the system's own reason (Windows: the old file is in use), and the bytes are kept."""
    os.mkdir(artifact.target)
    Path(artifact.target, "a file").touch()
    with pytest.raises(OSError) as caught, Partial(artifact, Clock()) as open_:  # noqa: PT011, PT012
        put(open_, 0, SIZE)
        open_.publish(SIZE)
    assert caught.value.errno not in (errno.EBADF, None)
    assert load_progress(artifact).done == SIZE


# Somebody else


def give_to(artifact: Artifact, owner: ProcessId | None) -> None:
    Path(artifact.journal).write_text(json.dumps({**journal(artifact), "owner": owner and owner.as_owner()}))


@pytest.mark.parametrize("act", ["save", "leave", "publish", "restart", "discard", "the saver"])
def test_another_owner_is_noticed(artifact: Artifact, act: str) -> None:
    """R20: where locks lie: the other one's journal is not touched, and nothing gets the final name."""
    clock = Clock()
    open_ = Partial(artifact, clock)
    put(open_, 0, 1000)
    open_.save()
    give_to(artifact, ANOTHER)
    before = Path(artifact.journal).read_text()
    put(open_, 1000, 2000)
    try:
        if act == "the saver":
            clock.now += BEAT_S
            until(lambda: isinstance(open_.error, OwnershipLostError), "the saver noticed")
        else:
            with pytest.raises(OwnershipLostError):  # noqa: PT012
                if act == "save":
                    open_.save()
                if act == "publish":
                    open_.publish(2000)
                if act == "restart":
                    open_.restart()
                if act == "discard":
                    open_.discard()
                if act in ("leave", "discard"):
                    open_.__exit__()
    finally:
        if act not in ("leave", "discard"):
            with suppress(OwnershipLostError, OSError):
                open_.__exit__()
    assert Path(artifact.journal).read_text() == before
    assert os.path.exists(artifact.partial)
    assert not os.path.exists(artifact.target)


def test_a_journal_that_has_gone_has_another_owner(artifact: Artifact) -> None:
    """R20: another process has published meanwhile."""
    with pytest.raises(OwnershipLostError), Partial(artifact, Clock()) as open_:  # noqa: PT012
        put(open_, 0, 1000)
        os.unlink(artifact.journal)
    assert not os.path.exists(artifact.journal)


@pytest.mark.parametrize(
    ("owner", "busy"),
    [
        pytest.param(None, False, id="nobody"),
        pytest.param(current(), False, id="this process"),
        pytest.param(ANOTHER, True, id="another machine, a moment ago"),
        pytest.param(replace(current(), started=1.0), False, id="this pid, another process"),
        pytest.param(replace(ANOTHER, host=current().host), False, id="before a restart"),
    ],
)
def test_whether_somebody_else_is_writing(artifact: Artifact, owner: ProcessId | None, busy: bool) -> None:
    """R19: what the journal says decides."""
    with Partial(artifact) as open_:
        put(open_, 0, 1000)
    give_to(artifact, owner)
    assert owned_by_other(artifact) == busy


# SIGKILL, in earnest

WRITER = """
import hashlib, os, random, sys
from tasks.catalogue.artifact import Artifact
from tasks.transfer import journal as live, partial

partial.SAVE_BYTES, partial.LOOK_S, live.EVERY_BYTES = 2000, 0.001, 500
if sys.argv[2] == "windows":
    for name in ("pwrite", "preadv", "fdatasync"):
        delattr(os, name)
data = hashlib.shake_128(b"partial").digest(int(sys.argv[3]))
artifact = Artifact("m", ("https://a/m",), sys.argv[1], hashlib.sha256(data).hexdigest(), len(data))
with partial.Partial(artifact) as p:
    print("begun", p.done, flush=True)
    while True:
        with p.changed:
            piece = p.tracker.next_piece(random.randint(1, 700))
        if piece is None:
            p.restart()
            print("restarted", flush=True)
            continue
        p.write(piece.start, memoryview(data[piece.start : piece.end]))
        piece.pos = piece.end
        with p.changed:
            p.tracker.finish(piece)
"""


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("system", ["posix", "windows"])
def test_sigkill_at_any_moment(tmp_path: Path, system: str) -> None:
    """R18, R20: what is claimed is there; the next process goes on, and is killed too."""
    artifact = artifact_in(tmp_path, size=SIZE)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    kept = 0
    for turn in range(8):
        command = [sys.executable, "-c", WRITER, artifact.target, system, str(SIZE)]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            done = int(process.stdout.readline().split()[1])
            assert done == kept
            time.sleep(random.Random(turn).uniform(0.0, 0.12))
            process.kill()
        saved = load_progress(artifact)
        assert is_true(saved, artifact)
        assert not owned_by_other(artifact)
        kept = saved.done
        assert not psutil.pid_exists(process.pid)


# Any history

sizes = st.integers(1, 9000)
step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, SIZE - 1), sizes),
    st.tuples(st.sampled_from(["save", "kill", "leave", "restart", "publish"]), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["garbage", "shorten"]), sizes, st.just(0)),  # killed, and the disk did this
)


class History:
    """A partial that is written, killed and opened again; looks after each step that it claims no lie."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact, self.clock = artifact, Clock()
        self.open = Partial(artifact, self.clock)

    def play(self, word: str, first: int, length: int) -> None:
        getattr(self, word)(first, length)
        saved = load_progress(self.artifact)
        assert is_true(saved, self.artifact)
        assert saved.done <= self.open.done

    def write(self, first: int, length: int) -> None:
        put(self.open, first, min(SIZE, first + length))

    def save(self, *_: int) -> None:
        self.open.save()
        assert count([(a, b) for a, b in spans(self.artifact)]) == self.open.done

    def restart(self, *_: int) -> None:
        self.open.restart()
        assert self.open.done == 0

    def kill(self, *_: int) -> None:
        self._again(killed(self.artifact))

    def leave(self, *_: int) -> None:
        done = self.open.done
        self.open.__exit__()
        self.open = Partial(self.artifact, self.clock)
        assert self.open.done == done

    def publish(self, *_: int) -> None:
        if self.open.done == SIZE:
            self.open.publish(SIZE)
            self.open.__exit__()
            assert Path(self.artifact.target).read_bytes() == DATA
            os.unlink(self.artifact.target)
            assert os.listdir(Path(self.artifact.target).parent) == []
            self.open = Partial(self.artifact, self.clock)

    def garbage(self, length: int, _: int) -> None:
        after = killed(self.artifact)
        with open(after.partial, "ab") as file:
            file.write(b"\xff" * length)
        self._again(after)

    def shorten(self, length: int, _: int) -> None:
        after = killed(self.artifact)
        os.truncate(after.partial, max(0, os.path.getsize(after.partial) - length))
        self._again(after)

    def _again(self, after: Artifact) -> None:
        with suppress(OwnershipLostError):
            self.open.__exit__()
        promised = load_progress(after)
        assert is_true(promised, after)
        self.artifact = after
        self.open = Partial(after, self.clock)
        assert self.open.done == promised.done

    def finish(self) -> None:
        with self.open:
            put(self.open, 0, SIZE)
            until(lambda: self.open.hasher.wait(SIZE, 0.1), "everything is hashed")
            assert self.open.hasher.hexdigest() == SHA256
            self.open.publish(SIZE)


@settings(max_examples=60)
@given(steps=st.lists(step, max_size=15), posix=st.booleans())
@example(
    steps=[("write", 0, 100), ("save", 0, 0), ("write", 99, 100), ("restart", 0, 0), ("kill", 0, 0)],
    posix=True,
)
@example(steps=[("write", 0, 100), ("save", 0, 0), ("garbage", 9, 0), ("shorten", 60, 0)], posix=True)
@example(steps=[("write", 0, 100), ("leave", 0, 0), ("write", 4000, 100), ("kill", 0, 0)], posix=False)
def test_no_history_makes_it_claim_a_lie(
    tmp_path: Path, steps: list[tuple[str, int, int]], posix: bool
) -> None:
    """R18, R20: any writes and kills; never more is claimed than is there, and the end is the whole file."""
    folder = tmp_path / "history" / str(next(_numbers))
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        if not posix:
            without_posix(patch)
        history = History(artifact_in(folder))
        for word, first, length in steps:
            history.play(word, first, length)
        history.finish()
    assert Path(history.artifact.target).read_bytes() == DATA
    assert os.listdir(Path(history.artifact.target).parent) == ["m.llamafile"]
    shutil.rmtree(tmp_path / "history")
