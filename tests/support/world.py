"""Helpers for tests of transfers: a world without waits, and artifacts with known bytes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tasks.catalogue.artifact import Artifact
from tasks.errors import RecipeError
from tasks.transfer import connection, connection_pool, scaling, scheduler, segmented
from tasks.transfer.dependencies import Dependencies
from tasks.transfer.download import fetch

from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer

FILE = "/m.llamafile"
SIZE, HALF = 200_000, 100_000
DATA = noise(b"file", SIZE)
OTHER = noise(b"other", SIZE)

Span = tuple[int, int | None] | None


@dataclass
class World:
    """The injected dependencies: they do not wait, and record waits and progress."""

    waits: list[float] = field(default_factory=list)
    shown: list[tuple[int, int | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tools(self, **more: Any) -> Dependencies:
        return Dependencies(**{"sleep": self.waits.append, "jitter": lambda: 0.0, "show": self.show, **more})

    def show(self, label: str, have: int) -> World:
        return self

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def update(self, done: int, total: int | None, note: str = "") -> None:
        self.shown.append((done, total))
        self.notes.append(note)


def wanted(
    folder: Path, *sources: str, pinned: bool = True, size: int | None = SIZE, data: bytes = DATA
) -> Artifact:
    """Return the artifact whose right bytes are DATA."""
    digest = hashlib.sha256(data).hexdigest() if pinned else None
    size = len(data) if size == SIZE else size
    return Artifact("m", sources, str(folder / "models" / "m.llamafile"), digest, size, adopt_from=None)


def is_whole(artifact: Artifact, data: bytes = DATA) -> bool:
    """Return whether the target has the data, is not executable, and has no files left next to it."""
    target = Path(artifact.target)
    return (
        target.read_bytes() == data
        and not target.stat().st_mode & 0o111
        and os.listdir(target.parent) == [target.name]
    )


def refusal(artifact: Artifact, dependencies: Dependencies) -> RecipeError:
    """Return the error of a fetch that must fail; check that it published no target."""
    with pytest.raises(RecipeError) as caught:
        fetch(artifact, dependencies)
    assert not os.path.exists(artifact.target)
    return caught.value


def ranges(server: FileServer, path: str = FILE) -> list[Span]:
    """Return the requested ranges, in order."""
    return [request.range for request in server.asked(path)]


def leave_partial(
    artifact: Artifact, data: bytes, validator: str = "", spans: list[tuple[int, int]] | None = None
) -> None:
    """Write what a killed run leaves: bytes, of which the journal lists the spans."""
    Path(artifact.partial).parent.mkdir(parents=True, exist_ok=True)
    Path(artifact.partial).write_bytes(data)
    claim: dict[str, Any] = {
        "sha256": artifact.sha256,
        "sources": artifact.sources,
        "size": None,
        "owner": None,
    }
    claim |= {"spans": spans or [(0, len(data))], "validator": validator}
    Path(artifact.journal).write_text(json.dumps(claim))


def until(done: Callable[[], Any], what: str, timeout_s: float = 90.0) -> Any:
    """Wait until `done()` is true and return its value; fail with `what` if it never is."""
    deadline = time.monotonic() + timeout_s
    while not (result := done()):
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.005)
    return result


def begun(act: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call a function in a daemon thread; return the future of its result."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(act(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send the recipe's log to caplog, whatever handlers it has."""
    logger = logging.getLogger("recipe")
    logger.addHandler(caplog.handler)
    monkeypatch.setattr(logger, "propagate", False)
    with caplog.at_level(logging.INFO, "recipe"):
        yield
    logger.removeHandler(caplog.handler)


# Limits for files of some hundred kB in some hundred ms. As with the real limits, a buffer (BLOCK) is smaller
# than what is left to the connection whose piece is cut (SHARE_LEAST).
PACE: dict[Any, dict[str, Any]] = {
    scaling: {
        "SPLIT_FROM": 100_000, "PIECE": 64 * 1024, "PIECE_MAX": 256 * 1024, "PIECE_MIN": 20 * 1024,
        "SETTLE_S": 0.01, "WINDOW_S": 0.03, "TRIAL_S": 0.15, "STEADY_S": 0.3, "TRY_S": 0.5,
        "PROBE_FIRST_S": 0.3, "PROBE_MOST_S": 2.0, "REFUSED_PAUSE_S": 0.3, "SLOW_LOOK_S": 0.5,
    },
    connection_pool: {"STALL_S": 0.3},
    scheduler: {"SHARE_S": 0.05, "SHARE_LEAST": 20 * 1024},
    segmented: {"TICK_S": 0.01, "STALL_S": 0.3},
    connection: {"BLOCK": connection.READ_LEAST, "SHARE_LEAST": 20 * 1024},
}  # fmt: skip


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small files come over several connections."""
    for module, constants in PACE.items():
        for name, value in constants.items():
            assert hasattr(module, name)
            monkeypatch.setattr(module, name, value)


def without_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove from `os` what Windows does not have for files."""
    for name in ("pwrite", "preadv", "fdatasync", "posix_fallocate"):
        monkeypatch.delattr(os, name, raising=False)
