"""A download shows events, a bar or lines, and at its end the reasons."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.llamafile import noise
from tests.fakes.server import Drop, FileServer, Status
from tests.support.nginx import Nginx, needs_nginx
from tests.support.partials import claim
from tests.support.project import Project, Result
from tests.support.terminal import ANSI, bars, on_terminal

MIB = 1024**2
NAME = "m.llamafile"
PATH = f"/{NAME}"
DATA = noise(b"shown", 3_000_000)
JSON = {"LLAMAFILE_LOG": "json"}
LEVELS = {"debug", "info", "warning", "error"}

posix = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals are POSIX")


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


# Events (LLAMAFILE_LOG=json)


def events(result: Result) -> list[dict[str, Any]]:
    """Every line of stderr, each an object with the four facts that all have."""
    found = [json.loads(line) for line in result.err.splitlines()]
    for event in found:
        assert datetime.fromisoformat(event["time"]).tzinfo
        assert event["level"] in LEVELS
        assert re.fullmatch("[a-z_]+", event["event"])
        assert isinstance(event["message"], str)
        assert event["message"]
    return found


def one(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The one event of that name."""
    same = [event for event in found if event["event"] == name]
    assert len(same) == 1, same
    return same[0]


def test_events_of_a_download(model: Project, server: FileServer) -> None:
    """Issue 3.9: begun, progress every second, downloaded with its facts, done; nothing but objects."""
    server.set_rate(PATH, 1_200_000)
    result = model.doit("download", env=JSON)
    assert (result.status, result.out) == (0, "")
    found = events(result)
    assert [event["event"] for event in found if event["event"] != "progress"] == [
        "task_started", "downloaded", "task_done",
    ]  # fmt: skip
    downloaded = one(found, "downloaded")
    assert (downloaded["bytes"], downloaded["source"]) == (len(DATA), server.url(PATH))
    assert (downloaded["artifact"], downloaded["fetched"]) == ("m", len(DATA))
    assert (downloaded["sha256"], downloaded["verified"]) == (hashlib.sha256(DATA).hexdigest(), True)
    assert 1 < downloaded["seconds"] < 10
    progress = [event for event in found if event["event"] == "progress"]
    assert 2 <= len(progress) <= 4
    done = [event["bytes"] for event in progress]
    assert done == sorted(done)
    for event in progress:
        assert 0 < event["bytes"] <= event["total"] == len(DATA)
        assert 0 < event["bytes_per_s"] < 3_000_000
    assert one(found, "task_started")["task"] == one(found, "task_done")["task"] == "download:m"
    again = events(model.doit("download", env=JSON))
    assert [(event["event"], event["task"]) for event in again] == [("task_up_to_date", "download:m")]


def test_events_of_a_failure(model: Project, server: FileServer) -> None:
    """Issue 3.9: the retry with its reason and its wait, then what failed, at the level of an error."""
    server.script(PATH, Drop(1_000_000))
    server.always(PATH, Status(404))
    result = model.doit("download", env=JSON)
    assert result.status == 1
    found = events(result)
    retry = one(found, "retry")
    assert (retry["level"], retry["artifact"], retry["url"]) == ("warning", "m", server.url(PATH))
    assert (retry["bytes"], retry["total"]) == (1_000_000, len(DATA))
    assert retry["wait_s"] >= 0
    assert "the connection ended before the file did" in retry["why"]
    failed = one(found, "task_failed")
    assert (failed["level"], failed["task"]) == ("error", "download:m")
    assert failed["message"] == "m could not be downloaded"
    assert failed["facts"][server.url(PATH)].startswith("HTTP 404")
    assert failed["fix"]


def test_events_of_a_wrong_command_line(model: Project) -> None:
    """Issue 3.9: an unknown model is reported as an event, too."""
    result = model.doit("download:n", env=JSON)
    assert result.status == 3
    [event] = events(result)
    assert (event["event"], event["level"]) == ("error", "error")
    assert event["message"].startswith("there is no model 'n' in ")
    assert event["fix"] == "`doit` shows the models"


