"""Fixtures for tests of background servers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.project import Project

SIZE = "160m"  # of a file system: a download leaves 64 MiB free


@pytest.fixture
def servers(project: Project) -> Iterator[Project]:
    """Yield a project; stop its servers after the test, and check that `doit stop --all` leaves nothing."""
    try:
        yield project
        result = project.doit("stop", "--all")
        _, left = psutil.wait_procs(project.processes(), timeout=60)
        left = [process for process in left if process in project.processes()]
        assert not left, left
        assert result.status == 0, result.err
    finally:
        for process in project.processes():
            process.kill()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a tmpfs with these options."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},{options}", "none", str(path)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount a file system here: {done.stderr.decode().strip()}")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True, timeout=30)
