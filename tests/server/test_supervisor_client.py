"""An engine and its supervisor, seen from the process that started them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tasks.server.supervisor_client import SupervisorClient

from tests.support.project import REPO

pytestmark = pytest.mark.skipif(os.name == "nt", reason="speaks of POSIX signals")


def start(folder: Path, script: str, kind: type[SupervisorClient] = SupervisorClient) -> SupervisorClient:
    words = ["/bin/sh", "-c", script]
    return kind(
        words, env={"PATH": os.environ["PATH"]}, cwd=str(folder), log=str(folder / "log"),
        record=str(folder / "record.json"), values={"state": "starting", "mark": "of a test"}, root=str(REPO),
    )  # fmt: skip


class _Slow(SupervisorClient):
    """Read the supervisor's last answer slowly, as on a busy machine."""

    def _read(self) -> None:
        lines: Any = self._process.stdout

        def slowly() -> Iterator[str]:
            for line in lines:
                time.sleep(0.3 if "ended" in line else 0)
                yield line

        self._process.stdout = slowly()  # type: ignore[assignment]
        super()._read()


@pytest.mark.parametrize("kind", [SupervisorClient, _Slow])
def test_stop_knows_that_it_has_ended(tmp_path: Path, kind: type[SupervisorClient]) -> None:
    """R27: after `stop` the engine has ended, with a status and without a record."""
    supervisor = start(tmp_path, "trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done", kind)
    deadline = time.monotonic() + 20
    while "ready" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert supervisor.exited() is None
    assert supervisor.stop()
    assert supervisor.exited() == 7
    assert supervisor.stopped_on_request
    assert not (tmp_path / "record.json").exists()


def test_an_engine_that_ends_by_itself(tmp_path: Path) -> None:
    """R26, R28: exit status and last lines of an engine that ended by itself."""
    supervisor = start(tmp_path, "echo one; echo two >&2; exit 5")
    deadline = time.monotonic() + 20
    while supervisor.exited() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert supervisor.ending() == (supervisor.command, 5, "one\ntwo", str(tmp_path / "log"))
    assert not supervisor.stopped_on_request
    assert supervisor.stop()


def test_an_engine_that_cannot_start(tmp_path: Path) -> None:
    """R28: the supervisor passes the system's error on to the process that started it."""
    with pytest.raises(FileNotFoundError) as caught:
        SupervisorClient(
            [str(tmp_path / "gone")], env={}, cwd=str(tmp_path), log=str(tmp_path / "log"),
            record=str(tmp_path / "record.json"), values={"mark": "of a test"}, root=str(REPO),
        )  # fmt: skip
    assert caught.value.strerror == "No such file or directory"
    assert not (tmp_path / "record.json").exists()
