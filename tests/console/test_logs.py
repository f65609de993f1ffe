"""LLAMAFILE_LOG=json: each line is an object with the same content as the text."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tasks.console import logs
from tasks.console.log_format import is_json
from tasks.errors import ServerError

from tests.fakes.server import Drop, FileServer, Status
from tests.support.world import DATA, FILE, HALF, SIZE

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from tasks.catalogue.artifact import Artifact
from tasks.console import progress
from tasks.transfer.download import (Dependencies, fetch)
from tasks.console.logs import logger

progress.EVENT_S = 0.01
logger()
folder, sha256, size, *sources = sys.argv[1:]
artifact = Artifact("mödel \\n x", tuple(sources), folder + "/m", sha256 or None, int(size))
fetch(artifact, Dependencies(sleep=lambda s: None))
"""


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files[FILE] = DATA
        yield server


@pytest.fixture
def fresh(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """The recipe's logger before anybody has set it up, and what goes to stderr."""
    logger = logging.getLogger("recipe")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = []
    yield capsys
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize(
    ("text", "json_"),
    [("json", True), (" JSON\n", True), ("", False), ("0", False), ("text", False), (None, False)],
)
def test_when_events_are_asked_for(monkeypatch: pytest.MonkeyPatch, text: str | None, json_: bool) -> None:
    """R35: by a variable; anything else is for people."""
    if text is not None:
        monkeypatch.setenv("LLAMAFILE_LOG", text)
    assert is_json(os.environ) == json_


def test_lines_for_people(fresh: pytest.CaptureFixture[str]) -> None:
    """R35: the text alone; facts are for programs."""
    logs.logger()
    logs.log_event("downloaded", "%s is here", "m", bytes=5)
    logs.logger().warning("careful: %d %%", 5)
    assert fresh.readouterr().err == "m is here\ncareful: 5 %\n"


def test_lines_for_programs(fresh: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """R35: time, level, event, message and the event's own facts; what is not known is not there."""
    monkeypatch.setenv("LLAMAFILE_LOG", "json")
    logs.logger()
    logs.log_event("progress", "%s: %d", "mödel", 5, bytes=0, total=None, note="", done=False, path=Path("x"))
    logs.logger().warning("two\nlines and a \x1b[1m")
    first, second = map(json.loads, fresh.readouterr().err.splitlines())
    when = datetime.fromisoformat(first.pop("time"))
    assert when.tzinfo
    assert first == {
        "level": "info", "event": "progress", "message": "mödel: 5", "bytes": 0, "done": False, "path": "x",
    }  # fmt: skip
    assert (second["level"], second["event"]) == ("warning", "message")
    assert second["message"] == "two\nlines and a \x1b[1m"


ERROR = ServerError("m ended", [("log", "x.log")], fix="doit logs m")


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("plain", (), {"message": "plain"}),
        ("ERROR: no %s", ("command",), {"message": "no command"}),
        ("warning: open\n  fix: close it", (), {"message": "open", "fix": "close it"}),
        ("%s", (ERROR,), {"message": "m ended", "facts": {"log": "x.log"}, "fix": "doit logs m"}),
        (
            "warning: early: %s",
            (ERROR,),
            {"message": "early: m ended", "facts": {"log": "x.log"}, "fix": "doit logs m"},
        ),
    ],
)
def test_fields_of_a_message(
    fresh: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    args: tuple[object, ...],
    expected: dict[str, Any],
) -> None:
    """Issue 14.8: facts and fix are fields, and the level is not a part of the message."""
    monkeypatch.setenv("LLAMAFILE_LOG", "json")
    logs.logger().warning(text, *args)
    [event] = map(json.loads, fresh.readouterr().err.splitlines())
    assert {name: event[name] for name in event if name in ("message", "facts", "fix")} == expected


def test_it_is_set_up_once(fresh: pytest.CaptureFixture[str]) -> None:
    """R35: no line twice."""
    logs.logger()
    logs.logger().info("once")
    assert fresh.readouterr().err == "once\n"


def run(
    server: FileServer, folder: Path, *sources: str, sha256: str = ""
) -> tuple[int, list[dict[str, Any]]]:
    """What a whole transfer says to a program."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LLAMAFILE_LOG": "json"}
    command = [sys.executable, "-c", PROGRAM, str(folder), sha256, str(SIZE), *sources]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    lines = ended.stderr.partition("Traceback")[0].splitlines()
    return ended.returncode, [json.loads(line) for line in lines]


def test_a_transfer_in_events(server: FileServer, tmp_path: Path) -> None:
    """R7, R35: progress, a retry with its reason, and how it ended; every line is one object."""
    server.set_rate(FILE, 1_000_000)
    server.script(FILE, Drop(HALF), Status(503, {"Retry-After": "7"}))
    status, said = run(server, tmp_path, server.url(FILE), sha256=hashlib.sha256(DATA).hexdigest())
    assert status == 0
    kinds = [event["event"] for event in said]
    assert kinds[-1] == "downloaded"
    assert {"progress", "retry", "downloaded"} <= set(kinds)
    for event in said:
        assert {"time", "level", "event", "message"} <= set(event)
    at = [event["bytes"] for event in said if event["event"] == "progress"]
    assert at == sorted(at)
    assert all(event["total"] == SIZE for event in said if event["event"] == "progress")
    waits = [event for event in said if event["event"] == "retry"]
    assert waits[-1]["wait_s"] >= 7
    assert waits[-1]["why"] == "HTTP 503"
    end = said[-1]
    assert (end["bytes"], end["verified"], end["source"]) == (SIZE, True, server.url(FILE))
    assert end["fetched"] == SIZE
    assert end["seconds"] > 0
    assert end["artifact"] == "mödel \n x"


def test_what_nothing_pins_is_said_to_be_so(server: FileServer, tmp_path: Path) -> None:
    """R21: a program sees that nothing was verified, and the digest to pin."""
    status, said = run(server, tmp_path, server.url(FILE))
    assert status == 0
    assert said[-1]["verified"] is False
    assert len(said[-1]["sha256"]) == 64
