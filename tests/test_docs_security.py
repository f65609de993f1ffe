"""docs/security.md names a test for each check, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)


def test_each_named_test_exists() -> None:
    """In the file that is named."""
    gone = [
        f"{path}::{name}"
        for path, name in NAMED
        if not (ROOT / "tests" / path).exists()
        or not re.search(rf"^ *def {name}\(", (ROOT / "tests" / path).read_text("utf-8"), re.MULTILINE)
    ]
    assert NAMED
    assert not gone


def test_each_check_names_a_test() -> None:
    """A row of a table that names a check has a test, or says that there is no check."""
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "Attack" not in line]
    bare = [row for row in rows if "::" not in row and "not prevented" not in row]
    assert rows
    assert not bare
