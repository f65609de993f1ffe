"""Looks at the real machine, and none that hangs or breaks stops the others."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest
from tasks.doctor import checks, probes
from tasks.system import files

posix = pytest.mark.skipif(os.name == "nt", reason="needs /bin/sh")


def test_one_that_hangs_or_breaks_stops_no_other() -> None:
    """Issue 5.8, R27: each has its answer, its exception or nothing, within the limit."""
    free = threading.Event()
    found = probes.run_concurrently({"a": lambda: free.wait(60), "b": lambda: 1 // 0, "c": lambda: 3}, 0.5)
    free.set()
    assert list(found) == ["a", "b", "c"]
    assert (found["a"], type(found["b"]), found["c"]) == (None, ZeroDivisionError, 3)


@posix
def test_tiny_programs_run_and_leave_nothing(tmp_path: Path) -> None:
    """Issue 5.8: the APE-shaped one through /bin/sh; the kernel itself takes it for no program."""
    assert probes.run_test_program(str(tmp_path), checks.TINY_APE, "/bin/sh").succeeded
    assert probes.run_test_program(str(tmp_path), checks.TINY_SCRIPT).succeeded
    direct = probes.run_test_program(str(tmp_path), checks.TINY_APE)
    assert direct.succeeded or direct.error == errno.ENOEXEC
    assert probes.run_test_program(str(tmp_path / "none"), b"").error == errno.ENOENT
    assert list(tmp_path.iterdir()) == []


@posix
def test_tiny_programs_run_side_by_side(tmp_path: Path) -> None:
    """Issue 5.8: none is started while another one is written, which would be ETXTBSY."""
    looks = {
        str(n): lambda: [probes.run_test_program(str(tmp_path), checks.TINY_SCRIPT) for _ in range(30)]
        for n in range(4)
    }
    assert all(ran.succeeded for found in probes.run_concurrently(looks, 60).values() for ran in found)


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 5.8, R27: after LOOK_S."""
    monkeypatch.setattr(probes, "LOOK_S", 0.3)
    # it would end with status 0 and its output
    assert (
        probes.run([sys.executable, "-c", "import time; time.sleep(600); print(1)"]) == checks.ProgramResult()
    )


def test_this_machine(tmp_path: Path) -> None:
    """Issue 5.8: what can be said of any machine that runs the tests."""
    assert probes.has_avx() in (True, False, None)
    assert isinstance(probes.gpus("x86_64"), list)
    assert probes.version("doit")
    assert probes.version("no-such-package-here") == ""
    assert files.nearest_existing_dir(str(tmp_path / "a" / "b")) == str(tmp_path)
    assert probes.lock_problem(str(tmp_path / "locks")) == ""
    assert probes.write_error(str(tmp_path / "cache")) == ""
    (tmp_path / "file").write_text("")
    assert probes.write_error(str(tmp_path / "file" / "cache"))
    assert probes.lock_problem(str(tmp_path / "file" / "locks"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_avx_is_what_the_kernel_says() -> None:
    """Issue 5.8: as `grep avx /proc/cpuinfo`."""
    text = Path("/proc/cpuinfo").read_text()
    assert probes.has_avx() is ((" avx " in text) if "\nflags" in text else None)
