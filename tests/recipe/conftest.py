"""What the tests of servers in the background share."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.project import Project


@pytest.fixture
def servers(project: Project) -> Iterator[Project]:
    """A project whose servers end with the test, however it ends; `doit stop --all` leaves nothing."""
    try:
        yield project
        result = project.background("stop", "--all")
        _, left = psutil.wait_procs(project.processes(), timeout=10)
        left = [process for process in left if process in project.processes()]
        assert not left, left
        assert result.status == 0, result.err
    finally:
        for process in project.processes():
            process.kill()
