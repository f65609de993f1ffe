"""What facts about this machine mean for downloading and serving: ok, warn or fail, and what mends it. Pure.

`fail` is what stops every model that is not here, or every llamafile; `warn` is what stops some, or may.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

from tasks.cache.space import space_missing
from tasks.catalogue.artifact import PROGRAMS
from tasks.console import formatting
from tasks.engine import failures
from tasks.system.exit_status import Ending, status_text

OLDEST_PYTHON, OLDEST_DOIT = (3, 10), (0, 37)  # pyproject.toml
SKEW_S = 300  # Source: issue 5.8; signed links and certificates of an hour are common
WORD = "llamafile-recipe runs"  # what the tiny program says
# A shell script that the kernel takes for no program, as a llamafile is one (see core.artifact.PROGRAMS)
TINY_APE = PROGRAMS[0] + b"\n'\necho " + WORD.encode() + b"\n"
TINY_SCRIPT = b"#!/bin/sh\necho " + WORD.encode() + b"\n"
_ELSEWHERE = "export TMPDIR=FOLDER, one that can be written, on a disk that may run programs"


class State(Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    state: State
    found: str
    remedy: str = ""  # the command or the edit; nothing where all is well


class Ran(NamedTuple):
    """What became of a tiny program."""

    status: int | None = None  # None where it was not started, or did not end in time
    output: str = ""  # or why it was not started
    error: int = 0  # the system's number for that

    @property
    def spoke(self) -> bool:
        return self.status == 0 and WORD in self.output

    def __str__(self) -> str:
        """What it came to, in a line."""
        if self.error:
            return self.output
        lines = [self.output.splitlines()[-1]] if self.output.strip() else []
        ended = "did not end" if self.status is None else status_text(self.status)
        return ", ".join([ended, *lines])


def _ok(check: str, found: str) -> Finding:
    return Finding(check, State.OK, found)


def _warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, State.WARN, found, remedy)


def _fail(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, State.FAIL, found, remedy)


def broken(check: str, error: BaseException | None) -> Finding:
    """A check that itself failed, or has not ended (None)."""
    if error is None:
        remedy = "a disk or a network that does not answer is the usual cause; try it again"
        return _warn(check, "the check does not end", remedy)
    text = f"the check itself failed: {type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ImportError):
        return _warn(check, text, "pip install . in the recipe's folder")
    return _warn(check, text, "look at it by hand; an issue of this repository with this line helps")


def python(version: Sequence[int], bits: int, machine: str) -> Finding:
    """The interpreter."""
    found = f"{'.'.join(map(str, version[:3]))}, {bits}-bit, {machine}"
    if tuple(version[:2]) < OLDEST_PYTHON:
        return _fail("python", found, "Python 3.10 or newer, in a new virtual environment")
    return _ok("python", found) if bits == 64 else _warn("python", found, "a 64-bit Python, for large files")


def doit(version: str) -> Finding:
    """doit's own version."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    remedy = "pip install 'doit>=0.37'"
    return _ok("doit", version) if numbers >= OLDEST_DOIT else _fail("doit", version, remedy)


def embedded(version: str) -> Finding:
    """The optional package that is the engine of some models; no version where it is not there."""
    absent = "the package xllamacpp is not installed"
    return _ok("embedded", version) if version else _fail("embedded", absent, "pip install '.[embedded]'")


def locale(encoding: str, platform: str) -> Finding:
    """How names of files and models are written."""
    if encoding.lower().replace("-", "") == "utf8":
        return _ok("locale", encoding)
    remedy = "set PYTHONUTF8=1" if platform == "win32" else "export LC_ALL=C.UTF-8"
    return _warn("locale", f"{encoding}: names of files may be garbled", remedy)


def cache(folder: str, problem: str) -> Finding:
    """Whether the cache can be written."""
    remedy = "set LLAMAFILE_CACHE to a directory you can write to"
    return _fail("cache", f"{folder}: {problem}", remedy) if problem else _ok("cache", folder)


def engine(ran: Ran, platform: str) -> Finding:
    """Whether a program that is started as an engine runs."""
    how = "an .exe starts" if platform == "win32" else "/bin/sh runs a program such as a llamafile"
    if ran.spoke:
        return _ok("engine", how)
    known = failures.remedy(Ending((), ran.status, str(ran)), platform)
    remedy = known or "/bin/sh must be a POSIX shell, and allowed to run files"
    return _fail("engine", f"{how}: no ({ran})", remedy)


