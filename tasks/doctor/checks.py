"""Turn facts about this machine into findings: ok, warn or fail, with a fix. Pure.

`fail`: no model can be downloaded, or no llamafile can be started.
`warn`: some models may fail.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from tasks.cache.space import space_missing
from tasks.catalogue.artifact import EXECUTABLE_MAGICS
from tasks.catalogue.engine_choice import INSTALL_LLAMA_SERVER, LLAMA_SERVER_MISSING
from tasks.console import formatting
from tasks.engine import failures
from tasks.network.failures import NO_NAME
from tasks.system.exit_status import ProcessExit, status_text

EXPECTED_OUTPUT = "llamafile-recipe runs"  # the output of the test programs
# A shell script with the first bytes of a llamafile (see catalogue.artifact.PROGRAMS):
# the kernel does not recognize it as a program.
TINY_APE = EXECUTABLE_MAGICS[0] + b"\n'\necho " + EXPECTED_OUTPUT.encode() + b"\n"
TINY_SCRIPT = b"#!/bin/sh\necho " + EXPECTED_OUTPUT.encode() + b"\n"

_OTHER_TMPDIR = "export TMPDIR=FOLDER, a writable folder on a disk that allows programs"
# HTTP errors that still prove a server reachable; mirrors have no front page
_REACHABLE_STATUS = (401, 404, 405)


class CheckState(Enum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class CheckResult(NamedTuple):
    """One line of the report."""

    check: str
    state: CheckState
    found: str
    remedy: str = ""  # a command or an edit; empty if the state is ok


class ProgramResult(NamedTuple):
    """The result of a test program."""

    status: int | None = None  # None: not started, or stopped at the time limit
    output: str = ""  # or the reason why it was not started
    error: int = 0  # errno of that reason

    @property
    def succeeded(self) -> bool:
        """Whether the program ran and printed the expected text."""
        return self.status == 0 and EXPECTED_OUTPUT in self.output

    def __str__(self) -> str:
        if self.error:
            return self.output
        text = "did not end" if self.status is None else status_text(self.status)
        lines = self.output.strip().splitlines()
        return f"{text}, {lines[-1]}" if lines else text


def _ok(check: str, found: str) -> CheckResult:
    return CheckResult(check, CheckState.OK, found)


def _warn(check: str, found: str, remedy: str) -> CheckResult:
    return CheckResult(check, CheckState.WARN, found, remedy)


def _fail(check: str, found: str, remedy: str) -> CheckResult:
    return CheckResult(check, CheckState.FAIL, found, remedy)


def check_failed(check: str, error: BaseException | None) -> CheckResult:
    """Report a check that raised an exception, or that did not end (None)."""
    if error is None:
        remedy = "try again; usually a disk or a network does not respond"
        return _warn(check, "the check does not end", remedy)
    text = f"the check itself failed: {type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ImportError):
        return _warn(check, text, "pip install . in the recipe's folder")
    return _warn(check, text, "check by hand; please open an issue with this line")


def check_embedded(version: str) -> CheckResult:
    """Check the optional package of the embedded engine; empty: not installed."""
    if version:
        return _ok("embedded", version)
    found = "the package xllamacpp is not installed"
    return _fail("embedded", found, "pip install '.[embedded]'")


def check_llama_server(
    program: str,
    problem: str = LLAMA_SERVER_MISSING,
    remedy: str = INSTALL_LLAMA_SERVER,
) -> CheckResult:
    """Check the program of the engine llama-server; empty: there is none."""
    if program:
        return _ok("llama-server", program)
    return _fail("llama-server", problem, remedy)


def open_to_pages(found: str, remedy: str) -> CheckResult:
    """Report a server that any web page can use."""
    return _warn("origins", found, remedy)


def system_config(path: str) -> CheckResult:
    """Report a configuration of llama.cpp that the recipe cannot keep from engines."""
    found = f"{path} changes the settings of llama.cpp's servers on this machine"
    return _warn("config", found, f"remove {path}, or check that it changes nothing")


def check_catalogue(problem: str) -> CheckResult:
    """Report a catalogue that cannot be read."""
    return _fail("catalogue", problem, "`doit catalogue` shows each error")


def check_cache(folder: str, problem: str, state: str = "") -> CheckResult:
    """Check that the cache can be written.

    Args:
        state: the folder that has the servers of a cache that can only be read.
    """
    if not problem:
        return _ok("cache", folder)
    remedy = "set LLAMAFILE_CACHE to a directory you can write to"
    if state:
        found = f"{folder}: {problem}; servers are recorded in {state}"
        return _warn("cache", found, f"to download models, {remedy}")
    return _fail("cache", f"{folder}: {problem}", remedy)


def check_engine(ran: ProgramResult, platform: str) -> CheckResult:
    """Check that a program that is started as an engine runs."""
    action = "/bin/sh runs a program such as a llamafile"
    if platform == "win32":
        action = "an .exe starts"
    if ran.succeeded:
        return _ok("engine", action)
    known = failures.remedy(ProcessExit((), ran.status, str(ran)), platform)
    remedy = known or "/bin/sh must be a POSIX shell that may run files"
    return _fail("engine", f"{action}: no ({ran})", remedy)


def check_runnable(check: str, folder: str, ran: ProgramResult) -> CheckResult:
    """Check that programs may run in a folder, by a script that the kernel starts.

    Args:
        check: `noexec` for the cache, `loader` for the folder of APE's loader.
    """
    if ran.succeeded:
        return _ok(check, f"{folder} is not mounted noexec")
    remedy = failures.NOEXEC.partition(": ")[2]
    if check == "loader":
        remedy = _OTHER_TMPDIR
    if ran.error in (errno.EACCES, errno.EPERM):
        reason = "noexec, or a security policy such as SELinux"
        return _fail(check, f"{folder} may not hold programs: {reason}", remedy)
    if ran.error:
        return _fail(check, f"{folder}: {ran}", remedy)
    return _warn(check, f"{folder}: a script ended with {ran}", "is /bin/sh a shell?")


def check_cpu(
    machine: str, avx: bool | None, platform: str, translated: bool = False
) -> CheckResult:
    """Check that llamafile supports the processor; on x86-64 it needs AVX.

    Args:
        avx: None if unknown.
        translated: this Python runs under Rosetta.
    """
    if translated:
        remedy = failures.ROSETTA.partition(": ")[2]
        return _fail("cpu", f"{machine}, translated by Rosetta", remedy)
    if machine.lower() in ("arm64", "aarch64"):
        return _ok("cpu", machine)
    if machine.lower() not in ("x86_64", "amd64"):
        found = f"llamafile does not support {machine}"
        return _fail("cpu", found, "--engine embedded with a .gguf")
    if avx is None:
        found = f"{machine}; whether it has AVX is not known"
        return _warn("cpu", found, "run `doit verify`, which starts an engine")
    if not avx:
        return _fail("cpu", f"{machine} without AVX", failures.NO_AVX)
    return _ok("cpu", f"{machine} with AVX")


def check_gpu(seen: Iterable[str]) -> CheckResult:
    """List the GPUs. Whether an engine can use them shows only when one starts."""
    return _ok("gpu", ", ".join(seen) or "none seen: the CPU is used")


def check_disk(free: int, missing: Sequence[int | None], model: str) -> CheckResult:
    """Check the free disk space against what is missing of a model.

    Args:
        free: bytes.
        missing: bytes of each file to write; None if the size is unknown.
    """
    found = f"{formatting.format_size(free)} free"
    need = sum(size or 0 for size in missing)
    remedy = "free some space, or set LLAMAFILE_CACHE to another disk"
    if space_missing(0, 0, free):
        return _fail("disk", found, remedy)
    if not missing:
        return _ok("disk", f"{found}; {model} is here")
    size = formatting.format_size(need) if need else "an unknown size"
    found += f"; {model} takes {size}"
    if space_missing(need, 0, free):
        return _warn("disk", found, remedy)
    return _ok("disk", found)


def check_memory(
    total: int, available: int, need: int | None, model: str, remedy: str
) -> CheckResult:
    """Check the memory against what a model needs.

    Args:
        total: bytes of the machine's memory that this process may use.
        available: bytes of it that are free now.
        need: bytes; None if unknown.
        remedy: what helps if it needs more than the total.
    """
    free = formatting.format_size(available)
    found = f"{formatting.format_size(total)}, {free} of it available"
    if need is None:
        return _ok("memory", f"{found}; what {model} needs is not known")
    found += f"; {model} needs about {formatting.format_size(need)}"
    if total < need:
        return _warn("memory", found, remedy)
    if available < need:
        return _warn("memory", found, "end other programs first")
    return _ok("memory", found)


def check_port(address: str, problem: str, fix: str, server: str = "") -> CheckResult:
    """Check that a server could listen at an address.

    Args:
        server: the model whose server listens there; empty if none is of this user.
    """
    if server:
        return _ok("port", f"{address}: {server} is served there")
    if problem:
        return _warn("port", problem, fix)
    return _ok("port", f"{address} is free")


def redact_credentials(url: str) -> str:
    """Remove user and password from a URL."""
    scheme, colon, rest = url.rpartition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"


def check_hub(
    endpoint: str,
    status: int | None,
    problem: str = "",
    fix: str = "",
    fatal: bool = False,
) -> CheckResult:
    """Check that the Hub can be reached.

    Args:
        status: HTTP status; None if there was no response, see `problem`.
        fatal: retrying cannot help until something on this machine is changed.
    """
    if status is not None and (status < 400 or status in _REACHABLE_STATUS):
        return _ok("hub", f"{redact_credentials(endpoint)} answers")
    if not fix or fix == NO_NAME:  # which names `doit doctor`
        problem = problem.replace(f"; {NO_NAME}", "")
        fix = "check the network, HTTPS_PROXY and HF_ENDPOINT"
    remedy = f"{fix}; what is in the cache is served without it"
    problem = " ".join(problem.replace(endpoint, redact_credentials(endpoint)).split())
    found = f"{redact_credentials(endpoint)}: {problem or f'answers {status}'}"
    return CheckResult(
        "hub", CheckState.FAIL if fatal else CheckState.WARN, found, remedy
    )


def proxy(hosts: str) -> CheckResult:
    """Check that clients do not ask a proxy for the server on this machine.

    Args:
        hosts: the NO_PROXY that they need; empty if they need no other.
    """
    if not hosts:
        return _ok("proxy", "clients reach a server on this machine without it")
    found = "a proxy is set, and clients ask it for a server on this machine, too"
    remedy = f"NO_PROXY={hosts}; `doit with` sets it for its command"
    return _warn("proxy", found, remedy)


def check_locks(folder: str, problem: str) -> CheckResult:
    """Check that the file system refuses a lock that another process holds."""
    if not problem:
        return _ok("locks", "file locking works")
    remedy = "set LLAMAFILE_CACHE to a local disk, or run one doit at a time"
    return _warn("locks", f"{folder}: {problem}", remedy)
