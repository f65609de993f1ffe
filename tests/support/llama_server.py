"""A real llama-server for tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The path of a real llama-server; the test is skipped where there is none."""
    path = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if not path:
        pytest.skip("no llama-server: set LLAMA_SERVER to its path, or put it on PATH")
    return Path(path)
