"""What a server is started with: the key's way into the engine, and its variables."""

from __future__ import annotations

import pytest
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import resolve
from tasks.engine.launch_spec import LaunchSpec, launch_spec
from tasks.engine.version import launch_of

from tests.support.catalogues import catalogue
from tests.support.command_lines import parse

MARK = "0123456789abcdef"
PLACE = Environment("linux", "/cache", "/recipe", "/home/me")


def specified(line: str, key: str = "", version: str = "") -> LaunchSpec:
    [resolved] = resolve(parse(line.split()), catalogue(), PLACE).by_name.values()
    return launch_spec(resolved, launch_of("linux", resolved), version=version, key=key)


@pytest.mark.parametrize(
    "line", ["serve:tiny", "serve:big", "serve:big --engine embedded", "serve:big --engine llama-server"]
)
def test_how_the_engine_gets_its_key(line: str) -> None:
    """R30, issue 15.1: in a file, never on the command line and never in a variable."""
    spec = specified(line, "sk-1234")
    assert spec.variables(MARK) == {"LLAMAFILE_RECIPE_RUN": MARK}
    words = spec.argv(8080, "/run/m.key")
    assert words[words.index("--api-key-file") + 1] == "/run/m.key"
    assert "sk-1234" not in str(words)


@pytest.mark.parametrize(
    ("line", "version", "title"),
    [
        ("serve:tiny", "0.9.3", "llamafile 0.9.3"),
        ("serve:big", "", "llamafile"),
        ("serve:big --engine embedded", "0.1", "embedded 0.1"),
    ],
)
def test_the_engines_title(line: str, version: str, title: str) -> None:
    """R35: what the log of a start names."""
    assert specified(line, version=version).engine_title == title


@pytest.mark.parametrize(
    ("line", "count"), [("serve:tiny", 1), ("serve:big", 2), ("serve:big --engine embedded", 1)]
)
def test_every_file_is_compared_before_the_start(line: str, count: int) -> None:
    """Issue 11.2: the model's files, and the engine's program."""
    assert len(specified(line).files) == count
