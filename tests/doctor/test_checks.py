"""Verdicts about a machine, from facts of every platform."""

from __future__ import annotations

import errno
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.doctor import checks
from tasks.doctor.checks import Finding, Ran, State

NOW = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
RUNS = Ran(0, f"{checks.WORD}\n")
GB = 10**9
LINUX, MAC, WINDOWS = "linux", "darwin", "win32"
WSL = "enabled\ninterpreter /init\nflags: PF\noffset 0\nmagic 4d5a\n"
WINE = "enabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n"
APE = "enabled\ninterpreter /usr/bin/ape\nflags: F\noffset 0\nmagic 4d5a71467044\n"
QEMU = "enabled\ninterpreter /usr/bin/qemu-arm\nflags: \noffset 0\nmagic 7f454c46\n"


@pytest.mark.parametrize(
    ("finding", "state", "found", "remedy"),
    [
        pytest.param(checks.python((3, 11, 7), 64, "x86_64"), "ok", "3.11.7, 64-bit", "", id="python"),
        pytest.param(
            checks.python((3, 9, 1), 64, "x86_64"), "fail", "3.9.1", "3.10 or newer", id="old python"
        ),
        pytest.param(checks.python((3, 12, 0), 32, "AMD64"), "warn", "32-bit", "64-bit Python", id="32 bits"),
        pytest.param(checks.doit("0.37.0"), "ok", "0.37.0", "", id="doit"),
        pytest.param(checks.doit("0.36.0"), "fail", "0.36.0", "pip install 'doit>=0.37'", id="old doit"),
        pytest.param(checks.doit(""), "fail", "", "pip install", id="doit that says no version"),
        pytest.param(checks.embedded("2026.10.1"), "ok", "2026.10.1", "", id="embedded"),
        pytest.param(
            checks.embedded(""), "fail", "xllamacpp", "pip install '.[embedded]'", id="not installed"
        ),
        pytest.param(checks.locale("UTF-8", LINUX), "ok", "UTF-8", "", id="locale"),
        pytest.param(checks.locale("ascii", LINUX), "warn", "ascii", "LC_ALL=C.UTF-8", id="locale C"),
        pytest.param(checks.locale("cp1252", WINDOWS), "warn", "cp1252", "PYTHONUTF8=1", id="code page"),
        pytest.param(checks.cache("/c", ""), "ok", "/c", "", id="cache"),
        pytest.param(
            checks.cache("/c", "No space"), "fail", "/c: No space", "LLAMAFILE_CACHE", id="no cache"
        ),
        pytest.param(checks.engine(RUNS, LINUX), "ok", "/bin/sh", "", id="engine"),
        pytest.param(checks.engine(RUNS, WINDOWS), "ok", ".exe", "", id="engine on Windows"),
        pytest.param(
            checks.engine(Ran(1, "x [WinError 225] virus"), WINDOWS),
            "fail",
            "225",
            "virus scanner",
            id="scanner",
        ),
        pytest.param(checks.engine(Ran(), LINUX), "fail", "did not end", "/bin/sh", id="engine hangs"),
        pytest.param(
            checks.engine(Ran(126, "f: Permission denied"), LINUX),
            "fail",
            "126",
            "noexec",
            id="sh may not read",
        ),
        pytest.param(
            checks.engine(Ran(None, "No space left on device", errno.ENOSPC), LINUX),
            "fail",
            "No space left",
            "disk is full",
            id="a full disk",
        ),
        pytest.param(checks.runnable("noexec", "/c", RUNS), "ok", "/c may hold", "", id="exec"),
        pytest.param(
            checks.runnable("noexec", "/c", Ran(None, "Permission denied", errno.EACCES)),
            "fail",
            "/c may not hold programs",
            "set LLAMAFILE_CACHE to another disk, or mount",
            id="noexec",
        ),
        pytest.param(
            checks.runnable("loader", "/t", Ran(None, "Permission denied", errno.EACCES)),
            "fail",
            "/t may not hold programs",
            "export TMPDIR=",
            id="noexec TMPDIR",
        ),
        pytest.param(
            checks.runnable("loader", "/t", Ran(None, "Read-only file system", errno.EROFS)),
            "fail",
            "/t: Read-only file system",
            "export TMPDIR=",
            id="read-only TMPDIR",
        ),
        pytest.param(
            checks.runnable("noexec", "/c", Ran(3, "x")), "warn", "exit status 3", "/bin/sh", id="odd"
        ),
        pytest.param(checks.binfmt({}, Ran(None, "", errno.ENOEXEC)), "ok", "nobody", "", id="no binfmt"),
        pytest.param(checks.binfmt({}, RUNS), "ok", "nobody", "", id="a kernel that asks a shell"),
        pytest.param(checks.binfmt({"qemu-arm": QEMU, "status": "enabled\n"}, None), "ok", "", "", id="qemu"),
        pytest.param(
            checks.binfmt({"WSLInterop": WSL}, None), "warn", "WSLInterop", "echo -1 >", id="WSLInterop"
        ),
        pytest.param(
            checks.binfmt({"WSLInterop-late": WSL}, None), "warn", "-late", "WSLInterop-late", id="newer WSL"
        ),
        pytest.param(checks.binfmt({"wine": WINE}, None), "warn", "wine", "APE's own loader", id="wine"),
        pytest.param(
            checks.binfmt({"wine": WINE.replace("enabled", "disabled")}, None),
            "ok",
            "",
            "",
            id="wine, disabled",
        ),
        pytest.param(
            checks.binfmt({"wine": WINE, "APE": APE}, None), "ok", "APE's own", "", id="wine and APE"
        ),
        pytest.param(
            checks.binfmt({}, Ran(1, "run-detectors: unable to find an interpreter")),
            "warn",
            "run-detectors",
            "APE's own loader",
            id="the host's, in a container",
        ),
        pytest.param(checks.cpu("x86_64", True, LINUX), "ok", "AVX", "", id="AVX"),
        pytest.param(
            checks.cpu("AMD64", False, WINDOWS), "fail", "without AVX", "another machine", id="no AVX"
        ),
        pytest.param(checks.cpu("x86_64", None, LINUX), "warn", "not known", "doit verify", id="AVX unknown"),
        pytest.param(checks.cpu("arm64", None, MAC), "ok", "arm64", "", id="Apple silicon"),
        pytest.param(checks.cpu("aarch64", None, LINUX), "ok", "aarch64", "", id="arm64"),
        pytest.param(checks.cpu("x86_64", True, MAC, True), "fail", "Rosetta", "arch -arm64", id="Rosetta"),
        pytest.param(checks.cpu("riscv64", None, LINUX), "fail", "riscv64", "--engine embedded", id="RISC-V"),
        pytest.param(checks.gpu(["RTX 4090", "AMD"]), "ok", "RTX 4090, AMD", "", id="GPUs"),
        pytest.param(checks.gpu([]), "ok", "none seen: the CPU is used", "", id="no GPU"),
        pytest.param(
            checks.disk(9 * GB, [5 * GB], "m"), "ok", "9.00 GB free; m takes 5.00 GB", "", id="room"
        ),
        pytest.param(checks.disk(GB, [], "m"), "ok", "m is here", "", id="nothing is missing"),
        pytest.param(
            checks.disk(4 * GB, [3 * GB, 2 * GB], "m"), "warn", "5.00 GB", "another disk", id="short"
        ),
        pytest.param(checks.disk(9 * GB, [None], "m"), "ok", "an unknown size", "", id="size unknown"),
        pytest.param(checks.disk(10_000_000, [], "m"), "fail", "10.0 MB free", "free some space", id="full"),
        pytest.param(
            checks.memory(16 * GB, 9 * GB, 7 * GB, "m"), "ok", "needs about 7.00 GB", "", id="memory"
        ),
        pytest.param(
            checks.memory(4 * GB, 3 * GB, 7 * GB, "m"), "warn", "4.00 GB", "smaller model", id="little"
        ),
        pytest.param(
            checks.memory(16 * GB, GB, 7 * GB, "m"), "warn", "1.00 GB", "other programs", id="in use"
        ),
        pytest.param(checks.memory(4 * GB, GB, None, "m"), "ok", "not known", "", id="need unknown"),
        pytest.param(checks.port("h:1", "", ""), "ok", "h:1 is free", "", id="port"),
        pytest.param(checks.port("h:1", "1 is in use", "--port 0"), "warn", "in use", "--port 0", id="taken"),
        pytest.param(checks.proxy({}, ""), "ok", "none", "", id="no proxy"),
        pytest.param(
            checks.proxy({"no": "x", "ftp": "ftp://p"}, "x"), "ok", "none", "", id="no proxy for this"
        ),
        pytest.param(
            checks.proxy({"https": "http://u:p@proxy:3128/"}, ""),
            "ok",
            "https http://proxy:3128",
            "",
            id="proxy",
        ),
        pytest.param(
            checks.proxy({"http": "http://proxy:1"}, "a.b"), "warn", "127.0.0.1", "NO_PROXY=", id="for all"
        ),
        pytest.param(checks.proxy({"all": "socks5://p:1"}, "*"), "ok", "not for *", "", id="except all"),
        pytest.param(
            checks.proxy({"http": "proxy:1"}, "a, 127.0.0.1"), "ok", "not for a, 127.0.0.1", "", id="excepted"
        ),
        pytest.param(
            checks.proxy({"https": "http://"}, ""),
            "warn",
            "no address",
            "HTTPS_PROXY: http://HOST",
            id="none",
        ),
        pytest.param(
            checks.proxy({"https": "http://p:port"}, ""), "warn", "no address", "HTTPS_PROXY", id="no port"
        ),
        pytest.param(checks.certificates("", "", ""), "ok", "certifi", "", id="certificates"),
        pytest.param(checks.certificates("V", "/ca", ""), "ok", "V=/ca", "", id="own certificates"),
        pytest.param(
            checks.certificates("V", "/ca", "no such file"),
            "fail",
            "V=/ca: no such file",
            "unset",
            id="no file",
        ),
        pytest.param(checks.hub("https://h", 200), "ok", "https://h answers", "", id="hub"),
        pytest.param(checks.hub("https://u:p@h", 404), "ok", "https://h answers", "", id="a mirror's root"),
        pytest.param(
            checks.hub("https://h", 503), "warn", "answers 503", "what is in the cache", id="hub ill"
        ),
        pytest.param(checks.hub("https://h", 403), "warn", "answers 403", "HTTPS_PROXY", id="forbidden"),
        pytest.param(
            checks.hub("https://h", None, "gone"), "warn", "h: gone", "check the network", id="no hub"
        ),
        pytest.param(
            checks.hub("https://u:p@h", None, "no https://u:p@h", "do X", True),
            "fail",
            "no https://h",
            "do X",
            id="fatal",
        ),
        pytest.param(
            checks.locks("/l", "two processes hold one lock"),
            "warn",
            "two",
            "on a local disk",
            id="locks lie",
        ),
        pytest.param(checks.locks("/l", ""), "ok", "one process", "", id="locks"),
        pytest.param(
            checks.broken("x", ModuleNotFoundError("No module named 'psutil'")),
            "warn",
            "psutil",
            "pip install .",
            id="a package is missing",
        ),
        pytest.param(checks.broken("x", None), "warn", "does not end", "try it again", id="a check hangs"),
        pytest.param(
            checks.broken("x", KeyError("k\nl")), "warn", "failed: KeyError: ", "by hand", id="a check breaks"
        ),
    ],
)
def test_verdicts(finding: Finding, state: str, found: str, remedy: str) -> None:
    """Issue 5.8: each line ok, warn or fail, and what is not ok has its remedy."""
    assert (finding.state.value, "\n" in finding.found) == (state, False)
    assert found in finding.found
    assert remedy in finding.remedy
    assert bool(finding.remedy) is (state != "ok")
    assert "u:p" not in finding.found


