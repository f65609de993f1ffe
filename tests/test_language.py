"""The code and the docs are written in the field's plain technical English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "tasks").rglob("*.py"))
FIRST_LINE = 80  # columns of a docstring's first line
TERNARIES = 8  # conditional expressions in 1,000 lines: a decision has its own line

# idioms that were removed once; git, uv and curl do not use them
PHRASES = {
    r"\bleav\w+ [^.\n]{1,30} away\b": "remove …",
    r"(?<!\bthere )\bis no (?!longer|more\b|other|such|doubt)\w+": "is not a …",
    r"\bnobody\b": "name the subject: no program, no entry, no user",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bgoes alone\b": "cannot be combined with other tasks",
    r"\bstands? twice\b": "appears twice",
    r"\bruns already\b": "is already running",
    r"\bmay not be had\b": "is not available",
    r"\btold the time\b": "the server sent no Date header",
    r"\bcannot be meant\b": "is not a valid combination",
    r"\bwhoever\b": "any user, any process",
    r"\bas it is said\b|\bit is said\b": "name who says it",
    r"\bhas gone\b": "does not exist any more",
    r"\bstands behind\b": "follows",
    r"\bis made anew\b|\bbegun anew\b": "is recreated, is restarted",
    r"\bof theirs\b|\bof ours\b": "name the owner",
}
TEXTS = [
    *(ROOT / name for name in ("dodo.py", "models.yaml", "action.yml", "completion.sh")),
    *MODULES,
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "ci").iterdir()),
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_phrase_that_a_reader_has_to_decode(phrase: str) -> None:
    """Each phrase has a plain replacement."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(phrase, line, re.IGNORECASE)
    ]
    assert not found, f"write {PHRASES[phrase]!r} instead"


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and first docstring line of each definition in a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text.splitlines()[0]


def test_first_lines_of_docstrings_are_short() -> None:
    """A reader sees them whole in `help()` and in an editor's tooltip."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        for line, first in docstrings(path)
        if len(first) > FIRST_LINE
    ]
    assert not found


def test_a_line_holds_one_decision() -> None:
    """Conditional expressions stay rare."""
    texts = [path.read_text("utf-8") for path in MODULES]
    lines = sum(text.count("\n") for text in texts)
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    count = sum(isinstance(node, ast.IfExp) for node in nodes)
    assert count * 1000 <= TERNARIES * lines, count
