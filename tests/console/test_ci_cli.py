"""A run in the log of a CI system, in which an engine cannot issue commands."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.console.ci import escape_workflow_commands
from tasks.console.text import visible
from tasks.doit_adapter import escape_stream

from tests.console.test_ci import runner_sees, said, unescape
from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import Project
from tests.support.servers import record, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

GITHUB = {"CI": "true", "GITHUB_ACTIONS": "true"}
HOSTILE = "::set-output name=x::y\n  ::stop-commands::z\n\t::add-mask::1\nx ##[add-path]/tmp\n::error::no\n"


def shape(text: str) -> str:
    """A log without what differs from run to run."""
    return re.sub(r"\d+(\.\d+)? (ms|s|kB|MB|MB/s)\b", "N", text)


def test_folds(project: Project) -> None:
    """Issue 5.9, R35: what a task says is in its group, what it took behind it; what is done is a line."""
    with_llamafile(project)
    plain = project.doit("verify:m", env={"CI": "true", "LLAMAFILE_CACHE": str(project.path / "other")})
    first = project.doit("verify:m", env=GITHUB)
    assert re.fullmatch(
        "::group::download:m\nm: .* sha256 verified\n::endgroup::\n   download:m took .*\n"
        "::group::chmod:m\n::endgroup::\n   chmod:m took .*\n"
        "::group::verify:m\nm: engine OK, .*\n::endgroup::\n   verify:m took .*\n",
        first.err,
    )
    lines = [line for line in shape(first.err).splitlines() if line != "::endgroup::"]
    assert [re.sub("^::group::", ".  ", line) for line in lines] == shape(plain.err).splitlines()
    assert project.doit("verify:m", env=GITHUB).err == "-- download:m\n-- chmod:m\n-- verify:m\n"


def test_reports_and_what_a_step_is_for_are_not_folded(servers: Project) -> None:
    """Issue 5.9: `with` shows its command's output, a report is nothing but the report."""
    with_llamafile(servers)
    result = servers.background("with", "--model", "m", "--", "sh", "-c", "echo mine >&2", env=GITHUB)
    assert result.status == 0
    assert "mine\n" in result.err[result.err.rindex("::endgroup::") :]
    result = servers.doit(env=GITHUB)
    assert (result.status, result.err) == (0, "")
    assert "::" not in result.out


def test_events_stay_objects(project: Project) -> None:
    """R25: LLAMAFILE_LOG=json is for programs: every line is an object, also there."""
    with_llamafile(project)
    result = project.doit("verify:m", env={**GITHUB, "LLAMAFILE_LOG": "json"})
    assert all(line.startswith("{") for line in result.err.splitlines())


@pytest.mark.parametrize(
    ("words", "title"),
    [
        pytest.param(["verify"], "verify%3Am", id="a task"),
        pytest.param(["serve", "--host", "192.0.2.1"], "serve%3Am", id="before it"),
        pytest.param(["verify:n"], "llamafile-recipe", id="the command line"),
    ],
)
def test_an_error_is_an_annotation(project: Project, words: list[str], title: str) -> None:
    """Issue 5.9, R28: one line with all that the message says; and the message itself, as elsewhere."""
    with_llamafile(project)
    behave(project, version_status=3, version_text="100 % of it\nfails")
    result = project.doit(*words, env=GITHUB)
    assert (result.status, result.out) == (3 if words == ["verify:n"] else 1, "")
    [(found, text)] = re.findall("^::error(?: title=(.*?))?::(.*)$", result.err, re.MULTILINE)
    assert found == title
    assert f"ERROR: {unescape(text)}\n" in result.err
    assert "\n  fix: " in unescape(text) or "\n  output:" in unescape(text)
    assert result.err.count("::group::") == result.err.count("::endgroup::")
    assert words != ["verify"] or "\n::endgroup::\n::error " in result.err  # not where nobody looks


def test_an_engine_cannot_speak_to_the_runner(servers: Project) -> None:
    """Issue 5.9: its version, its last words, its log: no line of them is a command."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, version_status=3, version_text=HOSTILE)
    ours = re.compile(r"::(group|endgroup|error)(::| title=verify%3Am::)")
    result = servers.doit("verify", env=GITHUB)
    assert result.status == 1
    assert [line for line in runner_sees(result.err) if not ours.match(line)] == []
    assert (
        result.err.count("::error") == 1 + 2
    )  # the annotation, which has the engine's in it, and the text's
    assert "      |::set-output name=x::y\n" in result.err
    assert "      ::set-output name=x::y\n" in servers.doit("verify", env={"CI": "true"}).err
    behave(servers, version_text="llamafile v0.10.5 ##[add-path]/tmp")
    result = servers.doit("verify", env=GITHUB)
    assert "m: engine OK, llamafile v0.10.5 ##|[add-path]/tmp\n" in result.err
    started(servers, "--port", "0")
    with Path(record(servers)["log"]).open("a") as log:
        log.write(HOSTILE)
    plain, safe = (servers.doit("logs", env=env).out for env in ({}, GITHUB))
    assert plain.endswith(HOSTILE)
    assert safe.replace("|::", "::").replace("##|[", "##[") == plain
    assert not runner_sees(safe)


@given(said, st.lists(st.integers(0, 60)))
def test_however_it_comes_in_pieces(text: str, cuts: list[int]) -> None:
    """Issue 5.9: a command that comes in two blocks is none, either; elsewhere they pass as they are."""
    ends = [0, *sorted(cuts), len(text)]
    blocks = [text[a:b] for a, b in pairwise(ends)]
    with pytest.MonkeyPatch.context() as patch:
        assert list(escape_stream(blocks)) == blocks
        patch.setenv("GITHUB_ACTIONS", "true")
        assert "".join(escape_stream(blocks)) == escape_workflow_commands(
            visible("".join(blocks)), os.environ
        )


def test_a_model_cannot_speak_to_the_runner(servers: Project) -> None:
    """Issue 5.9: an answer in pieces has no command in it, either; elsewhere it is as it came."""
    with_llamafile(servers, version="0.10.5")
    started(servers, "--port", "0")
    for env, answer in ((GITHUB, "|::set-output name=x::y\n"), ({}, "::set-output name=x::y\n")):
        result = servers.doit("chat", "--model", "m", "::set-output name=x::y", env=env)
        assert (result.status, result.out) == (0, answer), result.err
