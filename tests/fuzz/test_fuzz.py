"""A few cases of each kind, and those that have shown a defect once.

LLAMAFILE_FUZZ=long runs all cases, LLAMAFILE_FUZZ_SEED=N makes other ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import kinds
from tests.fuzz.world import ROOT

pytestmark = [
    pytest.mark.chain,  # each case runs doit
    pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script"),
]

# read here: the tests themselves see no such variables
IS_LONG = os.environ.get("LLAMAFILE_FUZZ") == "long"
SEED = os.environ.get("LLAMAFILE_FUZZ_SEED", "1")
CHUNK = 100  # cases of one test: a case that ends the process takes along those behind it
LIMIT_S = 3600 if IS_LONG else 600  # the suite may be busy with much else


def chunks() -> Iterator[str]:
    """The arguments of each run: one of all kinds, or one for each hundred of a kind."""
    yield "--short"
    for name, kind in kinds.KINDS.items() if IS_LONG else ():
        for first in range(0, kind.long, CHUNK):
            yield f"{name} --first {first} --count {min(CHUNK, kind.long - first)}"


@pytest.mark.parametrize("args", list(chunks()))
def test_cases_end_well(args: str, tmp_path: Path) -> None:
    """No traceback, no wrong byte, no hang, nothing written outside, a known status.

    In a process of its own, for a case may end it or take its memory.
    """
    command = [sys.executable, "-m", "tests.fuzz", *args.split(), "--seed", SEED]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True,
        text=True, errors="replace", timeout=LIMIT_S, check=False,
    )  # fmt: skip
    last = done.stderr[-5000:]
    assert done.returncode == 0, f"{done.stdout}\nstatus {done.returncode}\n{last}"
