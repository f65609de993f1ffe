"""Verdicts about a machine, from facts of every platform."""

from __future__ import annotations

import errno

import pytest
from tasks.doctor import checks
from tasks.doctor.checks import CheckResult, ProgramResult
from tasks.network.failures import NO_NAME

RUNS = ProgramResult(0, f"{checks.EXPECTED_OUTPUT}\n")
GB = 10**9
LINUX, MAC, WINDOWS = "linux", "darwin", "win32"


@pytest.mark.parametrize(
    ("result", "state", "found", "remedy"),
    [
        pytest.param(checks.check_embedded("2026.10.1"), "ok", "2026.10.1", "", id="embedded"),
        pytest.param(
            checks.check_embedded(""), "fail", "xllamacpp", "pip install '.[embedded]'", id="not installed"
        ),
        pytest.param(checks.check_cache("/c", ""), "ok", "/c", "", id="cache"),
        pytest.param(
            checks.check_cache("/c", "No space"), "fail", "/c: No space", "LLAMAFILE_CACHE", id="no cache"
        ),
        pytest.param(checks.check_engine(RUNS, LINUX), "ok", "/bin/sh", "", id="engine"),
        pytest.param(checks.check_engine(RUNS, WINDOWS), "ok", ".exe", "", id="engine on Windows"),
        pytest.param(
            checks.check_engine(ProgramResult(1, "x [WinError 225] virus"), WINDOWS),
            "fail",
            "225",
            "virus scanner",
            id="scanner",
        ),
        pytest.param(
            checks.check_engine(ProgramResult(), LINUX), "fail", "did not end", "/bin/sh", id="engine hangs"
        ),
        pytest.param(
            checks.check_engine(ProgramResult(126, "f: Permission denied"), LINUX),
            "fail",
            "126",
            "noexec",
            id="sh may not read",
        ),
        pytest.param(
            checks.check_engine(ProgramResult(None, "No space left on device", errno.ENOSPC), LINUX),
            "fail",
            "No space left",
            "disk is full",
            id="a full disk",
        ),
        pytest.param(
            checks.check_runnable("noexec", "/c", RUNS), "ok", "/c is not mounted noexec", "", id="exec"
        ),
        pytest.param(
            checks.check_runnable("noexec", "/c", ProgramResult(None, "Permission denied", errno.EACCES)),
            "fail",
            "/c may not hold programs",
            "set LLAMAFILE_CACHE to another disk, or mount",
            id="noexec",
        ),
        pytest.param(
            checks.check_runnable("loader", "/t", ProgramResult(None, "Permission denied", errno.EACCES)),
            "fail",
            "/t may not hold programs",
            "export TMPDIR=",
            id="noexec TMPDIR",
        ),
        pytest.param(
            checks.check_runnable("loader", "/t", ProgramResult(None, "Read-only file system", errno.EROFS)),
            "fail",
            "/t: Read-only file system",
            "export TMPDIR=",
            id="read-only TMPDIR",
        ),
        pytest.param(
            checks.check_runnable("noexec", "/c", ProgramResult(3, "x")),
            "warn",
            "exit status 3",
            "/bin/sh",
            id="odd",
        ),
        pytest.param(checks.check_cpu("x86_64", True, LINUX), "ok", "AVX", "", id="AVX"),
        pytest.param(
            checks.check_cpu("AMD64", False, WINDOWS), "fail", "without AVX", "another machine", id="no AVX"
        ),
        pytest.param(
            checks.check_cpu("x86_64", None, LINUX), "warn", "not known", "doit verify", id="AVX unknown"
        ),
        pytest.param(checks.check_cpu("arm64", None, MAC), "ok", "arm64", "", id="Apple silicon"),
        pytest.param(checks.check_cpu("aarch64", None, LINUX), "ok", "aarch64", "", id="arm64"),
        pytest.param(
            checks.check_cpu("x86_64", True, MAC, True), "fail", "Rosetta", "arch -arm64", id="Rosetta"
        ),
        pytest.param(
            checks.check_cpu("riscv64", None, LINUX), "fail", "riscv64", "--engine embedded", id="RISC-V"
        ),
        pytest.param(checks.check_gpu(["RTX 4090", "AMD"]), "ok", "RTX 4090, AMD", "", id="GPUs"),
        pytest.param(checks.check_gpu([]), "ok", "none seen: the CPU is used", "", id="no GPU"),
        pytest.param(
            checks.check_disk(9 * GB, [5 * GB], "m"), "ok", "9.00 GB free; m takes 5.00 GB", "", id="room"
        ),
        pytest.param(checks.check_disk(GB, [], "m"), "ok", "m is here", "", id="nothing is missing"),
        pytest.param(
            checks.check_disk(4 * GB, [3 * GB, 2 * GB], "m"), "warn", "5.00 GB", "another disk", id="short"
        ),
        pytest.param(checks.check_disk(9 * GB, [None], "m"), "ok", "an unknown size", "", id="size unknown"),
        pytest.param(
            checks.check_disk(10_000_000, [], "m"), "fail", "10.0 MB free", "free some space", id="full"
        ),
        pytest.param(
            checks.check_memory(16 * GB, 9 * GB, 7 * GB, "m", ""),
            "ok",
            "needs about 7.00 GB",
            "",
            id="memory",
        ),
        pytest.param(
            checks.check_memory(4 * GB, 3 * GB, 7 * GB, "m", "a smaller model"),
            "warn",
            "4.00 GB",
            "smaller model",
            id="little",
        ),
        pytest.param(
            checks.check_memory(16 * GB, GB, 7 * GB, "m", ""),
            "warn",
            "1.00 GB",
            "other programs",
            id="in use",
        ),
        pytest.param(
            checks.check_memory(4 * GB, GB, None, "m", ""), "ok", "not known", "", id="need unknown"
        ),
        pytest.param(checks.check_port("h:1", "", ""), "ok", "h:1 is free", "", id="port"),
        pytest.param(
            checks.check_port("h:1", "1 is in use", "--port 0"), "warn", "in use", "--port 0", id="taken"
        ),
        pytest.param(
            checks.check_port("h:1", "1 is in use", "--port 0", "m"), "ok", "h:1: m is served", "", id="ours"
        ),
        pytest.param(checks.check_hub("https://h", 200), "ok", "https://h answers", "", id="hub"),
        pytest.param(
            checks.check_hub("https://h", None, f"cannot resolve h; {NO_NAME}", NO_NAME),
            "warn",
            "https://h: cannot resolve h",
            "check the network, HTTPS_PROXY and HF_ENDPOINT; ",
            id="a name that is not known",
        ),
        pytest.param(
            checks.check_hub("https://u:p@h", 404), "ok", "https://h answers", "", id="a mirror's root"
        ),
        pytest.param(
            checks.check_hub("https://h", 503), "warn", "answers 503", "what is in the cache", id="hub ill"
        ),
        pytest.param(
            checks.check_hub("https://h", 403), "warn", "answers 403", "HTTPS_PROXY", id="forbidden"
        ),
        pytest.param(
            checks.check_hub("https://h", None, "gone"), "warn", "h: gone", "check the network", id="no hub"
        ),
        pytest.param(
            checks.check_hub("https://u:p@h", None, "no https://u:p@h", "do X", True),
            "fail",
            "no https://h",
            "do X",
            id="fatal",
        ),
        pytest.param(checks.proxy(""), "ok", "reach a server", "", id="proxy"),
        pytest.param(checks.proxy("h"), "warn", "a proxy is set", "NO_PROXY=h;", id="no NO_PROXY"),
        pytest.param(
            checks.check_locks("/l", "two processes hold one lock"),
            "warn",
            "two",
            "to a local disk",
            id="locks lie",
        ),
        pytest.param(checks.check_locks("/l", ""), "ok", "file locking works", "", id="locks"),
        pytest.param(
            checks.check_failed("x", ModuleNotFoundError("No module named 'psutil'")),
            "warn",
            "psutil",
            "pip install .",
            id="a package is missing",
        ),
        pytest.param(checks.check_failed("x", None), "warn", "does not end", "try again", id="a check hangs"),
        pytest.param(
            checks.check_failed("x", KeyError("k\nl")),
            "warn",
            "failed: KeyError: ",
            "by hand",
            id="a check breaks",
        ),
    ],
)
def test_verdicts(result: CheckResult, state: str, found: str, remedy: str) -> None:
    """Issue 5.8: each line ok, warn or fail, and what is not ok has its remedy."""
    assert (result.state.value, "\n" in result.found) == (state, False)
    assert found in result.found
    assert remedy in result.remedy
    assert bool(result.remedy) is (state != "ok")
    assert "u:p" not in result.found
