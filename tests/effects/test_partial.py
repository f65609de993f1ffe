"""The partial file: whatever kills the process, what is claimed is on disk, and the end is right."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.core.artifact import Artifact
from tasks.effects import files
from tasks.effects.partial import SAVE_BYTES, SAVE_S, Partial, claimed

SIZE = 50_000
DATA = hashlib.shake_128(b"partial").digest(SIZE)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def artifact_in(folder: Path, sha256: str | None = SHA256, *sources: str) -> Artifact:
    return Artifact("m", sources or ("https://a/m",), str(folder / "m.llamafile"), sha256, None)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return artifact_in(tmp_path)


def claim(artifact: Artifact) -> Any:
    """What the journal says; None without one."""
    return files.read_json(artifact.journal)


def kill(partial: Partial) -> None:
    """SIGKILL, as the file sees it: nothing is saved any more."""
    partial._file.close()


def test_written_saved_and_published(artifact: Artifact) -> None:
    """R20: bytes, then the claim, then the final name; afterwards nothing else is there."""
    with Partial(artifact) as partial:
        partial.write(DATA[:1000])
        assert claim(artifact) is None
        partial.save()
        assert claim(artifact)["have"] == 1000
        partial.write(DATA[1000:])
        assert partial.sha256() == SHA256
        assert not os.path.exists(artifact.target)
        partial.publish()
    assert Path(artifact.target).read_bytes() == DATA
    assert os.listdir(Path(artifact.target).parent) == ["m.llamafile"]


def test_leaving_saves(artifact: Artifact) -> None:
    """R18: also when an exception leaves."""
    with suppress(KeyboardInterrupt), Partial(artifact) as partial:
        partial.write(DATA[:1000])
        raise KeyboardInterrupt
    assert claimed(artifact) == (1000, "")
    with Partial(artifact) as partial:
        assert (partial.have, partial.sha256()) == (1000, hashlib.sha256(DATA[:1000]).hexdigest())


def test_nothing_is_left_of_nothing(artifact: Artifact) -> None:
    """R20: a transfer without a byte leaves no file."""
    with Partial(artifact):
        pass
    assert os.listdir(Path(artifact.target).parent) == []


def test_a_claim_is_made_every_second(artifact: Artifact) -> None:
    """R18: SIGKILL costs SAVE_S seconds of work at most."""
    clock = Clock()
    partial = Partial(artifact, clock)
    partial.write(DATA[:1000])
    assert claim(artifact) is None
    clock.now += SAVE_S
    partial.write(DATA[1000:3000])
    assert claim(artifact)["have"] == 3000
    partial.write(DATA[3000:4000])
    assert claim(artifact)["have"] == 3000
    kill(partial)


def test_a_claim_is_made_every_32_mib(artifact: Artifact) -> None:
    """R18: or that many bytes, whichever is less."""
    partial = Partial(artifact, Clock())
    block = bytes(SAVE_BYTES // 2)
    partial.write(block)
    assert claim(artifact) is None
    partial.write(block)
    assert claim(artifact)["have"] == SAVE_BYTES
    kill(partial)


def test_what_is_not_claimed_is_cut_off(artifact: Artifact) -> None:
    """R18, R20: progress is never inferred from the file's size (hub#4306)."""
    partial = Partial(artifact, Clock())
    partial.write(DATA[:1000])
    partial.save()
    partial.write(b"never synced" * 100)
    kill(partial)
    with Partial(artifact) as partial:
        assert (partial.have, os.path.getsize(artifact.partial)) == (1000, 1000)


def test_restart_takes_the_claim_back_first(artifact: Artifact) -> None:
    """R20: else new bytes would stand under the old claim after a SIGKILL."""
    partial = Partial(artifact, Clock())
    partial.write(DATA[:1000])
    partial.save()
    partial.validator = '"old"'
    partial.restart()
    assert (partial.have, partial.validator, partial.restarts) == (0, "", 1)
    partial.write(DATA[:2000])
    kill(partial)
    assert claimed(artifact) == (0, "")


@pytest.mark.parametrize(
    ("change", "have"),
    [
        pytest.param({}, 1000, id="as it was"),
        pytest.param({"have": 1001}, 0, id="more than is on disk"),
        pytest.param({"have": -1}, 0, id="negative"),
        pytest.param({"have": "many"}, 0, id="no number"),
        pytest.param({"sha256": "0" * 64}, 0, id="another digest"),
        pytest.param({"sha256": None}, 0, id="no digest"),
        pytest.param({"sources": ["https://b/m"]}, 1000, id="another source of the same bytes"),
        pytest.param({"have": None}, 0, id="null"),
    ],
)
def test_a_claim_is_checked(artifact: Artifact, change: dict[str, Any], have: int) -> None:
    """R18, R20: only bytes of this very artifact count; a pinned partial may move between mirrors."""
    with Partial(artifact) as partial:
        partial.write(DATA[:1000])
    Path(artifact.journal).write_text(json.dumps({**claim(artifact), **change}))
    assert claimed(artifact)[0] == have


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "\x00"])
def test_a_journal_that_is_none_counts_for_nothing(artifact: Artifact, text: str) -> None:
    """R20: whatever a crash leaves of it (aria2#790)."""
    with Partial(artifact) as partial:
        partial.write(DATA[:1000])
    Path(artifact.journal).write_text(text)
    assert claimed(artifact) == (0, "")
    with Partial(artifact) as partial:
        partial.write(DATA)
        partial.publish()
    assert Path(artifact.target).read_bytes() == DATA


