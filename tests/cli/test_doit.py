"""What doit itself does wrong, and llamafile_recipe.py corrects (docs/adr/0014)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import doit.doit_cmd
import doit.plugin
import llamafile_recipe
import llamafile_recipe_doit
import pytest

from tests.fuzz.case import STATUSES
from tests.server.test_serve_cli import with_llamafile
from tests.support import in_process
from tests.support.project import REPO, Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

PRINTS = "import sys; print(sys.argv[1:])"


@pytest.mark.parametrize("name", ["llamafile_recipe", "llamafile_recipe_doit", "llamafile_recipe_compose"])
def test_what_pip_installed_is_this_one(tmp_path: Path, name: str) -> None:
    """Where this fails, `pip install .` in the checkout is needed once more."""
    code = f"import {name}; print({name}.__file__)"
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    installed = Path(done.stdout.strip())
    assert installed.read_bytes() == (REPO / f"{name}.py").read_bytes()


def test_doit_still_needs_it() -> None:
    """Where this fails, doit is corrected: remove what ADR 14 describes."""
    with pytest.raises(IndexError):
        doit.doit_cmd.DoitMain().process_args([""])


def test_plugins_are_not_searched(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """doit itself searches twice before the loader; each search reads every installed package."""
    searched = []
    found = doit.plugin.entry_points

    def entry_points(group: str) -> object:
        searched.append(group)
        return found(group=group)

    monkeypatch.setattr(doit.plugin, "entry_points", entry_points)
    assert project.doit("list").status == 0
    assert searched == ["doit.COMMAND", "doit.LOADER"]


@pytest.mark.parametrize("words", [[""], ["", "a", ""], ["a b", "", "--", ""]])
def test_empty_arguments_are_the_commands(project: Project, words: list[str]) -> None:
    """F3: `doit with` passes them on."""
    with_llamafile(project)
    result = project.process("with", "--", sys.executable, "-c", PRINTS, *words)
    assert (result.status, result.out) == (0, f"{words}\n"), result.err


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        ([""], 3, "ERROR: '' is not a verb\n  fix: `doit list` shows the verbs"),
        (["run", ""], 3, "ERROR: '' is not a verb\n  fix: `doit list` shows the verbs"),
        (["download", ""], 3, "ERROR: '' is not a verb\n"),
        (["download", "", "--model", "m"], 3, "ERROR: '' is not a verb\n"),
        (["download", "--model", ""], 3, "ERROR: doit download: --model: expected a name, got ''\n"),
        (["plan", "--model="], 3, "ERROR: doit plan: --model: expected a name, got ''\n"),
        (["serve", "--port", ""], 3, "ERROR: --port: expected a whole number"),
        (["logs", "-n", ""], 3, "ERROR: -n: expected a number of lines, got ''\n"),
        (["chat", ""], 1, "ERROR: there is no question\n  fix: doit chat "),
        (["chat", "--", "", " "], 1, "ERROR: there is no question\n  fix: doit chat "),
        (["with", "--", ""], 127, "ERROR: there is no command ''\n"),
        (["info", ""], 3, "ERROR: '' is not a verb\n"),
        (["list", ""], 3, "ERROR: '' is not a verb"),
        (["forget", ""], 3, "ERROR: `doit forget` has no effect here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_usage_error(project: Project, args: list[str], status: int, said: str) -> None:
    """F3: an empty argument is named like any other wrong one, without a traceback."""
    with_llamafile(project)
    result = project.doit(*args, stdin="")
    assert (result.status, result.out) == (status, "")
    assert said in result.err


@pytest.mark.parametrize("args", [("download", "--model", ""), ("dumpdb",)], ids=" ".join)
def test_what_doit_itself_cannot_take(args: tuple[str, ...], project: Project) -> None:
    """Fuzzed command lines have empty words, too (issue 14)."""
    assert project.doit(*args).status in STATUSES


def test_variables_are_still_doits(project: Project) -> None:
    """A word with `=` is a variable, as doit has it; one that begins with - is none."""
    code = "import doit\nprint(doit.get_var('a'), doit.get_var('b'), doit.get_var('c'))\n"
    path = project.path / "dodo.py"
    path.write_text(f"{code}DOIT_CONFIG = {{'default_tasks': []}}\n", "utf-8")
    assert project.doit("a=1=2", "b=", "", "x" * 0).out == "1=2  None\n"


def test_a_folder_without_doit_cfg(project: Project, tmp_path: Path) -> None:
    """There doit is as it is; with a copy of doit.cfg the empty argument is taken."""
    with_llamafile(project)
    command = ["with", "--", sys.executable, "-c", PRINTS, ""]
    done = subprocess.run(
        [project.doit_program, *command],
        cwd=tmp_path,
        env={**project.env, "DOIT_FILE": str(project.path / "dodo.py")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "IndexError" in done.stderr  # doit's own
    shutil.copy2(REPO / "doit.cfg", tmp_path)
    result = project.process(*command, cwd=tmp_path)
    assert (result.status, result.out) == (0, "['']\n"), result.err


def test_a_name_where_doit_cfg_is_not(project: Project, tmp_path: Path) -> None:
    """ADR 15: doit itself knows no such word; the fix is what it knows, and can be pasted."""
    with_llamafile(project)
    run = ["run", "-f", str(project.path / "dodo.py"), "plan"]  # -f of `run`: no entry point sees it
    done = plain_doit(project, *run, "m", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "ERROR: 'm' is not a verb\n  fix: doit plan --model=m\n"
    assert plain_doit(project, *run, "--model=m", cwd=tmp_path).returncode == 0


def test_several_tasks_at_once_where_nothing_forks(project: Project) -> None:
    """macOS, Windows, and Linux from Python 3.14: doit -n takes threads, because tasks cannot be pickled."""
    program = (
        "import multiprocessing as m; m.set_start_method('spawn'); from doit.__main__ import main; main()"
    )
    command = [sys.executable, "-c", program, "-n", "2", "download:demo"]
    result = subprocess.run(
        command, cwd=project.path, env=project.env, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert "demo: 2.25 MB in " in result.stderr


def plain_doit(project: Project, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `doit` in a directory without doit.cfg."""
    return subprocess.run(
        [project.doit_program, *words], cwd=cwd, env={**project.env, **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def installed(project: Project, tmp_path: Path) -> Project:
    """A project with doit's entry points of pyproject.toml, as pip registers them."""
    text = (REPO / "pyproject.toml").read_text("utf-8")
    section = text.split('[project.entry-points."doit.COMMAND"]\n')[1].split("\n\n")[0]
    info = tmp_path / "site" / "llamafile_recipe-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llamafile-recipe\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[doit.COMMAND]\n" + section.replace('"', ""))
    project.env["PYTHONPATH"] = os.pathsep.join([str(info.parent), str(REPO)])
    with_llamafile(project)
    return project


@pytest.mark.parametrize(
    ("words", "how", "status", "said"),
    [
        ("cache-key m", "below", 0, "llamafile-recipe-m-"),
        ("help serve", "below", 0, "usage: doit serve [MODEL | FILE | URL]"),
        ("--help", "below", 0, "usage: doit [VERB [MODEL] [OPTIONS]]"),
        ("help", "below", 0, "usage: doit [VERB [MODEL] [OPTIONS]]"),
        ("--help", "DOIT_FILE of a folder", 0, "usage: doit [VERB [MODEL] [OPTIONS]]"),
        ("--help", "another project below", 0, "doit -- automation tool"),
        ("--help", "elsewhere", 0, "doit -- automation tool"),
        ("list --all", "below", 0, "serve:m "),
        ("info serve:m", "below", 1, "status     : run"),
        ("m", "below", 3, "ERROR: m is a model, not a verb\n  fix: doit serve m\n"),
        ("cache-key m", "DOIT_FILE of a folder", 0, "llamafile-recipe-m-"),
        ("cache-key m", "-f", 0, "llamafile-recipe-m-"),
        ("", "another project below", 0, "its own"),
        ("cache-key m", "elsewhere", 3, "Could not find dodo file"),
    ],
)
def test_doit_outside_the_clone(
    installed: Project, tmp_path: Path, words: str, how: str, status: int, said: str
) -> None:
    """ADR 15: where doit finds no dodo.py, the clone above or the one that is named; else it is as it is."""
    folder = tmp_path / "elsewhere" if how in ("elsewhere", "-f") else installed.path / "a" / "b"
    folder.mkdir(parents=True)
    if how == "another project below":
        text = "def task_own():\n    return {'actions': ['echo its own'], 'verbosity': 2}\n"
        (folder / "dodo.py").write_text(text)
    env = {"DOIT_FILE": str(installed.path)} if how.startswith("DOIT_FILE") else {}
    before = ["-f", str(installed.path)] if how == "-f" else []
    done = plain_doit(installed, *before, *words.split(), cwd=folder, **env)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done


@pytest.mark.parametrize(
    ("path", "cwd", "expected"),
    [
        ("", "clone/docs", "clone"),
        ("", "clone", ""),  # doit finds it itself
        ("", "clone/other", ""),  # another project
        ("", "clone/other/deep", ""),
        ("", "project", ""),
        ("", ".", ""),
        ("../clone", "project", "clone"),
        ("../clone/dodo.py", "project", "clone"),
        ("../clone/other", "project", ""),
        ("nope", "clone/docs", ""),
    ],
)
def test_where_doit_fails(tmp_path: Path, path: str, cwd: str, expected: str) -> None:
    """ADR 15: another project's `doit` is never changed."""
    for name in ("clone/docs", "clone/other/deep", "clone/tasks", "project"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("dodo.py", "doit.cfg"):
        shutil.copy2(REPO / name, tmp_path / "clone")
    for name in ("clone/other", "project"):
        (tmp_path / name / "dodo.py").touch()
    found = llamafile_recipe.where_doit_fails(path, str(tmp_path / cwd))
    assert found == "" if not expected else os.path.samefile(found, tmp_path / expected)


@pytest.mark.parametrize("words", [["catalogue"], ["help", "serve"], ["list"], ["plan", "m"], ["--version"]])
@pytest.mark.parametrize("how", ["-f FILE", "-f FOLDER", "DOIT_FILE=FOLDER"])
def test_where_dodo_is(project: Project, tmp_path: Path, how: str, words: list[str]) -> None:
    """Issue 14.1: a file or its directory; nothing is left in the current directory."""
    with_llamafile(project)
    (folder := tmp_path / "elsewhere").mkdir()
    shutil.copy2(REPO / "doit.cfg", folder)
    path = str(project.path / "dodo.py") if "FILE" in how.split()[-1] else str(project.path)
    env = {"DOIT_FILE": str(project.path)} if how[0] == "D" else {}
    given = [] if env else ["-f", path]
    status, out, err = in_process.run([*given, *words], folder, {**project.env, **env}, None, 60)
    assert status == 0, err
    assert out
    assert [path.name for path in folder.iterdir()] == ["doit.cfg"]


SCRIPT = "import llamafile_recipe; llamafile_recipe.main()"


def script(project: Project, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run what pip installs as `llamafile-recipe`."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=cwd, env={**project.env, **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("variable", ["", "LLAMAFILE_RECIPE", "DOIT_FILE", "DOIT_FILE of a file"])
def test_the_command_of_its_own(project: Project, tmp_path: Path, variable: str) -> None:
    """Issue 14.1: it finds the clone above the current directory, or by a variable, and leaves no file."""
    with_llamafile(project)
    folder = tmp_path / "elsewhere" if variable else project.path / "a" / "b"
    folder.mkdir(parents=True)
    path = project.path / "dodo.py" if variable.endswith("file") else project.path
    env = {variable.split()[0]: str(path)} if variable else {}
    words, printed = ["cache-key", "m"], "llamafile-recipe-m-"
    if not variable:
        words, printed = ["with", "m", "--", sys.executable, "-c", PRINTS, "", "a=b"], "['', 'a=b']\n"
    done = script(project, *words, cwd=folder, **env)
    assert (done.returncode, printed in done.stdout) == (0, True), done.stderr
    shown = script(project, "serve", "--help", cwd=folder, **env)
    assert shown.stdout.startswith("usage: llamafile-recipe serve [MODEL | FILE | URL]")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        ("plan nope", {}, "fix: `llamafile-recipe` shows the models\n"),
        (
            "serve a b",
            {},
            "ERROR: llamafile-recipe serve: expected one model, got a, b\n  fix: llamafile-recipe ",
        ),
        ("m", {}, "fix: llamafile-recipe serve m\n"),
        ("status", {}, "  llamafile-recipe start --model NAME "),
        ("help with", {}, "llamafile-recipe with NAME -- COMMAND"),
        ("list with", {}, "llamafile-recipe with NAME -- COMMAND"),
        ("chat", {"LLAMAFILE_LOG": "json"}, '"fix": "llamafile-recipe chat \\"What'),
        ("forget", {}, "ERROR: `llamafile-recipe forget` has no effect here"),
        ("status", {"LLAMAFILE_RECIPE": "/nope"}, "LLAMAFILE_RECIPE=/nope: there is no clone of the recipe"),
    ],
)
def test_remedies_begin_with_what_was_typed(
    project: Project, words: str, env: dict[str, str], said: str
) -> None:
    """Issue 14.1: `doit` may not be on PATH, and finds no recipe in this directory."""
    with_llamafile(project)
    (folder := project.path / "below").mkdir()
    done = script(project, *words.split(), cwd=folder, **env)
    assert said in done.stdout + done.stderr
    assert not re.search(r"\bdoit [a-z]", done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("doit", "doit"),
        ("doit.exe", "doit"),
        ("doit-script.py", "doit"),
        ("-m", "python -m doit"),
        ("__main__.py", "python -m doit"),
        ("llamafile-recipe", "llamafile-recipe"),
    ],
)
def test_the_name_of_the_command(name: str, expected: str) -> None:
    """Issue 14.1: what a remedy begins with, by the file name of the program."""
    assert llamafile_recipe_doit.program_name(name) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/venv/bin/doit", True),
        ("/venv/bin/doit.exe", True),
        ("/site-packages/doit/__main__.py", True),
        ("/site-packages/other/__main__.py", False),
        ("/venv/bin/builds-on-doit", False),
    ],
)
def test_which_program_is_doit(path: str, expected: bool) -> None:
    """ADR 15: the `--help` of a program that builds on doit is its own."""
    assert llamafile_recipe._is_doit(path) is expected


