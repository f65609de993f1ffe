"""The logs of servers that do not run, for `doit prune`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tasks.engine import log_files

from tests.support.project import Project
from tests.support.servers import known, write_record


@pytest.mark.parametrize("state", [False, True])
def test_dead_logs(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: bool) -> None:
    """All files of a log, in the cache or the state directory; not those of a server that runs."""
    if state:
        monkeypatch.setenv("LLAMAFILE_STATE", str(tmp_path / "state"))
    cache = str(project.cache)
    me = known(os.getpid())
    running = write_record(project, 8080, engine=me, keeper=me)
    ended = write_record(project, 8081)
    dead = []
    for path in (running, ended, ended.with_name("x-1.json")):
        for suffix in (".log", ".log.1", ".log.2", ".log.before"):
            log = path.with_suffix(suffix)
            log.touch()
            if path != running:
                dead.append(str(log))
    for name in ("llama.log", "m-8081.log.3", "m-8081.key"):
        ended.with_name(name).touch()
    assert sorted(log_files.dead_logs(cache)) == sorted(dead)