@pytest.mark.parametrize(
    ("validator", "source", "have"),
    [
        pytest.param('"tag"', "https://a/m", 1000, id="same source, validator"),
        pytest.param("", "https://a/m", 0, id="no validator"),
        pytest.param('"tag"', "https://b/m", 0, id="another source"),
    ],
)
def test_unpinned_bytes_need_a_validator(tmp_path: Path, validator: str, source: str, have: int) -> None:
    """R20: without a digest only the source can say whether a rest fits."""
    with Partial(artifact_in(tmp_path, None)) as partial:
        partial.validator = validator
        partial.write(DATA[:1000])
    assert claimed(artifact_in(tmp_path, None, source)) == (have, validator if have else "")


def test_bytes_of_one_source_never_stand_under_the_claim_of_another(tmp_path: Path) -> None:
    """R20: A was interrupted, B was killed before its first claim, and then A is asked for again."""
    a, b = (artifact_in(tmp_path, None, f"https://{host}/m") for host in "ab")
    with Partial(a) as partial:
        partial.validator = '"a"'
        partial.write(DATA[:1000])
    partial = Partial(b, Clock())
    partial.write(bytes(2000))
    kill(partial)
    assert claimed(a) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_failed_claim_leaves_no_litter(tmp_path: Path) -> None:
    """R20: a journal that cannot be written is there as it was, and no temporary file beside it."""
    import resource
    import signal

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
        partial = Partial(artifact, Clock())
        partial.write(DATA[:40_000])
        partial.save()
        with pytest.raises(OSError, match="No space left") as caught:
            partial.write(DATA[40_000:] + DATA)
        assert caught.value.errno == errno.ENOSPC
        with suppress(OSError):  # the claim may not fit either; then the old one stays
            partial.__exit__()
        assert sorted(os.listdir(folder)) == ["m.llamafile.partial", "m.llamafile.partial.json"]
        have, _ = claimed(artifact)
        assert have >= 40_000
        assert Path(artifact.partial).read_bytes()[:have] == (DATA + DATA)[:have]


# Any history

sizes = st.integers(1, 9000)
step = st.one_of(
    st.tuples(st.just("write"), sizes),
    st.tuples(st.just("tick"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["save", "kill", "leave", "restart"]), st.just(0)),
    st.tuples(st.sampled_from(["garbage", "shorten"]), sizes),  # killed, and the disk did this meanwhile
)


class History:
    """A partial that is written, killed and opened again; looks after each step that it claims no lie."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact, self.clock = artifact, Clock()
        self.partial = Partial(artifact, self.clock)

    def play(self, word: str, value: int) -> None:
        getattr(self, word)(value)
        size = os.path.getsize(self.artifact.partial) if os.path.exists(self.artifact.partial) else 0
        have, _ = claimed(self.artifact)
        assert have <= size
        assert have <= self.partial.have
        assert Path(self.artifact.partial).read_bytes()[:have] == DATA[:have]
        assert self.partial.sha256() == hashlib.sha256(DATA[: self.partial.have]).hexdigest()

    def write(self, count: int) -> None:
        self.partial.write(DATA[self.partial.have : self.partial.have + count])

    def tick(self, seconds: int) -> None:
        self.clock.now += seconds

    def save(self, _: int) -> None:
        self.partial.save()
        assert claimed(self.artifact)[0] == self.partial.have

    def restart(self, _: int) -> None:
        self.partial.restart()

    def kill(self, _: int) -> None:
        kill(self.partial)
        self._reopen()

    def leave(self, _: int) -> None:
        have = self.partial.have
        self.partial.__exit__()
        self._reopen()
        assert self.partial.have == have

    def garbage(self, count: int) -> None:
        kill(self.partial)
        with open(self.artifact.partial, "ab") as file:
            file.write(b"\xff" * count)
        self._reopen()

    def shorten(self, count: int) -> None:
        kill(self.partial)
        os.truncate(self.artifact.partial, max(0, os.path.getsize(self.artifact.partial) - count))
        self._reopen()

    def _reopen(self) -> None:
        promised, _ = claimed(self.artifact)
        self.partial = Partial(self.artifact, self.clock)
        assert self.partial.have == promised

    def finish(self) -> None:
        while self.partial.have < SIZE:
            self.write(9000)
        with self.partial:
            self.partial.publish()


_numbers = itertools.count()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, max_size=25))
@example(steps=[("write", 100), ("save", 0), ("write", 100), ("restart", 0), ("write", 50), ("kill", 0)])
@example(steps=[("write", 100), ("save", 0), ("garbage", 9), ("shorten", 60), ("write", 10)])
def test_no_history_makes_it_claim_a_lie(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """R18, R20: any writes and kills; never more is claimed than is there, and the end is the whole file."""
    folder = tmp_path / str(next(_numbers))
    history = History(artifact_in(folder))
    for word, value in steps:
        history.play(word, value)
    history.finish()
    assert Path(history.artifact.target).read_bytes() == DATA
    assert os.listdir(folder) == ["m.llamafile"]
    shutil.rmtree(folder)
