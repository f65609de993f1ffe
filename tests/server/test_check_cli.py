"""`doit check`: the questions of `checks:` in models.yaml, with the real embedded engine and the demo."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from tasks.catalogue.check_options import Check
from tasks.server.checks import answer_text, problem_of
from tasks.system import bounded_regex

from tests.support.project import ENGINES, Project
from tests.support.servers import failed, records, started

HAS_EMBEDDED = importlib.util.find_spec("xllamacpp") is not None
embedded = pytest.mark.skipif(not HAS_EMBEDDED, reason="needs the embedded engine")
WHAT = {"ask": "What are you?", "contains": "tiny demo model"}


def with_checks(project: Project, *checks: dict[str, Any]) -> None:
    """Write a catalogue with the demo model as `m`."""
    model = {"title": "M", "license": "MIT", "url": "demo/demo.gguf", "engine": "embedded"}
    project.catalogue({"m": {**model, "checks": list(checks)}}, {"embedded": ENGINES["embedded"]})


@embedded
def test_all_pass(project: Project) -> None:
    """Issue 18.3: a server of its own, a table, JSON; the server has stopped."""
    result = project.doit("check", "demo", "--json")
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert (report["model"], report["passed"]) == ("demo", True)
    assert report["sha256"].startswith("72e99408")
    assert report["engine"].startswith("embedded 20")
    first = report["checks"][0]
    assert (first["ask"], first["passed"], first["problem"]) == ("What are you?", True, None)
    assert first["expected"] == {"contains": "tiny demo model"}
    assert "tiny demo model" in first["got"]
    assert first["predicted_per_second"] > 0
    assert "demo has stopped" in result.err
    assert not project.processes()


@embedded
def test_one_fails_on_the_server_that_runs(servers: Project) -> None:
    """Issue 18.3: status 1, with question, expected and got; a slow pattern ends, the server runs on."""
    slow = {"ask": "What are you?", "matches": "([a-zA-Z .,-]+)+!"}
    with_checks(servers, WHAT, {**WHAT, "contains": "a whale"}, slow)
    started(servers, "m", "--port", "0", "--api-key", "a-key")
    [record] = records(servers)
    result = servers.doit("check")
    assert result.status == 1
    passed = [line.split()[0] for line in result.out.splitlines()]
    assert passed[:4] == ["result", "passed", "failed", "failed"]
    said = result.err[result.err.index("ERROR: ") :]
    assert said.startswith("ERROR: m: 2 of 3 checks failed\n")
    lines = ("question: What are you?", "expected: contains 'a whale'", "got: I am the tiny demo model of")
    why = ("why: the answer does not have the text", "why: the search took longer than 5 s")
    for line in (*lines, *why):
        assert f"  {line}" in said
    assert "starting" not in result.err
    assert records(servers) == [record]


@embedded
def test_a_model_without_checks(project: Project) -> None:
    """Issue 18.3: the error names the key; nothing is downloaded or served."""
    with_checks(project)
    said = failed(project.doit("check", "m"), 1)
    assert said.startswith(
        f"ERROR: m has no checks in {project.path / 'models.yaml'}\n  fix: add `checks:` to models.m"
    )


@pytest.mark.parametrize(
    ("check", "answer", "problem"),
    [
        ({"contains": "five"}, "It is five.", ""),
        ({"contains": "Five"}, "It is five.", "the answer does not have the text"),
        ({"matches": r"(?i)\bFIVE\b"}, "It is five.", ""),
        ({"matches": "^five"}, "It is five.", "the answer does not match"),
        ({"matches": "x$"}, "y" * bounded_regex.MOST_TEXT + "x", "the answer does not match"),
    ],
)
def test_answers_are_compared(check: dict[str, str], answer: str, problem: str) -> None:
    """Issue 18.3: a text in its case, or a pattern in the first 65,536 characters."""
    assert problem_of(Check(ask="?", **check), answer) == problem  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"content": "Hello"}, "Hello"),
        ({"content": None, "reasoning_content": "I think"}, ""),
        ({"content": [1]}, None),
        ({}, None),
        ([], None),
    ],
)
def test_answers_are_read(message: Any, answer: str | None) -> None:
    """Issue 18.3: the response of a server may be anything."""
    assert answer_text(json.dumps({"choices": [{"message": message}]}).encode()) == answer
    assert answer_text(b"no JSON") is None