def test_a_path_is_seen_from_where_the_user_is(project: Project) -> None:
    """Issue 14.1: below the clone, a relative path is one of that directory."""
    with_llamafile(project)
    (folder := project.path / "below").mkdir()
    shutil.copy2(project.path / "m.llamafile", folder / "other.llamafile")
    done = script(project, "with", "other.llamafile", "--", "echo", "ready", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


@pytest.mark.parametrize(
    ("env", "cwd", "expected"),
    [
        ({}, "clone", "clone"),
        ({}, "clone/docs", "clone"),
        ({"LLAMAFILE_RECIPE": "other"}, "clone", "clone/other"),
        ({"DOIT_FILE": "/d/dodo.py"}, "clone", "/d"),
        ({"LLAMAFILE_RECIPE": "/r", "DOIT_FILE": "/d/dodo.py"}, "clone", "/r"),
        ({"LLAMAFILE_RECIPE": ""}, "clone", "clone"),
        ({}, "project", "installed"),
    ],
)
def test_which_clone(tmp_path: Path, env: dict[str, str], cwd: str, expected: str) -> None:
    """ADR 15: a variable, else the directory or one above it, else where pip installed it from."""
    for name in ("clone/docs", "clone/other", "project"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for name in ("dodo.py", "doit.cfg"):
        shutil.copy2(REPO / name, tmp_path / "clone")
    (tmp_path / "clone" / "tasks").mkdir()
    (tmp_path / "project" / "dodo.py").touch()  # of another doit project
    found = llamafile_recipe.clone(env, str(tmp_path / cwd))
    if expected == "installed":
        assert found == llamafile_recipe.clone({}, tempfile.gettempdir())
    else:
        assert Path(found) == tmp_path / expected


@pytest.mark.skipif(os.name == "nt", reason="owners and modes")
@pytest.mark.parametrize("name", ["", "dodo.py", "doit.cfg", "tasks"])
@pytest.mark.parametrize("uid", [None, 12345], ids=["writable", "owned"])
def test_a_clone_above_that_another_user_can_change(tmp_path: Path, name: str, uid: int | None) -> None:
    """ADR 15: its code is not run; in the directory itself it is, as `doit` does."""
    folder = tmp_path / "clone"
    (folder / "tasks").mkdir(parents=True)
    (folder / "docs").mkdir()
    for file in ("dodo.py", "doit.cfg"):
        shutil.copy2(REPO / file, folder)
    assert llamafile_recipe.clone({}, str(folder / "docs")) == str(folder)
    if uid is None:
        (folder / name).chmod(0o777)
    elif os.geteuid() == 0:
        os.chown(folder / name, uid, uid)
    else:
        pytest.skip("only root may give a file away")
    assert llamafile_recipe.clone({}, str(folder / "docs")) != str(folder)
    assert llamafile_recipe.clone({}, str(folder)) == str(folder)
    assert llamafile_recipe.clone({"LLAMAFILE_RECIPE": str(folder)}, str(folder / "docs")) == str(folder)
