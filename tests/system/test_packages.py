"""Programs on PATH."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tasks.system.packages import find_program

ENDING = ".exe" if os.name == "nt" else ""


def program(folder: Path) -> str:
    folder.mkdir()
    path = folder / f"llama-server{ENDING}"
    path.write_bytes(b"MZ")
    path.chmod(0o755)
    return str(path)


def test_a_program_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is absolute, also where the entry of PATH is not."""
    path = program(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("llama-server") == ""
    for entry in (tmp_path / "bin", "bin"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.pathsep}{entry}")
        assert os.path.normcase(find_program("llama-server")) == os.path.normcase(path)


def test_the_current_directory_is_not_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Windows finds there without PATH is a file that another program may have put there."""
    path = program(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: path)  # as on Windows
    assert find_program("llama-server") == ""
