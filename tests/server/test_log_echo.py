"""An engine's output on stderr: whole lines, bounded, whatever the engine writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.server.log_echo import split_lines

from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import Project, interrupt
from tests.support.servers import failed
from tests.support.terminal import on_terminal

posix = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
LINE = "server listening"


@pytest.mark.parametrize(
    ("blocks", "lines"),
    [
        ([], []),
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\r\n", b"c"], ["ab", "c"]),
        ([b"a\n\nb\n"], ["a", "", "b"]),
        ([b"123456789\n"], ["1234", "5678", "9"]),
        ([b"12345", b"6789"], ["1234", "5678", "9"]),
        ([b"1234\n5"], ["1234", "5"]),
        ([b"\xff\n"], ["\udcff"]),
    ],
)
def test_lines(blocks: list[bytes], lines: list[str]) -> None:
    """A line ends at a newline, or where it is as long as may be."""
    assert list(split_lines(blocks, limit=4)) == lines


@given(st.lists(st.binary(max_size=40)))
def test_no_byte_is_lost(blocks: list[bytes]) -> None:
    """Whatever the blocks are; only line ends are dropped."""
    lines = list(split_lines(blocks, limit=8))
    assert all(len(line) <= 8 for line in lines)
    together = "".join(lines).encode("utf-8", "surrogateescape")
    assert together.replace(b"\r", b"") == b"".join(blocks).replace(b"\n", b"").replace(b"\r", b"")


@posix
@pytest.mark.parametrize(
    ("words", "shown"), [([], True), (["--log", "engine"], True), (["--log", "quiet"], False)]
)
def test_without_a_terminal(project: Project, words: list[str], shown: bool) -> None:
    """Issue 14.7: journald and kubectl have the engine's lines, from the first to the last."""
    with_llamafile(project)
    with project.start("serve", "--port", "0", *words) as running:
        running.wait_for("stop     Ctrl-C")
        [log] = project.run_folder.glob("m-*.log")
        interrupt(running)
        result = running.finish()
    assert (result.status, result.out) == (0, "")
    lines = log.read_text().splitlines()
    assert any(LINE in line for line in lines)
    assert [line in result.err.splitlines() for line in lines] == [shown] * len(lines)


@posix
def test_events(project: Project) -> None:
    """Issue 14.7: LLAMAFILE_LOG=json: each line is an event."""
    with_llamafile(project)
    with project.start("serve", "--port", "0", env={"LLAMAFILE_LOG": "json"}) as running:
        running.wait_for("server_ready")
        [log] = project.run_folder.glob("m-*.log")
        interrupt(running)
        events = [json.loads(line) for line in running.finish().err.splitlines()]
    found = [event["message"] for event in events if event["event"] == "engine_output"]
    assert found == log.read_text().splitlines()
    assert {event.get("model") for event in events if event["event"] == "engine_output"} == {"m"}


@posix
def test_what_an_engine_prints_is_escaped(project: Project) -> None:
    """Issue 14.7: no control sequence reaches stderr; the output of one that fails is there, too."""
    with_llamafile(project)
    behave(project, crash={"text": "no \x1b[31msuch\x07 thing", "status": 7})
    result = project.doit("serve", "--port", "0")
    said = failed(result)
    assert "no \\x1b[31msuch\\x07 thing" in result.err.replace(said, "")
    assert "\x1b" not in result.err


@posix
def test_on_a_terminal(project: Project) -> None:
    """Issue 14.7: a terminal has only the recipe's lines, unless --log engine asks for more."""
    with_llamafile(project)
    behave(project, crash={"text": "no such thing", "status": 7})
    shown = {}
    for words in ([], ["--log", "engine"]):
        result = on_terminal(project, "serve", "--port", "0", *words, timeout=90)
        assert result.status == 1, result
        shown[bool(words)] = result.err.partition("ERROR")[0]
    assert ("no such thing" in shown[True], "no such thing" in shown[False]) == (True, False)


@posix
def test_another_value(project: Project, tmp_path: Path) -> None:
    """It is refused before anything runs."""
    with_llamafile(project)
    said = failed(project.doit("serve", "--log", "quite"), 3)
    assert said == "ERROR: --log: expected quiet or engine, got 'quite'\n  fix: did you mean quiet?\n"
    assert not project.cache.joinpath("models").exists()
