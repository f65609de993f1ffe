"""A real llama-server for tests."""

from __future__ import annotations

import os
import shutil

import pytest


def llama_server() -> str:
    """Return the path of llama-server: of LLAMA_SERVER, or on PATH; skip the test without one."""
    path = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if not path:
        pytest.skip("no llama-server: set LLAMA_SERVER to its path, or put it on PATH")
    return path
