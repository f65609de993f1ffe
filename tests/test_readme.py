"""The README is true: its blocks are run as they stand, in a fresh copy with a fresh virtual environment.

Only the port is another one (8080 may be taken on the machine that runs the tests).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.system.ports import free_port
from tests.fakes import gitlab
from tests.fakes.github_runner import Runner
from tests.support.project import REPO, Project, Running, interrupt

README = (REPO / "README.md").read_text("utf-8")
posix = pytest.mark.skipif(os.name != "posix", reason="the blocks are written for a POSIX shell")


def blocks(kind: str) -> list[str]:
    """The README's fenced blocks of one kind, in order."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def pattern(line: str) -> str:
    """A line of shown output, with what differs from run to run left open."""
    line = line.replace("/home/you/.cache/llamafile-recipe/run/laptop", "PATH")
    parts = re.split(r"(PATH|\d+(?:\.\d+)?(?: (?:ms|s|kB|MB|GB))?)", line)
    number = r"[\d.]+(?: \w+)?"
    return "".join(
        r"\S+" if part == "PATH" else number if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )


def clone(folder: Path) -> None:
    """What `git clone` would bring, of the files as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPO / name, folder / name)


@posix
@pytest.mark.fresh
def test_the_main_job_from_the_readme_alone(tmp_path: Path) -> None:
    """R11, R12: venv, install, serve, curl, the openai client, Ctrl-C, start … stop and with, as pasted."""
    make_venv, main, _, ask, curl, _, background, with_server, in_git = blocks("sh")
    port = str(free_port("127.0.0.1", 0))
    copy = tmp_path / "clone"
    clone(copy)
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    env |= {k: v for k, v in os.environ.items() if k.startswith("PIP_")} | {"PIP_QUIET": "1"}

    def sh(script: str, activate: str = ". .venv/bin/activate\n") -> str:
        words = ["sh", "-euc", activate + script.replace("8080", port)]
        done = subprocess.run(words, cwd=copy, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sh(make_venv, activate="")
    serve = main.strip().replace("doit serve", "exec doit serve")  # so that the pid is doit's
    words = ["sh", "-euc", f". .venv/bin/activate\n{serve} --port {port}"]
    with Running(words, copy, env, None) as running:
        shown = running.wait_for("Ctrl-C", timeout=300)
        for line in blocks("text")[0].splitlines():
            assert re.search(f"^{pattern(line)}$", shown, re.MULTILINE), f"{line}\nis not in\n{shown}"
        assert "tiny demo model" in sh(ask)
        assert '"role":"assistant"' in sh(curl)
        (copy / "ask.py").write_text(blocks("python")[0].replace("8080", port), "utf-8")
        assert "tiny demo model" in sh("pip install openai && python ask.py")
        assert "mistral *" in sh("doit")
        assert "demo needs " in sh(in_git)
        interrupt(running)
        assert running.finish().status == 0
    try:
        shown = sh(background.replace("doit start", f"doit start --port {port}"))
    finally:
        sh("doit stop --all")
    assert shown.startswith(f"http://127.0.0.1:{port}\n")
    assert "A llamafile is one file" in shown
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "test_answers.py").write_text(blocks("python")[1], "utf-8")
    with_server = with_server.replace("~/llamafile-recipe", str(copy))
    assert "1 passed" in sh(f"pip install pytest && cd {mine}\n{with_server}")


def test_the_test_command_is_what_ci_runs() -> None:
    """.ci/run takes the line from the README; there is exactly one."""
    found = [b.strip() for b in blocks("sh") if b.strip().endswith("pytest")]
    assert found == ["pip install '.[embedded,test]' && python -m pytest"]


def test_the_catalogue_of_the_readme_is_valid(project: Project) -> None:
    """R37: the example of a model of one's own works as pasted."""
    mine = project.path / "mine.yaml"
    mine.write_text(blocks("yaml")[0], "utf-8")
    result = project.doit("verify", env={"LLAMAFILE_CATALOGUE": str(mine)})
    assert result.status == 0, result.err
    assert "mine runs here" in result.err


@posix
def test_the_workflow_of_the_readme(project: Project, tmp_path: Path) -> None:
    """Issue 5.9: the job for GitHub as pasted, with the test of `doit with`, twice."""
    shutil.copy2(REPO / "action.yml", project.path)
    base = {name: text for name, text in project.env.items() if name != "LLAMAFILE_CACHE"}
    runner = Runner(tmp_path, project.path, base)
    (runner.workspace / "test_answers.py").write_text(blocks("python")[1], "utf-8")
    steps = yaml.safe_load(blocks("yaml")[1])["jobs"]["test"]["steps"]
    for _ in range(2):
        job = runner.job(steps)
        assert job.ok, job.log
        assert "1 passed" in job.log
    assert "-- download:demo\n" in job.log


@posix
def test_the_job_for_gitlab_of_the_readme(project: Project, tmp_path: Path) -> None:
    """Issue 5.9: the job for GitLab as pasted."""
    work = tmp_path / "work"
    shutil.copytree(project.path, work / "llamafile-recipe")
    (work / "test_answers.py").write_text(blocks("python")[1], "utf-8")
    env = {name: text for name, text in project.env.items() if name != "LLAMAFILE_CACHE"}
    template = REPO / "ci" / "llamafile.gitlab-ci.yml"
    status, log = gitlab.job(blocks("yaml")[2], "test", template, work, tmp_path / "caches", env)
    assert status == 0, log
    assert "1 passed" in log


def test_every_option_and_file_named_exists() -> None:
    """Options are those of the tables, links lead to files."""
    from tests.support.command_lines import VERBS

    known = {o["long"] for verb in VERBS.values() for o in verb.params}
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", prose))
    assert named - known <= {"all", "version", "parallel", "shell"}, named - known
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPO / link).exists(), link
