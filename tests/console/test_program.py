"""Commands in a message begin with the name that was typed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tasks.console import program

pytestmark = pytest.mark.once


@pytest.fixture
def recipe() -> Iterator[None]:
    """The program is `llamafile-recipe`."""
    program.set_program("llamafile-recipe", ["serve", "cache-key", "list"])
    yield
    program.set_program("doit", [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fix: doit serve --model a", "fix: R serve --model a"),
        ("doit serve: option -x", "R serve: option -x"),
        ("doit serve:a", "R serve:a"),
        ("doit cache-key && doit …", "R cache-key && R …"),
        ("`doit` shows the models", "`R` shows the models"),
        ("Ctrl-C does not reach tasks of `doit -n`", "Ctrl-C does not reach tasks of `R -n`"),
        ('{"fix": "doit list"}', '{"fix": "R list"}'),
        # not a command
        ("run one doit at a time", "run one doit at a time"),
        ("doit serves", "doit serves"),
        ("doit serve-x", "doit serve-x"),
        ("/usr/bin/doit serve", "/usr/bin/doit serve"),
        ("a command of doit (pydoit.org)", "a command of doit (pydoit.org)"),
        ("outdoit serve", "outdoit serve"),
    ],
)
@pytest.mark.usefixtures("recipe")
def test_as_typed(text: str, expected: str) -> None:
    """Issue 14.1: `doit VERB` anywhere; in backquotes also `doit` alone and with an option."""
    assert program.as_typed(text) == expected.replace("R ", "llamafile-recipe ").replace(
        "`R`", "`llamafile-recipe`"
    )


def test_doit_itself() -> None:
    """The messages are written for it."""
    assert program.as_typed("`doit serve`") == "`doit serve`"