def test_events_that_nobody_has(model: Project) -> None:
    """Issue 14.8: another format is a wrong command line, not silently the usual one."""
    result = model.doit(env={"LLAMAFILE_LOG": "xml"})
    assert (result.status, result.out) == (3, "")
    assert "LLAMAFILE_LOG: expected json or text, got 'xml'\n  fix: LLAMAFILE_LOG=json" in result.err
    assert model.doit(env={"LLAMAFILE_LOG": "text"}).status == 0


@posix
def test_events_of_waiting_and_of_an_interruption(model: Project, server: FileServer) -> None:
    """Issue 3.9: they are objects, too."""
    server.set_rate(PATH, 500_000)
    with model.start("download", env=JSON) as first:
        server.wait_sent(PATH, 100_000)
        with model.start("download", env=JSON) as second:
            second.wait_for("another process")
            first.send(signal.SIGTERM)
            stopped = first.finish()
            server.set_rate(PATH, None)
            waited = second.finish()
    assert (stopped.status, waited.status) == (143, 0)
    assert any("Interrupted" in event["message"] for event in events(stopped))
    assert one(events(waited), "downloaded")["fetched"] < len(DATA)


def test_reports_stay_reports(model: Project) -> None:
    """Issue 3.9: stdout does not depend on the format of stderr."""
    plain, logged = (model.doit("catalogue", "--json", env=env) for env in ({}, JSON))
    assert (plain.status, logged.status) == (0, 0)
    assert logged.out == plain.out
    assert json.loads(logged.out)["models"][0]["name"] == "m"
    events(logged)


@posix
def test_events_on_a_terminal(model: Project) -> None:
    """Issue 3.9: asked for is asked for: no bar between them."""
    result = on_terminal(model, "download", env=JSON)
    assert result.status == 0
    assert "\x1b" not in result.err
    assert one(events(result), "downloaded")["bytes"] == len(DATA)


# People


@posix
@needs_nginx
@pytest.mark.parametrize(
    ("columns", "name"),
    [
        pytest.param(80, "mistral", id="80 columns"),
        pytest.param(80, "ministral-3-3b-bf16", id="80 columns and the longest name of models.yaml"),
        pytest.param(100, "mistral", id="100 columns"),
    ],
)
def test_one_bar_with_everything(project: Project, tmp_path: Path, columns: int, name: str) -> None:
    """Issue 3.9: percent, done/total, rate, time left and connections, on one line; then what it was."""
    data = noise(b"large", 120 * MIB)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / NAME).write_bytes(data)
    with Nginx(tmp_path / "nginx", tmp_path / "files", "limit_rate 15m;") as nginx:
        project.catalogue({name: project.entry(nginx.url(PATH), data)})
        result = on_terminal(project, "download", columns=columns)
    assert result.status == 0
    states = bars(result.err)
    percents = [int(found[1]) for state in states if (found := re.search(r"(\d+) %", state))]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    full = re.compile(rf"{name} .*\d+ % [\d.]+/125\.8 MB [\d.]+ MB/s [\d:]+ [248] connections$")
    assert any(full.match(state) for state in states), states
    assert all(len(state) <= columns for state in states)
    text = ANSI.sub("", result.err)
    assert "…" not in text
    assert not re.search(r"^ +MB", text, re.MULTILINE), "the bar takes two lines"
    assert re.search(rf"{name}: 125\.8 MB in .* from 127\.0\.0\.1, sha256\s+verified", text)
    assert "verifying" not in states[-1], "what is over stays on the screen"


@posix
def test_no_verifying_where_nothing_is_left_to_verify(model: Project, server: FileServer) -> None:
    """Issue 3.9: the digest has followed the bytes."""
    server.set_rate(PATH, 3_000_000)
    result = on_terminal(model, "download")
    assert result.status == 0
    assert "verifying" not in result.err


@posix
def test_no_colours_where_none_are_wanted(model: Project, server: FileServer) -> None:
    """Issue 3.9: NO_COLOR leaves the bar and takes its colours."""
    server.set_rate(PATH, 3_000_000)
    plain = on_terminal(model, "download", env={"NO_COLOR": "1"})
    assert plain.status == 0
    assert bars(plain.err)
    codes = {code for found in re.findall(r"\x1b\[([\d;]*)m", plain.err) for code in found.split(";")}
    assert not {code for code in codes if code.startswith(("3", "4", "9", "10"))} - {"39", "49"}, codes


