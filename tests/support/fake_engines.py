"""Start fake llamafiles, for the tests of the fakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.ports import free_port

posix = pytest.mark.skipif(os.name == "nt", reason="an APE runs through /bin/sh on POSIX only")


def until(done: Callable[[], Any], what: str, timeout_s: float = 90.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := done()):
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.01)
    return result


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Create a directory whose name contains characters that shells interpret."""
    path = tmp_path / "a dir with 'quotes' & ünï"
    path.mkdir()
    return path


Started = tuple[subprocess.Popen[bytes], str, Path]  # process, address, log
Start = Callable[..., Started]


@pytest.fixture
def start(odd: Path) -> Iterator[Start]:
    """Start servers; kill what is left of them at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def start(path: Path, *args: str, port: int | None = None, **env: str) -> Started:
        port, log = port or free_port(), odd / f"log{len(running)}"
        shell = "/bin/sh" if os.name != "nt" else sys.executable
        command = [shell, str(path), "--server", "--port", str(port), *args]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=odd, env=os.environ | env, stdout=file, stderr=file, start_new_session=True
            )
        running.append(process)
        return process, f"http://127.0.0.1:{port}", log

    yield start
    for process in running:
        process.kill()
        process.wait(60)


def health(url: str) -> tuple[int, Any]:
    try:
        answer = requests.get(f"{url}/health", timeout=60)
    except requests.ConnectionError:
        return 0, None
    return answer.status_code, answer.json()


def kill_group(group: int) -> None:
    if sys.platform != "win32":
        os.killpg(group, signal.SIGKILL)


def ready(url: str) -> None:
    until(lambda: health(url)[0] == 200, "200 from /health")
