"""ci/upgrade.github.yml and ci/upgrade.gitlab-ci.yml: from a file that moved to a request with the report."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import gitlab
from tests.fakes.github_runner import TOKEN, Runner
from tests.support import fork_server
from tests.support.project import REPO, Project
from tests.support.publishers import World, sha256, worlds
from tests.test_readme import blocks
from tests.upstream.test_upgrade_cli import NAME, NEW, WHAT, locked, model

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="the jobs run in bash"),
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the embedded engine"),
]
BRANCH = "llamafile-recipe-upgrade"
GH = """#!/bin/sh
# what `gh` was asked, with its token; there is no open pull request
echo "$GH_TOKEN $*" >> "$0.log"
while [ $# -gt 0 ]; do [ "$1" = --body-file ] && cp "$2" "$0.body"; shift; done
"""


@pytest.fixture
def world(project: Project, tmp_path: Path) -> Iterator[World]:
    forks = fork_server.write_programs(tmp_path / "forks", project.doit_program)
    project.env["PATH"] = f"{forks}{os.pathsep}{project.env['PATH']}"
    yield from worlds(project)


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=n@localhost", *words]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def repository(world: World, work: Path, bare: Path) -> None:
    """A repository with models.yaml and a lock of old bytes, its clone at `work`; the Hub has new bytes."""
    locked(world, m=model(checks=[WHAT]))
    git(bare.parent, "init", "--quiet", "--bare", "--initial-branch=main", bare.name)
    git(work, "init", "--quiet", "--initial-branch=main")
    git(work, "remote", "add", "origin", str(bare))
    for name in ("models.yaml", "models.lock"):
        (world.project.path / name).rename(work / name)
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--message", "Begin")
    git(work, "push", "--quiet", "origin", "main")
    world.repo.push({NAME: NEW})


def proposed(bare: Path) -> None:
    """The branch has one commit, which moves the pin."""
    assert git(bare, "diff", "--name-only", "main", BRANCH) == "models.lock"
    assert git(bare, "rev-list", "--count", f"main..{BRANCH}") == "1"
    assert sha256(NEW) in git(bare, "show", f"{BRANCH}:models.lock")


def test_github(world: World, tmp_path: Path) -> None:
    """Issue 18.3: the job that runs new bytes has no token; the other opens a pull request with it."""
    base = {name: text for name, text in world.project.env.items() if name != "LLAMAFILE_CACHE"}
    runner = Runner(tmp_path, world.project.path, base)
    repository(world, runner.workspace, tmp_path / "origin.git")
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH)
    gh.chmod(0o755)
    flow = yaml.safe_load((REPO / "ci" / "upgrade.github.yml").read_text("utf-8"))
    env = {**flow["env"], "LLAMAFILE_RECIPE": "../project", "PATH": f"{gh.parent}:{base['PATH']}"}
    check, propose = flow["jobs"]["check"], flow["jobs"]["propose"]
    assert (flow["permissions"], check["permissions"]) == ({}, {"contents": "read"})
    first = runner.job(check["steps"], **env)
    assert first.ok, first.log
    assert "secrets" not in str(check)
    assert "token" not in str(check)
    git(runner.workspace, "reset", "--quiet", "--hard")
    git(runner.workspace, "clean", "--quiet", "-fdx")
    second = runner.job(propose["steps"], **env)
    assert second.ok, second.log
    proposed(tmp_path / "origin.git")
    asked = (tmp_path / "bin" / "gh.log").read_text().splitlines()
    assert asked[0].startswith(f"{TOKEN} pr list --head {BRANCH} --state open")
    assert asked[1].startswith(f"{TOKEN} pr create --head {BRANCH} --title Move pins of models.lock")
    assert "| model m | `moves: all checks pass` |" in (tmp_path / "bin" / "gh.body").read_text("utf-8")


def test_gitlab(world: World, tmp_path: Path) -> None:
    """Issue 18.3: a merge request is opened with the report, and updated the next time."""
    work, bare = tmp_path / "work", tmp_path / "group" / "origin.git"
    work.mkdir()
    bare.parent.mkdir()
    repository(world, work, bare)
    calls: list[tuple[str, str, dict[str, Any]]] = []
    file = "ci/upgrade.gitlab-ci.yml"
    config = f"{blocks('yaml', 'docs/upgrades.md')[1]}  variables: {{LLAMAFILE_RECIPE: ../project}}\n"

    class Api(BaseHTTPRequestHandler):
        """GitLab's API of merge requests."""

        def handle_any(self) -> None:
            assert self.headers["PRIVATE-TOKEN"] == "t0ken"
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = [{"iid": 7}] if any(call[0] == "POST" for call in calls) else []
            calls.append((self.command, self.path, json.loads(body or b"{}")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(known).encode())

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {
            **{name: text for name, text in world.project.env.items() if name != "LLAMAFILE_CACHE"},
            "CI_API_V4_URL": f"http://127.0.0.1:{server.server_address[1]}/api/v4",
            "CI_PROJECT_ID": "42",
            "CI_DEFAULT_BRANCH": "main",
            "CI_SERVER_URL": f"file://{tmp_path}",
            "CI_PROJECT_PATH": "group/origin",
            "LLAMAFILE_UPGRADE_TOKEN": "t0ken",
        }
        for _ in range(2):
            git(work, "checkout", "--quiet", "--force", "main")
            status, log = gitlab.job(config, "upgrade", REPO / file, work, tmp_path / "caches", env)
            assert status == 0, log
            assert "t0ken" not in log
        server.shutdown()
    proposed(bare)
    assert [call[0] for call in calls] == ["GET", "POST", "GET", "PUT"]
    made, changed = calls[1][2], calls[3][2]
    assert (made["source_branch"], made["target_branch"]) == (BRANCH, "main")
    assert calls[3][1] == "/api/v4/projects/42/merge_requests/7"
    assert "| model m | `moves: all checks pass` |" in made["description"]
    assert changed["description"].startswith("# Upgrade of models.lock")
