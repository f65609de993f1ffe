"""Which engine serves a file, and why: the rule of docs/engines.md."""

from __future__ import annotations

import pytest
from tasks.catalogue.engine_choice import Question, alternatives, choose_engine, written_engine
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import resolve
from tasks.errors import UsageError

from tests.support.catalogues import VALID, catalogue
from tests.support.command_lines import parse

pytestmark = pytest.mark.once

BOTH = ("embedded", "llama-server")
GGUF, OWN, ENTRY = True, True, False


@pytest.mark.parametrize(
    ("requested", "entry", "is_gguf", "is_own", "windows", "installed", "engine", "reason"),
    [
        ("embedded", "llamafile", GGUF, ENTRY, False, (), "embedded", "--engine"),
        ("llama-server", None, GGUF, OWN, False, BOTH, "llama-server", "--engine"),
        ("llamafile", None, False, OWN, False, (), "llamafile", "--engine"),
        (None, "llama-server", GGUF, ENTRY, False, (), "llama-server", "`engine:` of the model"),
        (None, "embedded", GGUF, ENTRY, True, (), "embedded", "`engine:` of the model"),
        (None, "self", False, ENTRY, False, (), "self", "`engine:` of the model"),
        (None, "self", False, ENTRY, True, (), "llamafile", "Windows cannot start the .llamafile itself"),
        (None, None, False, ENTRY, False, BOTH, "self", "a .llamafile contains its engine"),
        (None, None, False, OWN, True, BOTH, "llamafile", "Windows cannot start the .llamafile itself"),
        (None, None, GGUF, ENTRY, False, BOTH, "llamafile", "models.yaml pins llamafile"),
        (None, None, GGUF, OWN, False, BOTH, "embedded", "the package xllamacpp is installed"),
        (None, None, GGUF, OWN, False, ("llama-server",), "llama-server", "llama-server is on PATH"),
        (None, None, GGUF, OWN, True, ("llama-server",), "llama-server", "llama-server is on PATH"),
        (None, None, GGUF, OWN, False, (), "llamafile", "no other engine is installed"),
    ],
)
def test_the_rule(
    requested: str | None, entry: str | None, is_gguf: bool, is_own: bool, windows: bool,
    installed: tuple[str, ...], engine: str, reason: str,
) -> None:  # fmt: skip
    """The command line, then the entry, then the file; what is installed serves a file of one's own."""
    choice = choose_engine(Question(requested, entry, is_gguf, is_own, windows, installed))
    assert choice.engine == engine
    assert choice.reason.endswith(reason)


@pytest.mark.parametrize(
    ("is_own", "installed", "pinned", "engine", "reason"),
    [
        (ENTRY, BOTH, ("llamafile", "llama-server"), "llamafile", "models.yaml pins llamafile"),
        (ENTRY, (), ("llama-server",), "llama-server", "models.yaml pins llama-server"),
        (ENTRY, (), (), "llamafile", "models.yaml pins llamafile"),
        (OWN, BOTH, ("llama-server",), "embedded", "the package xllamacpp is installed"),
        (OWN, (), ("llamafile", "llama-server"), "llama-server", "and models.yaml pins llama-server"),
        (OWN, (), ("llamafile",), "llamafile", "no other engine is installed"),
    ],
)
def test_where_a_pinned_release_comes(
    is_own: bool, installed: tuple[str, ...], pinned: tuple[str, ...], engine: str, reason: str
) -> None:
    """After the llamafile of models.yaml for a model, before it for a file of one's own: it is smaller."""
    question = Question(None, None, GGUF, is_own, installed=installed, pinned=pinned)
    choice = choose_engine(question)
    assert choice.engine == engine
    assert choice.reason.endswith(reason)


@pytest.mark.parametrize(
    ("installed", "has_pinned", "has_embedded", "engine"),
    [
        (BOTH, True, True, "embedded"),
        (BOTH, True, False, "llama-server"),
        (("llama-server",), True, True, "llama-server"),
        (("llama-server",), False, True, "llama-server"),
        (("embedded",), True, False, ""),
        ((), True, True, ""),
        ((), False, True, "embedded"),
    ],
)
def test_the_engine_that_add_writes(
    installed: tuple[str, ...], has_pinned: bool, has_embedded: bool, engine: str
) -> None:
    """What serves an own file today; nothing where that is the llamafile of models.yaml."""
    assert written_engine(installed, has_pinned=has_pinned, has_embedded=has_embedded) == engine


@pytest.mark.parametrize(
    ("engine", "installed", "is_gguf", "text"),
    [
        ("llama-server", BOTH, GGUF, "or try another engine: --engine embedded, --engine llamafile"),
        ("embedded", BOTH, GGUF, "or try another engine: --engine llama-server, --engine llamafile"),
        ("llamafile", BOTH, GGUF, "or try another engine: --engine embedded, --engine llama-server"),
        ("embedded", ("embedded",), GGUF, "or try another engine: --engine llamafile"),
        ("llamafile", ("embedded",), GGUF, "or try another engine: --engine embedded"),
        ("llamafile", (), GGUF, ""),
        ("self", BOTH, False, ""),
        ("llamafile", BOTH, False, ""),
    ],
)
def test_the_alternatives_of_a_failing_engine(
    engine: str, installed: tuple[str, ...], is_gguf: bool, text: str
) -> None:
    """Issue 15.3: only a GGUF is read by several engines; one that is not installed is not named."""
    assert alternatives(engine, installed, is_gguf=is_gguf) == text


def test_the_program_of_a_machine() -> None:
    """Its path is asked for where llama-server is the engine, or may be."""
    asked: list[str] = []

    def find(name: str) -> str:
        asked.append(name)
        return f"/opt/bin/{name}"

    place = Environment("linux", "/cache", "/recipe", "/home/me", find_program=find)
    for line, program in (
        ("serve:big", ""),
        ("serve:big --engine embedded", ""),
        ("serve:big --engine llama-server", "/opt/bin/llama-server"),
        ("serve --llamafile x.gguf", "/opt/bin/llama-server"),
    ):
        [resolved] = resolve(parse(line.split()), catalogue(VALID), place).by_name.values()
        assert (resolved.program.target if resolved.program else "") == program, line
        assert resolved.exe is None or resolved.engine == "llamafile"
    assert set(asked) == {"llama-server"}
    with pytest.raises(UsageError, match="tiny is a llamafile, but the engine llama-server reads GGUF files"):
        resolve(parse(["serve:tiny", "--engine", "llama-server"]), catalogue(VALID), place)
