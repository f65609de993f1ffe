"""Any faults, cuts and restarts, with any number of connections and mirrors: right bytes, or an error."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tasks.errors import IntegrityError, TransferError
from tasks.network import http
from tasks.transfer import journal, partial, scaling
from tasks.transfer.download import fetch
from tasks.transfer.journal import load_progress

from tests.fakes.llamafile import noise
from tests.fakes.server import (
    Changed,
    Drop,
    Fault,
    FileServer,
    Gzip,
    Hangup,
    Honest,
    IgnoreRange,
    LoginPage,
    NoLength,
    NoLengthTruncated,
    Slow,
    Stall,
    Status,
    WrongLength,
    WrongOffset,
    WrongTotal,
)
from tests.support.world import World, hurry, is_whole, wanted, without_posix

SIZE = 240_000
DATA = noise(b"any", SIZE)
OTHER = noise(b"other", SIZE)

at = st.integers(0, SIZE)
shift = st.integers(-SIZE, SIZE)
statuses = st.sampled_from([401, 403, 404, 408, 410, 416, 418, 429, 500, 503, 504, 618])
faults: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Drop, at, st.booleans()),
    st.builds(Stall, at, st.just(0.1)),
    st.builds(NoLengthTruncated, at),
    st.builds(WrongLength, shift),
    st.builds(WrongOffset, shift),
    st.builds(WrongTotal, shift),
    st.builds(Status, statuses, st.sampled_from([{}, {"Retry-After": "5"}])),
    st.sampled_from([Hangup(), IgnoreRange(), LoginPage(), Gzip(), NoLength(), Slow(200_000.0)]),
    st.sampled_from([Changed(OTHER), Changed(DATA), Changed(DATA + b"more"), Changed(b"")]),
)
script = st.lists(faults | st.just(Honest()), max_size=8)
run = st.tuples(script, script, st.none() | at)  # for the first source, for its mirror, and where it is cut


class Cut(Exception):
    """Something ended a run from outside."""


class Watched(World):
    """A world that ends a run once so many bytes are here, and that never waits long."""

    def __init__(self, cut_at: int | None) -> None:
        super().__init__()
        self.cut_at = cut_at

    def update(self, done: int, total: int | None, note: str = "") -> None:
        super().update(done, total, note)
        if self.cut_at is not None and done >= self.cut_at:
            raise Cut


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, Path]]:
    """One server for all examples; each has paths of its own."""
    with FileServer() as server:
        yield server, tmp_path_factory.mktemp("examples")


_SEEN: list[int] = []  # connections side by side, of each example


@settings(max_examples=20)
@given(
    runs=st.lists(run, min_size=1, max_size=3), posix=st.booleans(), mirror=st.booleans(), sized=st.booleans()
)
@example(runs=[([], [], SIZE // 2), ([Changed(OTHER)], [], SIZE // 3)], posix=True, mirror=False, sized=True)
@example(runs=[([Honest(), Changed(OTHER)], [], None)], posix=False, mirror=True, sized=True)
@example(runs=[([Drop(90_000), Status(404)], [IgnoreRange()], None)], posix=True, mirror=True, sized=True)
@example(runs=[([Changed(DATA + b"more")], [WrongOffset(1)], None)], posix=True, mirror=True, sized=False)
def test_no_sequence_of_faults_ends_with_wrong_bytes(
    shared: tuple[FileServer, Path],
    runs: list[tuple[list[Fault], list[Fault], int | None]],
    posix: bool,
    mirror: bool,
    sized: bool,
) -> None:
    """R18 to R22: right bytes, or an error naming each source and no target; then honesty always helps."""
    server, folder = shared
    name = f"{len(server.requests)}-{len(os.listdir(folder))}"
    paths = [f"/{name}", f"/{name}-mirror"][: 1 + mirror]
    artifact = wanted(folder / name, *map(server.url, paths), data=DATA, size=len(DATA) if sized else None)
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        patch.setattr(scaling, "SPLIT_FROM", 50_000)
        patch.setattr(journal, "EVERY_BYTES", 5_000)
        patch.setattr(partial, "SAVE_BYTES", 20_000)
        patch.setattr(http, "READ_TIMEOUT_S", 3.0)
        if not posix:
            without_posix(patch)
        for *scripts, cut_at in [*runs, ([], [], None)]:
            for path, faults in zip(paths, scripts, strict=False):
                server.clear(path)
                server.files[path] = DATA
                server.set_rate(path, 1_500_000)
                server.script(path, *faults)
            world = Watched(cut_at)
            try:
                fetch(artifact, world.tools(sleep=lambda s: time.sleep(min(s, 0.01))))
            except Cut:
                assert not os.path.exists(artifact.target)
            except (TransferError, IntegrityError) as error:
                assert any(scripts), f"an honest server, and yet {error}"  # noqa: PT017
                assert all(server.url(path) in str(error) for path in paths)  # noqa: PT017
                assert not os.path.exists(artifact.target)
            else:
                assert is_whole(artifact, DATA)
                break
            held = Path(artifact.partial).read_bytes() if os.path.exists(artifact.partial) else b""
            assert all(end <= len(held) for _, end in load_progress(artifact).spans)
        else:
            pytest.fail("the honest run at the end brought nothing")
    _SEEN.append(max(server.most_at_once[path] for path in paths))
    shutil.rmtree(folder / name)


def test_several_connections_were_used() -> None:
    """Else the examples prove nothing about connections."""
    if _SEEN:
        assert sum(most > 1 for most in _SEEN) > len(_SEEN) / 4
