"""docs/clients.md is true: each row is installed and each of its examples asks the real demo server.

One virtual environment for each client, as its users have: the clients need different versions of the same
packages. Not in the default run, see `clients` in pyproject.toml.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasks.errors import ServerError
from tasks.system.ports import free_port

from tests.support.llama_server import use
from tests.support.project import REPO, SCRIPTS, Project

PAGE = (REPO / "docs" / "clients.md").read_text("utf-8")
ROWS = re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (?:`(pip install [^`]+)`)? ?\|", PAGE, re.MULTILINE)
BY_LLAMA_SERVER = ("OpenAI", "Anthropic")  # whose clients are also held against llama-server
RUNS = [(*row, "embedded") for row in ROWS]
RUNS += [(*row, "llama-server") for row in ROWS if row[0] in BY_LLAMA_SERVER]
ANSWER = "I am the tiny demo model of llamafile-recipe."
OTHER_ANSWERS = {"aider": "tiny demo"}  # aider adds the user's language to the question
INSTALL_LIMIT = 1200  # seconds
ANSWER_LIMIT = 300  # seconds; on a busy machine, some take a minute to be imported


def examples(client: str) -> list[tuple[str, str]]:
    """Return the kind and the text of each block below the heading of a client."""
    [section] = re.findall(rf"^## {client}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def interpreter(client: str) -> str:
    """Return the Python that a client needs; skip the test where there is none."""
    if client != "aider" or sys.version_info < (3, 13):
        return sys.executable
    found = [path for name in ("python3.12", "python3.11", "python3.10") if (path := shutil.which(name))]
    for path in found:
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip("aider-chat needs Python 3.12 or older")


@pytest.fixture
def programs(tmp_path: Path, client: str) -> Iterator[Path]:
    """A new virtual environment's folder of programs; removed at the end, as some take 300 MB."""
    place = tmp_path / "venv"
    command = [interpreter(client), "-m", "venv", "--without-pip", str(place)]
    subprocess.run(command, check=True, timeout=INSTALL_LIMIT)
    yield place / "bin"
    shutil.rmtree(place, ignore_errors=True)  # a pip that was stopped may still write


def install(command: str, programs: Path, home: Path) -> None:
    """Run the command of the page; skip the test where pip cannot install the packages."""
    env = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    env |= {"PIP_QUIET": "1", "PIP_PYTHON": str(programs / "python")}
    env |= {"PATH": f"{SCRIPTS}:{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        command.split(), env=env, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False
    )
    if done.returncode:
        pytest.skip(f"{command}: {done.stderr[-300:]}")


def port_for(client: str) -> int:
    """Return a free port; LLM's plugin asks only one, so its test is skipped where that is in use."""
    if client != "LLM":
        return free_port("127.0.0.1", 0)
    try:
        return free_port("127.0.0.1", 8080)
    except ServerError as error:
        pytest.skip(f"llm-llamafile asks port 8080 only: {error}")


@pytest.mark.clients
@pytest.mark.skipif(os.name != "posix", reason="the examples are run by sh")
@pytest.mark.parametrize(
    ("client", "command", "engine"), RUNS, ids=[f"{client}-{engine}" for client, _, engine in RUNS]
)
def test_a_client(
    project: Project, programs: Path, request: pytest.FixtureRequest, client: str, command: str, engine: str
) -> None:
    """Issue 14.10: each example prints the demo's answer; one with a stream prints it twice."""
    if engine == "llama-server":
        use(project, request.getfixturevalue("llama_server"))
    if command:
        install(command, programs, project.path)
    port = port_for(client)
    env = {"PATH": f"{programs}:{project.env['PATH']}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    for kind, text in examples(client):
        file = project.path / f"example.{kind}"
        file.write_text(text.replace("8080", str(port)), "utf-8")
        program = {"python": str(programs / "python"), "sh": "sh"}[kind]
        words = ["with", "--model", "demo", "--engine", engine, "--port", str(port), "--", program, str(file)]
        result = project.doit(*words, env=env, timeout=ANSWER_LIMIT)
        assert result.status == 0, result.err
        answers = 2 if "stream" in text else 1
        answer = OTHER_ANSWERS.get(client, ANSWER)
        assert " ".join(result.out.split()).count(answer) == answers, result.out


def test_every_client_has_a_row() -> None:
    """Each heading above "Behind a proxy" is in the table, in this order."""
    headings = re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)
    assert [name for name, _ in ROWS] == headings
    assert all(examples(name) for name in headings)
