"""Which command or option pins a file that must be pinned."""

from __future__ import annotations

import pytest
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import resolve
from tasks.transfer.policy import download_policy

from tests.support.catalogues import catalogue
from tests.support.command_lines import parse

PLACE = Environment("linux", "/cache", "/recipe", "/home/me")
OTHER = "https://elsewhere.example/x.gguf"


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("download:tiny", "`doit lock --model tiny`, and commit models.lock"),
        ("download --llamafile Own.llamafile", "--sha256 HEX"),
        (f"download --llamafile-url {OTHER}", "--sha256 HEX"),
        (f"download:big --llamafile-url {OTHER}", "--sha256 HEX"),
    ],
)
def test_what_pins_a_models_file(line: str, fix: str) -> None:
    """R21: models.lock has the digests of the catalogue's own files only."""
    found = catalogue()
    jobs = resolve(parse(line.split()), found, PLACE).by_name.values()
    policy = download_policy(jobs, found.names, frozen=True, offline="")
    [resolved] = jobs
    assert policy.pin_fix(resolved.artifact) == fix


def test_what_pins_the_program() -> None:
    """R9: the program of a .gguf is among the files, and has its own entry."""
    found = catalogue()
    jobs = resolve(parse(["serve:big"]), found, PLACE).by_name.values()
    policy = download_policy(jobs, found.names, frozen=True, offline="")
    [resolved] = jobs
    assert resolved.exe
    assert policy.needed == (*resolved.files, resolved.exe)
    assert policy.pin_fix(resolved.exe) == "`doit lock --model llamafile`, and commit models.lock"
