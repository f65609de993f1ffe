"""On a terminal ERROR is red and the URL bold; nowhere else."""

from __future__ import annotations

import os

import pytest

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import Project
from tests.support.servers import rows
from tests.support.terminal import on_terminal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")

RED = "\x1b[1;31mERROR:\x1b[0m "


@pytest.mark.parametrize(
    ("env", "styled"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_an_error(project: Project, env: dict[str, str], styled: bool) -> None:
    """Issue 14.7: of the command line, and of a task."""
    with_llamafile(project)
    begins = RED if styled else "ERROR: "
    for words, status, said in (
        (["download", "--model", "nobody"], 3, "there is no model 'nobody'"),
        (["logs"], 1, "nothing runs here"),
    ):
        shown = on_terminal(project, *words, env=env)
        assert shown.status == status, shown
        assert shown.err.startswith(f"{begins}{said}"), shown.err
        assert shown.err.count("ERROR:") == 1
        assert project.doit(*words).err.startswith(f"ERROR: {said}")


@pytest.mark.parametrize(("env", "styled"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_url(servers: Project, env: dict[str, str], styled: bool) -> None:
    """Issue 14.7: where a server is ready."""
    with_llamafile(servers)
    shown = on_terminal(servers, "start", "--port", "0", env=env, timeout=90)
    assert shown.status == 0, shown.err
    url = rows(servers)[0]["url"]
    expected = f"\x1b[1m{url}\x1b[0m" if styled else url
    assert f"m is ready at {expected} after " in shown.err
    assert shown.out == f"{url}\n"
