"""A few cases of each kind.

LLAMAFILE_FUZZ=long runs all of them, LLAMAFILE_FUZZ_SEED=N makes other ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import kinds, regressions
from tests.fuzz.world import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

# read here: the tests themselves see no such variables
IS_LONG = os.environ.get("LLAMAFILE_FUZZ") == "long"
SEED = os.environ.get("LLAMAFILE_FUZZ_SEED", "1")
CHUNK = 100  # cases of one test: the process that runs them may not see the last
LIMIT_S = 1800 if IS_LONG else 300


def chunks() -> Iterator[tuple[str, int, int]]:
    """(kind, number of the first case, count) of each test."""
    for name, kind in kinds.KINDS.items():
        count = kind.long if IS_LONG else kind.short
        for first in range(0, count, CHUNK):
            yield name, first, min(CHUNK, count - first)


def fuzz(folder: Path, *args: str) -> None:
    """Run cases in a process of its own, for some may end it."""
    env = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *args], cwd=ROOT, env=env, capture_output=True, text=True,
        errors="replace", timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\nstatus {done.returncode}\n{done.stderr[-5000:]}"


@pytest.mark.parametrize(("kind", "first", "count"), chunks())
def test_cases_end_well(kind: str, first: int, count: int, tmp_path: Path) -> None:
    """No traceback, no wrong byte, no hang, nothing written outside, a known status."""
    fuzz(tmp_path, kind, "--first", str(first), "--count", str(count), "--seed", SEED)


def test_cases_that_failed_once_end_well(tmp_path: Path) -> None:
    """Each has shown a defect: see regressions.py."""
    assert regressions.CASES
    fuzz(tmp_path, "regressions")
