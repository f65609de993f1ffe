"""Every command that an error shows can be pasted (issue 14): whole lines, and what is in backticks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from tasks.errors import UsageError

from tests.support.command_lines import parse
from tests.support.project import REPO, Project

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
PLACEHOLDER = re.compile(r"…|\b[A-Z]{3,}\b")  # as in `doit with … -- COMMAND`
# verbs that end by themselves, and whose work is small
RUN = ("add", "download", "lock", "prune", "status", "verify")


@pytest.fixture
def own(project: Project) -> Project:
    """A project with a model that is here, in a path with a blank, and one that is not."""
    (project.path / "my model.gguf").write_bytes(DEMO)
    models = {
        "far": project.entry("https://models.invalid/far.gguf", b"far", engine="embedded"),
        "near": project.entry("my model.gguf", engine="embedded"),
    }
    project.catalogue(models)
    return project


def commands(err: str) -> Iterator[list[str]]:
    """Yield the words of each command in the fix of an error; several may be joined by `&&`."""
    found = re.search(r"^  fix:(?: (.*)|((?:\n      .*)+))", err, re.MULTILINE)
    assert found, err
    for line in (found[1] or found[2]).strip().splitlines():
        shown = re.findall(r"`([^`]+)`", line)
        if line.strip().startswith(("doit ", "git ")):
            shown = [line.strip()]
        for command in shown:
            if not PLACEHOLDER.search(command):
                yield from (shlex.split(part) for part in command.split(" && "))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("serve ''", ["doit"]),
        ("start ' '", ["doit"]),
        ("with near echo 'a b'", ["doit with near -- echo 'a b'"]),
        ("with --port 0 near -- ", []),
        ("chat Hello", ["doit download far"]),
        ("chat far Hello", ["doit download far"]),
        ("chat ''", ["doit chat 'What is a llamafile?'"]),
        ("download nothing", ["doit"]),
        ("serve near far", ["doit serve --model near"]),
        ("serve my model.gguf", []),
        ("serve hf:o/r/m.gguf", ["doit add hf:o/r/m.gguf"]),
        ("prune:near", ["doit prune"]),
        ("lock --json", ["doit lock --check --json"]),
        ("lock --check", ["doit lock"]),
        ("download near --frozen", ["doit lock --model near"]),
        ("cache-key near", ["doit lock --model near"]),
        ("logs", ["doit start"]),
        ("logs near", ["doit start --model near"]),
        ("logs --port 9", ["doit status"]),
        ("roll near", ["doit start --model near"]),
        ("stop --port 0", ["doit status"]),
        ("restart", []),
        ("add 'my model.gguf' --name near", ["doit add 'my model.gguf' --name near-2"]),
        ("add", []),
        ("help xyzzy", ["doit help"]),
        ("serve -- --port 9", []),
    ],
)
def test_a_fix_can_be_pasted(own: Project, line: str, expected: list[str]) -> None:
    """It is what the error should name, it is a command line, and it is not refused as one."""
    result = own.doit(*shlex.split(line))
    assert result.status in (1, 3), result
    shown = list(commands(result.err))
    assert [shlex.join(words) for words in shown] == expected
    for _, *words in shown:
        try:
            parse(words)
        except UsageError as error:
            pytest.fail(f"{words}: {error}")
        if words and words[0] in RUN:
            assert own.doit(*words).status != 3


def test_a_damaged_lock(own: Project) -> None:
    """Issue 14.4: both ways on are commands, whatever the path; the second one needs no git."""
    place = own.path / "models.lock"
    assert own.doit("lock", "--model", "near").status == 0
    whole = place.read_bytes()
    place.write_bytes(whole + b"more: 1\n")
    checkout, remove, lock = commands(own.doit("plan").err)
    assert checkout == ["git", "checkout", str(place)]
    assert remove == ["rm", str(place)]
    place.unlink()
    assert own.doit(*lock[1:], "--model", "near").status == 0
    assert place.read_bytes() == whole
