"""README.md and docs/ are true: their blocks are run as they stand, those of the README in a fresh copy.

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

README = "README.md"
CLIENTS, TESTING, MODELS = "docs/clients.md", "docs/testing.md", "docs/models.md"
CI, PINNING, CACHE = "docs/ci.md", "docs/pinning.md", "docs/cache.md"
PAGES = [README, *sorted(path.relative_to(REPO).as_posix() for path in (REPO / "docs").glob("*.md"))]
OTHERS_OPTIONS = {"version", "parallel", "shell", "spec-type", "no-slots"}  # of an engine, of doit itself
posix = pytest.mark.skipif(os.name != "posix", reason="the blocks are written for a POSIX shell")


def text_of(page: str) -> str:
    return (REPO / page).read_text("utf-8")


def blocks(kind: str, page: str = README) -> list[str]:
    """The fenced blocks of one kind in a page, in order."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def pattern(line: str) -> str:
    """A line of shown output, with what differs from run to run left open."""
    line = line.replace("/home/you/.cache/llamafile-recipe/run/laptop-1000", "PATH")
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
    make_venv, main, ask, background, with_command, _ = blocks("sh")
    [with_tests], [in_git], [cache] = (blocks("sh", page) for page in (TESTING, PINNING, CACHE))
    port = str(free_port("127.0.0.1", 0))
    copy = tmp_path / "clone"
    clone(copy)
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    env |= {k: v for k, v in os.environ.items() if k.startswith("PIP_")} | {"PIP_QUIET": "1"}

    def sh(script: str, activate: str = ". .venv/bin/activate\n") -> str:
        words = ["sh", "-euc", activate + script.replace("8080", port)]
        done = subprocess.run(words, cwd=copy, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sh(make_venv, activate="")
    serve = main.strip().replace("doit serve", "exec doit serve")  # so that the pid is doit's
    words = ["sh", "-euc", f". .venv/bin/activate\n{serve} --port {port}"]
    with Running(words, copy, env, None) as running:
        shown = running.wait_for("Ctrl-C", timeout=900)
        for line in blocks("text")[0].splitlines():
            assert re.search(f"^{pattern(line)}$", shown, re.MULTILINE), f"{line}\nis not in\n{shown}"
        assert "tiny demo model" in sh(ask)
        assert '"role":"assistant"' in sh(blocks("sh", CLIENTS)[0])
        (copy / "ask.py").write_text(blocks("python", CLIENTS)[0].replace("8080", port), "utf-8")
        assert "tiny demo model" in sh("pip install openai pytest && python ask.py")
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
    assert '"object":"model"' in sh(with_command)
    assert "demo.gguf" in sh(cache)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "test_answers.py").write_text(blocks("python", TESTING)[0], "utf-8")
    with_tests = with_tests.replace("~/llamafile-recipe", str(copy))
    assert "1 passed" in sh(f"cd {mine}\n{with_tests}")


def test_the_readme_is_short() -> None:
    """Issue 14.11: what does not fit is in docs/."""
    assert text_of(README).count("\n") <= 150


def test_the_test_command_is_what_ci_runs() -> None:
    """.ci/run takes the line from the README; there is exactly one."""
    found = [b.strip() for b in blocks("sh") if b.strip().endswith("pytest")]
    assert found == ["pip install '.[embedded,test]' && python -m pytest"]


def test_blocks_of_pages_are_run() -> None:
    """A block that a page gains needs a test: these are all that there are."""
    counts = {(page, kind): len(blocks(kind, page)) for page in PAGES for kind in ("sh", "python", "yaml")}
    assert {key: count for key, count in counts.items() if count} == {
        (README, "sh"): 6,
        (CLIENTS, "sh"): 3,  # the blocks of the clients are run by tests/clients
        (CLIENTS, "python"): 7,
        (TESTING, "sh"): 1,
        (TESTING, "python"): 1,
        (MODELS, "yaml"): 1,
        (CI, "yaml"): 2,
        (CACHE, "sh"): 1,
        (PINNING, "sh"): 1,
        ("docs/variants.md", "yaml"): 1,  # catalogue/test_variants.py
        ("docs/engines.md", "yaml"): 1,  # catalogue/test_engine_release.py
        ("docs/upgrades.md", "yaml"): 2,  # catalogue/test_check_options.py, cli/test_upgrade_workflows.py
        ("docs/compose.md", "yaml"): 1,  # cli/test_compose.py
        ("docs/compose.md", "python"): 1,
        ("docs/metrics.md", "yaml"): 1,  # deploy/test_metrics.py
        ("docs/fleet.md", "yaml"): 1,  # deploy/test_deploy_cli.py
        ("docs/fleet.md", "sh"): 1,
        ("docs/registries.md", "yaml"): 2,  # upstream/test_docker_registry_cli.py
        ("docs/registries.md", "sh"): 3,
    }


def test_the_catalogue_of_the_docs_is_valid(project: Project) -> None:
    """R37: the example of a model of one's own works as pasted."""
    mine = project.path / "mine.yaml"
    mine.write_text(blocks("yaml", MODELS)[0], "utf-8")
    result = project.doit("verify", env={"LLAMAFILE_CATALOGUE": str(mine)})
    assert result.status == 0, result.err
    assert "mine: engine OK" in result.err


@posix
def test_the_workflow_of_the_docs(project: Project, tmp_path: Path) -> None:
    """Issue 5.9: the job for GitHub as pasted, with the test of `doit with`."""
    shutil.copy2(REPO / "action.yml", project.path)
    base = {name: text for name, text in project.env.items() if name != "LLAMAFILE_CACHE"}
    runner = Runner(tmp_path, project.path, base)
    (runner.workspace / "test_answers.py").write_text(blocks("python", TESTING)[0], "utf-8")
    steps = yaml.safe_load(blocks("yaml", CI)[0])["jobs"]["test"]["steps"]
    job = runner.job(steps)
    assert job.ok, job.log
    assert "1 passed" in job.log


@posix
def test_the_job_for_gitlab_of_the_docs(project: Project, tmp_path: Path) -> None:
    """Issue 5.9: the job for GitLab as pasted."""
    work = tmp_path / "work"
    shutil.copytree(project.path, work / "llamafile-recipe")
    (work / "test_answers.py").write_text(blocks("python", TESTING)[0], "utf-8")
    env = {name: text for name, text in project.env.items() if name != "LLAMAFILE_CACHE"}
    template = REPO / "ci" / "llamafile.gitlab-ci.yml"
    status, log = gitlab.job(blocks("yaml", CI)[1], "test", template, work, tmp_path / "caches", env)
    assert status == 0, log
    assert "1 passed" in log


@pytest.mark.parametrize("page", PAGES)
def test_every_option_and_file_named_exists(page: str) -> None:
    """Options are those of the tables, links lead to files and headings."""
    from tests.support.command_lines import VERBS

    known = {o["long"] for verb in VERBS.values() for o in verb.params}
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", prose))
    assert named - known <= OTHERS_OPTIONS, named - known
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text_of(page)):
        path = REPO / page if not target else (REPO / page).parent / target
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text("utf-8")), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_glossary_is_short() -> None:
    """Issue 12.5: at most 25 terms, in order."""
    [glossary] = re.findall(r"^## Glossary\n(.*?)^## ", text_of("docs/README.md"), re.MULTILINE | re.DOTALL)
    terms = re.findall(r"^\| ([^|-]+) \|", glossary, re.MULTILINE)[1:]
    assert 0 < len(terms) <= 25
    assert terms == sorted(terms, key=str.lower)
