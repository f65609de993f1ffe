"""The model in the repository is what its script writes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = Path(__file__).parents[2] / "demo" / "make.py"
DEMO = MAKE.with_name("demo.gguf")

needs_gguf = pytest.mark.skipif(
    importlib.util.find_spec("gguf") is None, reason="the package gguf is not installed"
)


def make(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments],
        cwd=script.anchor,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_demo_is_small() -> None:
    """A clone should not notice it: 300 kB is the limit that was set."""
    assert DEMO.read_bytes()[:4] == b"GGUF"
    assert DEMO.stat().st_size <= 300_000


@needs_gguf
def test_demo_is_what_make_writes() -> None:
    """The same bytes from every Python, numpy and gguf, from any directory (R12)."""
    result = make(MAKE, "--check")
    assert result.returncode == 0, result.stderr
    assert "sha256:" in result.stdout


@needs_gguf
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_check_fails_when_the_file_is_another(tmp_path: Path, damage: str) -> None:
    """--check says which command puts it right, and writes nothing."""
    script = tmp_path / MAKE.name
    script.write_bytes(MAKE.read_bytes())
    demo = tmp_path / DEMO.name
    if damage == "changed":
        demo.write_bytes(DEMO.read_bytes() + b"\0")
    before = sorted(tmp_path.iterdir())
    result = make(script, "--check")
    assert result.returncode == 1
    assert "run python demo/make.py" in result.stderr
    assert sorted(tmp_path.iterdir()) == before