@posix
def test_messages_stand_above_the_bar(model: Project, server: FileServer) -> None:
    """Issue 3.9: a retry is a separate line above the bar."""
    server.set_rate(PATH, 3_000_000)
    server.script(PATH, Drop(1_000_000))
    result = on_terminal(model, "download")
    assert result.status == 0
    text = ANSI.sub("", result.err)
    said = [line for line in re.split(r"[\r\n]", text) if "retrying in" in line]
    assert said
    assert all(line.strip().startswith("m: the connection ended before the file did") for line in said)


def test_lines_without_a_terminal(model: Project, server: FileServer) -> None:
    """Issue 3.9, R35: three lines, no control characters."""
    server.set_rate(PATH, 3_000_000)
    result = model.doit("download")
    assert not set(result.err) & {"\x1b", "\r", "━"}
    assert [line.split()[0] for line in result.err.splitlines()] == [".", "m:", "download:m"]


# Sources in order (R19)


def test_sources_are_tried_in_order(project: Project, server: FileServer, tmp_path: Path) -> None:
    """Issue 3.5: url, then mirrors, file:// among them; no source is asked after one that delivers."""
    local = tmp_path / "usb stick" / NAME
    local.parent.mkdir()
    local.write_bytes(DATA)
    with FileServer() as first, FileServer() as last:
        first.script(PATH, Drop(1_000_000))
        first.always(PATH, Status(404))
        last.files[PATH] = DATA
        mirrors = [server.url("/gone.llamafile"), local.as_uri(), last.url(PATH)]
        first.files[PATH] = DATA
        project.catalogue({"m": project.entry(first.url(PATH), DATA, mirrors=mirrors)})
        result = project.doit("download")
        assert result.status == 0, result.err
        assert [request.range for request in first.asked(PATH)] == [None, (1_000_000, None)]
        assert len(server.asked("/gone.llamafile")) == 1
        assert last.requests == []
    assert "from this machine, sha256 verified" in result.err
    target = project.target(DATA, NAME)
    assert target.read_bytes() == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == [NAME, f"{NAME}.stamp.json"]


def test_a_mirror_goes_on_with_what_the_first_source_brought(project: Project, server: FileServer) -> None:
    """Issue 3.5: all are held to one digest, so bytes of one fit those of another."""
    with FileServer() as first:
        first.files[PATH] = DATA
        first.script(PATH, Drop(1_000_000))
        first.always(PATH, Status(404))
        project.catalogue({"m": project.entry(first.url(PATH), DATA, mirrors=[server.url(PATH)])})
        assert project.doit("download").status == 0
    assert [request.range for request in server.asked(PATH)] == [(1_000_000, None)]
    assert project.target(DATA, NAME).read_bytes() == DATA


def test_what_is_kept_is_said_beside_the_reasons(
    project: Project, server: FileServer, tmp_path: Path
) -> None:
    """R19: in the order of the catalogue, each with its own; a wrong file costs nothing of what came."""
    wrong = tmp_path / "wrong.llamafile"
    wrong.write_bytes(DATA[::-1])
    server.script(PATH, Drop(1_000_000))
    server.always(PATH, Status(403))
    mirrors = [server.url("/gone.llamafile"), (tmp_path / "none.llamafile").as_uri(), wrong.as_uri()]
    project.catalogue({"m": project.entry(server.url(PATH), DATA, mirrors=mirrors)})
    result = project.doit("download")
    assert result.status == 1
    rest = result.err[result.err.index("ERROR:") :]
    said = ("HTTP 403", "HTTP 404", "No such file or directory", "wrong SHA-256")
    for url, reason in zip((server.url(PATH), *mirrors), said, strict=True):
        _, found, rest = rest.partition(f"  {url}:")
        assert found, f"{url} is not in\n{result.err}"
        assert reason in rest.split("\n  http")[0].split("\n  file:")[0], result.err
    assert claim(project.target(DATA, NAME), DATA) == 1_000_000
    assert "1.00 MB are kept" in result.err
