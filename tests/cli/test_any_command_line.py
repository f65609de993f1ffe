"""Whatever is typed ends in a documented status, without a traceback or doit's dump of its options.

LLAMAFILE_FUZZ=long runs 200 command lines as processes, not only a few.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import doit.loader
import llamafile_recipe
import llamafile_recipe_doit
import pytest
from doit.control import TaskControl
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.case import STATUSES
from tests.support import in_process  # noqa: F401  # doit looks for plugins once
from tests.support.command_lines import VERBS
from tests.support.project import REPO, Project

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(os.name == "nt", reason="the status of a killed program is another one"),
]
IS_LONG = os.environ.get("LLAMAFILE_FUZZ") == "long"

NOISE = (
    "", " ", "=", "a=b", "--", "-", ":", "serve:", ":m", "*", "tiny*", "m", "M", "nobody", "-1", "0",
    "8080", "./x.gguf", "my", "model.gguf", "~/x.llamafile", "https://x.invalid/a?b=c", "hf:a/b/c.gguf",
    "30d", "\x1b[2J", "a\nb", "::error::x", "\u202e", "é", "-h", "--help", "--version", "--json",
    "--model", "--model=", "-x", "--always", "-v", "-k", "-f", "-n", "-a", "%s", "%(default)s", "{0}",
    "[red]", "x" * 5000,
)  # fmt: skip
OF_DOIT = (
    "help", "list", "info", "forget", "ignore", "clean", "reset-dep", "run", "dumpdb", "strace", "task",
)  # fmt: skip
OPTIONS = sorted({f"--{option['long']}" for verb in VERBS.values() for option in verb.params})

NOISES = st.sampled_from(NOISE) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
VERB = st.sampled_from(sorted(VERBS)) | st.builds("{}:{}".format, st.sampled_from(sorted(VERBS)), NOISES)
OPTION = st.sampled_from(OPTIONS) | st.builds("{}={}".format, st.sampled_from(OPTIONS), NOISES)
WORD = VERB | OPTION | NOISES | st.sampled_from(OF_DOIT)
LINE = st.builds(lambda first, rest: [first, *rest], VERB | WORD, st.lists(WORD, max_size=6))


class Load(llamafile_recipe_doit.Run):
    """`doit run` up to the first task: what it selects is there, and nothing of it is executed."""

    name = "run"

    def _execute(self, pos_args: list[str]) -> int:
        TaskControl(self.task_list).process(self.sel_tasks)
        return 0


class LoadOnly(llamafile_recipe.Main):
    """The command line of the recipe, which executes no task."""

    DOIT_CMDS = (*llamafile_recipe.Main.DOIT_CMDS, Load)


@pytest.fixture
def recipe(project: Project) -> Iterator[Path]:
    """The recipe's own dodo.py, with a small catalogue and an empty cache.

    Not one of the module: each test begins without such variables (conftest.py).
    """
    small(project)
    names = {"LLAMAFILE_CATALOGUE": str(project.path / "models.yaml"), "LLAMAFILE_CACHE": str(project.cache)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**names, "DOIT_FILE": str(REPO / "dodo.py")}.items():
            patch.setenv(name, value)
        patch.chdir(project.path)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", [])
        yield project.path
    doit.loader.initial_workdir = None


def small(project: Project) -> None:
    """A catalogue with two models that no machine has; it is compiled once."""
    project.cache.mkdir()
    models = {name: project.entry(f"https://models.invalid/{name}.llamafile") for name in ("m", "tiny")}
    project.catalogue(models)


@settings(max_examples=2000, derandomize=True)
@given(words=LINE)
def test_what_is_loaded(recipe: Path, words: list[str]) -> None:
    """Issue 14.1: the words are parsed and the tasks are made, in this process."""
    from dodo import recipe as verbs

    sys.argv[:] = ["doit", *words]
    vars(verbs).pop("_context", None)
    os.chdir(recipe)
    stderr, sys.stderr = sys.stderr, Kept()
    try:
        status = LoadOnly(llamafile_recipe.RecipeLoader()).run(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        kept, sys.stderr = sys.stderr, stderr
    assert status in STATUSES
    check(str(kept))


class Kept:
    """A stream that keeps what is written."""

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> None:
        self._text += text

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def flush(self) -> None:
        """Nothing waits."""

    def __str__(self) -> str:
        return self._text


def check(said: str) -> None:
    """No traceback, no dump, no line that a terminal or GitHub obeys."""
    assert "Traceback" not in said
    assert "CmdOption" not in said
    assert "\x1b" not in said
    assert not [line for line in said.splitlines() if line.startswith("::error::x")]


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose models cannot be fetched, so that no server starts."""
    project = Project(tmp_path_factory.mktemp("processes"))
    small(project)
    project.env["LLAMAFILE_OFFLINE"] = "1"
    return project


@settings(max_examples=200 if IS_LONG else 5, derandomize=True)
@given(words=LINE)
def test_what_runs(offline: Project, words: list[str]) -> None:
    """Issue 14.1: as a process, to its end."""
    if not [word for word in words if "\0" in word]:
        result = offline.process(*words, stdin="")
        assert result.status in (*STATUSES, 127, 130)
        check(result.err)