@pytest.mark.parametrize(
    ("behind_s", "age", "state", "found"),
    [
        (0, "", "ok", "right"),
        (100, "", "ok", "100 s behind"),
        (-290, "", "ok", "ahead of the Hub's"),
        (400, "", "warn", "6 min 40 s behind the Hub's: "),
        (-7200, "", "warn", "2 h 0 min ahead of"),
        (-7200, "7200", "ok", "right"),
        (-7200, "no number", "warn", "ahead of"),
    ],
)
@pytest.mark.parametrize("platform", [LINUX, MAC, WINDOWS])
def test_the_clock(behind_s: int, age: str, state: str, found: str, platform: str) -> None:
    """Issue 5.8: by the Date of an answer, and its Age where a cache kept it."""
    date = format_datetime(NOW + timedelta(seconds=behind_s), usegmt=True)
    finding = checks.clock(date, age, NOW, platform)
    assert (finding.state.value, found in finding.found) == (state, True), finding
    fix = {LINUX: "timedatectl", MAC: "sntp", WINDOWS: "w32tm"}[platform]
    assert (fix in finding.remedy) is (state == "warn")


@given(st.text(max_size=40), st.text(max_size=5))
def test_no_date_is_no_verdict(date: str, age: str) -> None:
    """Issue 5.8: whatever stands in the headers."""
    assert checks.clock(date, age, NOW, LINUX).state in (State.OK, State.WARN)
    assert checks.clock("", "", NOW, LINUX).found == "not compared: nobody told the time"


@given(st.dictionaries(st.sampled_from(["http", "https", "all"]), st.text(max_size=30)), st.text(max_size=20))
def test_any_proxy_is_a_verdict(proxies: dict[str, str], excepted: str) -> None:
    """Issue 5.8: what people put into those variables."""
    assert checks.proxy(proxies, excepted).state in (State.OK, State.WARN)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=60)))
def test_any_entry_of_binfmt_is_read(entries: dict[str, str]) -> None:
    """Issue 5.8: the kernel's own text, and others."""
    assert checks.handlers(entries) == ()
