"""Completion as it is typed: bash and zsh on a terminal, with completion.sh or with doit's own script."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.project import REPO, Project
from tests.support.terminal import Typing
from tests.test_readme import blocks

ENVIRONMENT = "docs/environment.md"
BASH, ZSH = shutil.which("bash") or "", shutil.which("zsh") or ""
LIBRARY = Path("/usr/share/bash-completion/bash_completion")  # what the script of doit's needs
pytestmark = pytest.mark.skipif(not BASH or os.name == "nt", reason="no bash on a terminal")

READY = r"printf 'is %s\n' ready"
# pressing Tab behind the one gives the other
TYPED = [
    ("doit ver", "doit verify "),  # a verb
    ("doit serve:mistral-v", "doit serve:mistral-v0.3 "),  # a model behind its verb
    ("doit verify:rock", "doit verify:rocket-3b "),  # of another verb
    ("doit download --model rock", "doit download --model rocket-3b "),  # behind --model
    ("doit start --model=rock", "doit start --model=rocket-3b "),  # in one word with it
    ("doit serve --force-", "doit serve --force-gpu "),  # an option
    ("doit deploy:kub", "doit deploy:kubernetes "),  # a kind of files
    ("doit help cat", "doit help catalogue "),  # behind a command of doit's
    ("doit with --model demo -- ls READ", "doit with --model demo -- ls README.md "),  # behind --
    ("doit serve rock", "doit serve rocket-3b "),  # a model behind a blank
    ("doit add --sha", "doit add --sha256 "),  # an option with digits
    ("doit serve --engine emb", "doit serve --engine embedded "),  # an engine
    ("doit start --gpu vul", "doit start --gpu vulkan "),  # a GPU
    ("doit with demo -- basenam", "doit with demo -- basename "),  # a command
    ("doit serve --llamafile READ", "doit serve --llamafile README.md "),  # a file
    ("doit plan llama3.2-1b-gguf --variant q4", "doit plan llama3.2-1b-gguf --variant q4 "),  # a variant
]

# what completion.sh asks about the commands that are typed here
VERBS = ("add", "catalogue", "chat", "deploy", "download", "plan", "serve", "start", "with")
ASKED = ("list --quiet", "list --all --quiet serve", *(f"help {verb}" for verb in VERBS))


def answer_at_once(project: Project, *asked: str) -> None:
    """Put a `doit` first on the PATH that repeats what these commands print in this project.

    Each Tab starts doit once or twice. With other words, or outside the project, it is doit itself.
    """
    folder = project.path.with_name("at-once")
    folder.mkdir()
    for words in asked:
        (folder / words).write_text(project.doit(*words.split()).out, "utf-8")
    program = folder / "doit"
    kept = f'"{folder}/$*"'
    program.write_text(
        f"""#!/bin/sh
        [ ! -e "${{DOIT_FILE:-dodo.py}}" ] || [ ! -e {kept} ] || exec cat {kept}
        exec "{project.doit_program}" "$@"
        """
    )
    program.chmod(0o755)
    project.env["PATH"] = f"{folder}{os.pathsep}{project.env['PATH']}"


@contextmanager
def shell(project: Project, program: str, first: str) -> Iterator[Typing]:
    """An interactive shell that has read no file of the user's, when it has run `first`."""
    shutil.copy2(REPO / "completion.sh", project.path)
    (project.path / "README.md").touch()
    words = ["-f", "-i"] if program == ZSH else ["--norc", "--noprofile", "-i"]
    with Typing(project, *words, program=program) as typing:
        typing.type(f"{first} && {READY}\n")
        typing.wait_for("is ready\n")
        yield typing
        typing.type("\x15exit\n")  # Ctrl-U takes the line away
        typing.finish()


def complete(typing: Typing, rows: list[tuple[str, str]]) -> None:
    """Type each text on a line of its own, and Tab behind it."""
    for typed, completed in rows:
        typing.type(f"{typed}\t")
        typing.wait_for(completed)
        typing.type(f"\x15{READY}\n")
        typing.wait_for("is ready\n")


@pytest.mark.parametrize(
    "program", [BASH, pytest.param(ZSH, marks=pytest.mark.skipif(not ZSH, reason="no zsh"))]
)
def test_completion(project: Project, program: str) -> None:
    """Issue 5.10: verbs, options and models, in both shells, with the lines of docs/environment.md."""
    answer_at_once(project, *ASKED, "help llama3.2-1b-gguf")
    [block] = blocks("zsh" if program == ZSH else "bash", ENVIRONMENT)
    lines = block.replace("~/llamafile-recipe", ".").replace("&& compinit &&", "&& compinit -u -D &&")
    with shell(project, program, "; ".join(line for line in lines.splitlines() if line[0] != "#")) as typing:
        complete(typing, TYPED)