def runnable(check: str, folder: str, ran: Ran) -> Finding:
    """Whether a folder may hold programs, from a script in it that the kernel was asked to run.

    Args:
        check: `noexec` for the cache, `loader` for the folder of an APE's loader.
    """
    if ran.spoke:
        return _ok(check, f"{folder} may hold programs")
    remedy = _ELSEWHERE if check == "loader" else failures.NOEXEC.partition(": ")[2]
    if ran.error in (errno.EACCES, errno.EPERM):
        return _fail(check, f"{folder} may not hold programs: noexec, or a rule such as SELinux's", remedy)
    if ran.error:
        return _fail(check, f"{folder}: {ran}", remedy)
    return _warn(check, f"{folder}: a script ended with {ran}", "is /bin/sh a shell?")


def handlers(entries: Mapping[str, str]) -> tuple[str, ...]:
    """Names of what binfmt_misc gives an APE to, from the text of its entries; APE's own loader is `ape`.

    Source: Linux Documentation/admin-guide/binfmt-misc.rst.
    """
    found = []
    for name, text in entries.items():
        words = dict(line.partition(" ")[::2] for line in text.splitlines())
        magic = words.get("magic", "")
        is_on = "enabled" in words and words.get("offset") == "0"
        if is_on and magic and PROGRAMS[0].hex().startswith(magic):
            is_ape = words.get("interpreter", "").rpartition("/")[2].startswith("ape")
            found.append("ape" if is_ape else name)
    return tuple(found)


def binfmt(entries: Mapping[str, str], direct: Ran | None) -> Finding:
    """Who gets a llamafile that is started without a shell.

    Args:
        direct: what became of one; None where that was not tried, for Wine makes itself a home then.
    """
    names = handlers(entries)
    others = [name for name in names if name != "ape"]
    if "ape" in names:
        return _ok("binfmt", "APE's own loader is registered")
    wsl = any(name.startswith("WSLInterop") for name in others)
    remedy = (
        failures.WSL if wsl else "register APE's own loader, see Linux in 'Gotchas' of llamafile's README"
    )
    if others:
        found = f"{', '.join(others)} gets what begins with MZ; doit goes through /bin/sh"
        return _warn("binfmt", found, remedy)
    if direct is None or direct.spoke or direct.error in (errno.ENOEXEC, errno.EACCES):
        return _ok("binfmt", "nobody takes a llamafile for another program")
    return _warn("binfmt", f"something takes a llamafile that is started directly: {direct}", remedy)


def cpu(machine: str, avx: bool | None, platform: str, translated: bool = False) -> Finding:
    """Whether llamafile has code for the processor; on x86-64 it needs AVX.

    Args:
        translated: this Python runs in Rosetta.
    """
    if translated:
        return _fail("cpu", f"{machine}, translated by Rosetta", failures.ROSETTA.partition(": ")[2])
    if machine.lower() in ("arm64", "aarch64"):
        return _ok("cpu", machine)
    if machine.lower() not in ("x86_64", "amd64"):
        return _fail("cpu", f"llamafile has no code for {machine}", "--engine embedded with a .gguf")
    if avx is None:
        return _warn("cpu", f"{machine}; whether it has AVX is not known", "`doit verify` tries an engine")
    if not avx:
        return _fail("cpu", f"{machine} without AVX", failures.NO_AVX)
    return _ok("cpu", f"{machine} with AVX")


def gpu(seen: Iterable[str]) -> Finding:
    """Which GPU there is; whether an engine can use it is seen when one starts."""
    return _ok("gpu", ", ".join(seen) or "none seen: the CPU is used")


def disk(free: int, missing: Sequence[int | None], model: str) -> Finding:
    """Room for what the model lacks.

    Args:
        missing: bytes of each file that is not here; None where nobody knows.
    """
    found, need = f"{formatting.size(free)} free", sum(size or 0 for size in missing)
    remedy = "free some space, or set LLAMAFILE_CACHE to another disk"
    if space_missing(0, 0, free):
        return _fail("disk", found, remedy)
    if not missing:
        return _ok("disk", f"{found}; {model} is here")
    about = f"{found}; {model} takes {formatting.size(need) if need else 'an unknown size'}"
    return _warn("disk", about, remedy) if space_missing(need, 0, free) else _ok("disk", about)


