"""ci/llamafile.gitlab-ci.yml, run as GitLab's runner runs it (tests/fakes/gitlab.py)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import gitlab, llamafile
from tests.fakes.server import FileServer, Status
from tests.server.test_serve_cli import AS_BEFORE, behave
from tests.support import fork_server
from tests.support.project import REPO, Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

FILE = "ci/llamafile.gitlab-ci.yml"
CONFIG = f"""
include: [{{project: someone/llamafile-recipe, file: {FILE}}}]
test:
  extends: .llamafile
  variables: {{LLAMAFILE_MODELS: "a b", LLAMAFILE_CATALOGUE: models.yaml}}
  script:
    - doit with --model b -- sh -c 'echo "it runs at $OPENAI_BASE_URL"'
"""


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture
def work(project: Project, server: FileServer, tmp_path: Path) -> Path:
    """A project with the recipe in a folder and a models.yaml of its own, with models at a server."""
    models = {}
    for number, name in enumerate("abc"):
        data = llamafile.build(project.path / "built", version="0.10.5", pad=number).read_bytes()
        server.files[f"/{name}.llamafile"] = data
        models[name] = project.entry(server.url(f"/{name}.llamafile"), data, serve=AS_BEFORE)
    project.catalogue(models)
    behave(project)
    del project.env["LLAMAFILE_CACHE"]
    forks = fork_server.write_programs(tmp_path / "forks", project.doit_program)
    project.env["PATH"] = f"{forks}{os.pathsep}{project.env['PATH']}"
    work = tmp_path / "work"
    work.mkdir()
    shutil.move(project.path / "models.yaml", work / "models.yaml")
    shutil.copytree(project.path, work / "llamafile-recipe")
    return work


def with_variants(path: Path) -> None:
    """Make the models a and b of a catalogue the variants q8 and q4 of the only model, v."""
    data = json.loads(path.read_text("utf-8"))
    both = {"q8": data["models"]["a"], "q4": data["models"]["b"]}
    variants = {name: {key: one[key] for key in ("url", "sha256", "size")} for name, one in both.items()}
    data["models"] = {"v": {"title": "V", "license": "MIT", "serve": AS_BEFORE, "variants": variants}}
    path.write_text(json.dumps({**data, "default": "v"}), "utf-8")


def run(project: Project, work: Path, config: str = CONFIG) -> tuple[int, str]:
    status, log = gitlab.job(config, "test", REPO / FILE, work, work.with_name("caches"), project.env)
    assert "Traceback" not in log
    return status, log


def asked_for(server: FileServer) -> list[str]:
    found = sorted({request.path for request in server.requests})
    server.requests.clear()
    return found


def test_two_jobs(project: Project, work: Path, server: FileServer) -> None:
    """Issue 5.9: the first downloads, the second has it all; what a job is for is not folded.

    Issue 14.8: each set of models has an entry of its own, which the job between does not overwrite.
    """
    status, log = run(project, work)
    assert (status, asked_for(server)) == (0, ["/a.llamafile", "/b.llamafile"]), log
    assert "download-a\r\x1b[0Kdownload:a\na: " in log
    after = log[log.rindex("section_end") :]
    assert ".  with:b\n" in after
    assert "it runs at http://127.0.0.1:" in after
    status, log = run(project, work, CONFIG.replace('"a b"', '"b,c"'))
    assert (status, asked_for(server)) == (0, ["/b.llamafile", "/c.llamafile"]), log
    status, log = run(project, work)
    assert (status, asked_for(server)) == (0, []), log
    assert len(list(work.with_name("caches").iterdir())) == 2
    assert "a: the digest is correct, nothing is downloaded" in log
    assert log.count("section_start") == log.count("section_end") == 2  # reading both once


def test_a_variant(project: Project, work: Path, server: FileServer) -> None:
    """Issue 15.6: a job names the variant; without a name it fails, and each variant has an entry."""
    with_variants(work / "models.yaml")
    unnamed = CONFIG.replace('"a b"', "v").replace("--model b", "v --variant q4")
    status, log = run(project, work, unnamed)
    assert (status, "v has variants: q8, q4; in CI, one has to be named" in log) == (3, True), log
    named = unnamed.replace("MODELS: v", "MODELS: v, LLAMAFILE_VARIANT: q4")
    status, log = run(project, work, named)
    assert (status, "it runs at http" in log, asked_for(server)) == (0, True, ["/b.llamafile"]), log
    [entry] = work.with_name("caches").iterdir()
    assert entry.name.startswith("llamafile-v-q4-")


def test_the_default_model(project: Project, work: Path, server: FileServer) -> None:
    """Issue 5.9: no name is the catalogue's default."""
    assert run(project, work, CONFIG.replace('"a b"', '""').replace("--model b", ""))[0] == 0
    assert asked_for(server) == ["/a.llamafile"]


def test_a_failure(project: Project, work: Path, server: FileServer) -> None:
    """R14: the job fails with the recipe's error, in no fold that stays open, and its script has not run."""
    server.always("/b.llamafile", Status(404))
    status, log = run(project, work)
    assert status == 1
    assert "ERROR: b could not be downloaded" in log
    assert log.count("section_start") == log.count("section_end")
    assert "it runs" not in log
    assert not work.with_name("caches").exists()