@pytest.mark.skipif(not LIBRARY.exists(), reason="no package bash-completion")
def test_tabcompletion(project: Project) -> None:
    """Issue 5.10: what `doit tabcompletion` writes works with our verbs and models."""
    with shell(project, BASH, f". {LIBRARY} && . <(doit tabcompletion)") as typing:
        complete(typing, TYPED[:3])


def completed(project: Project, line: str, cwd: Path, env: Mapping[str, str] | None = None) -> list[str]:
    """What the function for bash offers at the end of a line."""
    script = """. "$1"; COMP_WORDBREAKS=$' :=' COMP_LINE=$2 COMP_POINT=${#2}
        _recipe_doit; printf '%s\\n' ${COMPREPLY[@]+"${COMPREPLY[@]}"}"""
    words = [BASH, "-euc", script, "bash", str(REPO / "completion.sh"), line]
    done = subprocess.run(
        words, cwd=cwd, env={**project.env, **(env or {})},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert not done.stderr
    return done.stdout.split()


def test_everything_that_fits(project: Project, tmp_path: Path) -> None:
    """Issue 5.10: from another folder, too; without a project there is nothing to offer, and no error."""
    answer_at_once(project, *ASKED)
    here, elsewhere = project.path, {"DOIT_FILE": str(project.path / "dodo.py")}
    assert completed(project, "doit st", here) == ["start", "status", "stop"]
    models = ["tinyllama", "tinyllama-q2", "tinyllama-q8"]
    assert completed(project, "doit chmod:tiny", here) == models
    line = "doit download --model demo verify --model tinyllama-"
    assert completed(project, line, tmp_path, elsewhere) == models[1:]
    assert completed(project, "doit serve --engine ", here) == [
        "self",
        "llamafile",
        "embedded",
        "llama-server",
    ]
    assert "vulkan" in completed(project, "doit serve --gpu ", here)
    assert "with" not in completed(project, "doit serve --gpu ", here)
    assert completed(project, "doit catalogue --kind ", here) == ["chat", "vision", "embedding", "rerank"]
    for option in ("--port", "--llamafile-url"):  # their values are not known
        assert completed(project, f"doit serve {option} ", here) == []
    assert "tinyllama" in completed(project, "doit serve --yes ", here)
    assert "--port" in completed(project, "doit serve --yes --po", here)
    assert "serve" not in completed(project, "doit serve -- --", here)
    assert completed(project, "doit serve --api", tmp_path, elsewhere) == ["--api-key"]
    assert "-f" not in completed(project, "doit chat -", here)
    assert completed(project, "doit serve:", tmp_path) == []


def test_variants(project: Project) -> None:
    """Issue 14: those of the models on the line; none without a model."""
    url = "https://models.invalid/{}.gguf"
    variants = {name: {"url": url.format(name)} for name in ("q4_k_m", "q8_0")}
    models = {name: {"title": "M", "license": "MIT", "engine": "embedded"} for name in "mn"}
    project.catalogue(
        {"m": {**models["m"], "variants": variants}, "n": {**models["n"], "url": url.format("n")}}
    )
    answer_at_once(project, *ASKED, "help m", "help n")
    rows: tuple[tuple[str, list[str]], ...] = (
        ("doit serve m --variant ", ["q4_k_m", "q8_0"]),
        ("doit plan --model=m --variant q8", ["q8_0"]),
        ("doit download --model m --variant=q4", ["q4_k_m"]),
        ("doit download:m --yes --variant ", ["q4_k_m", "q8_0"]),
        ("doit serve n --variant ", []),
        ("doit serve --variant ", []),
    )
    for line, expected in rows:
        assert completed(project, line, project.path) == expected, line


def test_the_list_of_a_verb(project: Project) -> None:
    """Issue 5.10: `doit list --all VERB` has the verb and a line per model; without one, those of serve."""
    shown = project.doit("list", "--all", "--quiet", "verify").out.split()
    assert shown[0] == "verify"
    assert "verify:mistral" in shown
    assert all(name.startswith("verify:") for name in shown[1:])
    every = project.doit("list", "--all", "--quiet").out.split()
    assert [n[6:] for n in every if n.startswith("serve:")] == [n[7:] for n in shown[1:]]
    assert not [n for n in every if ":" in n and not n.startswith("serve:")]