def memory(total: int, available: int, need: int | None, model: str) -> Finding:
    """Memory for the model; `total` is what this process may use of the machine's."""
    found = f"{formatting.size(total)}, {formatting.size(available)} of it available"
    if need is None:
        return _ok("memory", f"{found}; what {model} needs is not known")
    found += f"; {model} needs about {formatting.size(need)}"
    if total < need:
        remedy = "a smaller model (`doit` shows what each needs) or a smaller --ctx-size"
        return _warn("memory", found, remedy)
    return _warn("memory", found, "end other programs first") if available < need else _ok("memory", found)


def port(address: str, problem: str, fix: str) -> Finding:
    """Whether a server could listen."""
    return _warn("port", problem, fix) if problem else _ok("port", f"{address} is free")


def bare(url: str) -> str:
    """An address without user and password."""
    scheme, colon, rest = url.rpartition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"


def proxy(proxies: Mapping[str, str], excepted: str) -> Finding:
    """The proxies in use, of whom the clients of a server here must know that it needs none.

    Args:
        proxies: scheme → URL, as urllib.request.getproxies() has them.
        excepted: NO_PROXY.
    """
    used = {scheme: proxies[scheme] for scheme in ("all", "http", "https") if proxies.get(scheme)}
    if not used:
        return _ok("proxy", "none")
    found = ", ".join(f"{scheme} {bare(url)}" for scheme, url in used.items())
    if wrong := [scheme for scheme, url in used.items() if not _is_address(url)]:
        return _warn("proxy", f"{found}: no address", f"check {wrong[0].upper()}_PROXY: http://HOST:PORT")
    names = {name.strip() for name in excepted.split(",")}
    if {"http", "all"} & set(used) and not names & {"*", "127.0.0.1", "127.0.0.0/8"}:
        remedy = "export NO_PROXY=localhost,127.0.0.1, for clients of a server on this machine"
        return _warn("proxy", f"{found}; also for 127.0.0.1", remedy)
    return _ok("proxy", f"{found}; not for {excepted}" if excepted else found)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def certificates(variable: str, path: str, problem: str) -> Finding:
    """Whom HTTPS trusts.

    Args:
        variable: the one that names the file or folder; nothing where none does.
    """
    if not variable:
        return _ok("certificates", "those of certifi")
    found = f"{variable}={path}"
    remedy = f"{variable}=/path/of/a/file.pem that has certificates, or unset it"
    return _fail("certificates", f"{found}: {problem}", remedy) if problem else _ok("certificates", found)


def hub(endpoint: str, status: int | None, problem: str = "", fix: str = "", fatal: bool = False) -> Finding:
    """Whether models can be fetched.

    Args:
        status: of its answer; None where there was none, for the reason `problem`.
        fatal: the same will happen each time, until something here is changed.
    """
    if status is not None and (status < 400 or status in (401, 404, 405)):
        return _ok("hub", f"{bare(endpoint)} answers")
    remedy = fix or "check the network, HTTPS_PROXY and HF_ENDPOINT"
    remedy += "; what is in the cache is served without it"
    problem = " ".join(problem.replace(endpoint, bare(endpoint)).split())
    found = f"{bare(endpoint)}: {problem or f'answers {status}'}"
    return _fail("hub", found, remedy) if fatal else _warn("hub", found, remedy)


_SET_CLOCK = {"darwin": "sudo sntp -sS time.apple.com", "win32": "w32tm /resync"}


def clock(date: str, age: str, now: datetime, platform: str) -> Finding:
    """This machine's clock against the Date header of an answer.

    Args:
        age: the Age header: seconds that the answer lay in a cache (RFC 9111 §5.1).
        now: with its time zone.
    """
    try:
        theirs = parsedate_to_datetime(date).timestamp() + (int(age) if age.isdecimal() else 0)
    except (TypeError, ValueError, OverflowError):
        return _ok("clock", "not compared: nobody told the time")
    skew = now.timestamp() - theirs
    found = f"{formatting.seconds(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the Hub's"
    if abs(skew) <= SKEW_S:
        return _ok("clock", "right" if abs(skew) < 60 else found)
    remedy = _SET_CLOCK.get(platform, "sudo timedatectl set-ntp true")
    return _warn("clock", f"{found}: certificates and signed links need the right time", remedy)


def locks(folder: str, problem: str) -> Finding:
    """Whether the file system refuses a lock that another process holds."""
    if not problem:
        return _ok("locks", "one process at a time")
    return _warn("locks", f"{folder}: {problem}", "LLAMAFILE_CACHE on a local disk, or one doit at a time")
