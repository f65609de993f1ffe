"""`checks:` of a model in models.yaml: what is accepted, and what is refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tasks.catalogue import schema
from tasks.catalogue.compiled_form import is_catalogue
from tasks.catalogue.types import Catalogue
from tasks.errors import UsageError

from tests.test_readme import blocks

ENGINES = {"llamafile": {"title": "l", "license": "MIT", "version": "0.10.5", "url": "https://example.org/l"}}
GOOD = {"ask": "What is 2 + 3?", "contains": "5"}
PATTERN = "a regular expression of Python, up to 500 characters"
REFUSED: list[tuple[str, Any, str]] = [
    ("neither", [{"ask": "?"}], "checks.0: expected either contains or matches"),
    ("both", [{**GOOD, "matches": "5"}], "checks.0: expected either contains or matches"),
    ("no question", [{"contains": "5"}], "checks.0.ask: this key is required"),
    ("empty", [{**GOOD, "ask": ""}], "checks.0.ask: expected text of 1 to 4000 characters"),
    ("long", [{**GOOD, "contains": "x" * 4001}], "contains: expected text of 1 to 4000 characters"),
    ("not one", [{"ask": "?", "matches": "("}], f"checks.0.matches: expected {PATTERN}"),
    ("a later set", [{"ask": "?", "matches": "[[a]"}], f"checks.0.matches: expected {PATTERN}"),
    ("nested", [{"ask": "?", "matches": "a{99999999999}"}], f"checks.0.matches: expected {PATTERN}"),
    ("long", [{"ask": "?", "matches": "x" * 501}], f"checks.0.matches: expected {PATTERN}"),
    ("time", [{**GOOD, "max_seconds": 0}], "max_seconds: expected a number from 0.1 to 3600"),
    ("a key", [{**GOOD, "temprature": 1}], "temprature: unknown key; did you mean temperature?"),
    ("many", [GOOD] * 51, "checks: expected at most 50 checks"),
    ("not a list", GOOD, "checks: expected a list"),
]


def compiled(**keys: Any) -> dict[str, Any]:
    entry = {
        "title": "M",
        "license": "MIT",
        "url": "https://example.org/m.gguf",
        "engine": "embedded",
        **keys,
    }
    data = {"version": 1, "default": "m", "engines": {}, "models": {"m": entry}}
    return schema.compile_catalogue(json.dumps(data), "m.yaml")


@pytest.mark.parametrize(("checks", "error"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_refused(checks: Any, error: str) -> None:
    """Issue 18.3: the error names the key and what is expected."""
    with pytest.raises(UsageError) as caught:
        compiled(checks=checks)
    assert error in str(caught.value)


def test_other_kinds_have_none() -> None:
    """Issue 18.3: there is no answer in words to compare."""
    with pytest.raises(UsageError, match=r"models\.m\.checks: only for kind: chat, and this is kind: rerank"):
        compiled(checks=[GOOD], kind="rerank")


def test_what_is_accepted() -> None:
    """Issue 18.3: the defaults, and the compiled catalogue in the cache is checked, too."""
    more = {"ask": "?", "matches": r"\b5\b", "system": "Be brief.", "max_seconds": 2.5, "temperature": 1}
    plain = json.loads(json.dumps(compiled(checks=[GOOD, more])))
    assert is_catalogue(plain)
    first, second = Catalogue(plain, "m.yaml").model("m").checks
    assert (first.ask, first.contains, first.max_seconds, first.temperature) == (
        "What is 2 + 3?",
        "5",
        120,
        0,
    )
    assert (second.matches, second.system, second.max_seconds) == (r"\b5\b", "Be brief.", 2.5)
    assert (first.expected, second.expected) == ("contains '5'", r"matches \b5\b")
    plain["models"]["m"]["checks"] = [{"ask": 5}]
    assert not is_catalogue(plain)


def test_the_example_of_the_docs() -> None:
    """docs/upgrades.md: the entry as pasted."""
    [entry] = yaml.safe_load(blocks("yaml", "docs/upgrades.md")[0])["models"].values()
    checks = schema.compile_catalogue(
        json.dumps({"version": 1, "default": "m", "engines": ENGINES, "models": {"m": entry}}), "m.yaml"
    )["models"]["m"]["checks"]
    assert [check["ask"].split()[0] for check in checks] == ["What", "Write"]
