"""Examine this machine: run test programs, find AVX and GPUs, try a file lock.

`doctor.checks` decides what the results mean. A probe ends within LOOK_S, unless a disk
hangs; `side_by_side` does not wait for such a probe.
"""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from tasks.doctor.checks import ProgramResult

LOOK_S = 5.0
_PREFIX = "doctor-"  # of temporary files
_AVX_FEATURE = 39  # winnt.h: PF_AVX_INSTRUCTIONS_AVAILABLE
_running: set[subprocess.Popen[bytes]] = set()
# Held while a test program is written or started. A child process that is started while
# the file is open for writing inherits it, and running the file fails with ETXTBSY.
_starting = threading.Lock()
_LOCK = """
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1]).acquire(timeout=0)
    print("held")
except Timeout:
    print("refused")
"""


def run_concurrently(
    looks: Mapping[str, Callable[[], Any]], limit_s: float
) -> dict[str, Any]:
    """Run probes in threads.

    Returns:
        For each probe its result, its exception, or None if it did not end in time.
    """
    results: dict[str, Any] = dict.fromkeys(looks)

    def run_one(name: str) -> None:
        try:
            results[name] = looks[name]()
        except BaseException as error:  # becomes a line of the report
            results[name] = error

    threads = [
        threading.Thread(target=run_one, args=(name,), daemon=True) for name in looks
    ]
    deadline = time.monotonic() + limit_s
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    except BaseException:
        # A signal: keep the lock, so that no thread starts another program.
        _starting.acquire(timeout=1)
        raise
    finally:
        _stop(threads)
    return dict(results)


def _stop(threads: list[threading.Thread]) -> None:
    """Kill the test programs, and give each thread the time to remove its file."""
    for child in list(_running):
        child.kill()
    for thread in threads:
        if thread.is_alive():
            thread.join(0.1)


def write_error(folder: str) -> str:
    """Return why the cache cannot be written or created, or nothing."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            file.write(b"1")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def existing(path: str) -> str:
    """Return a path, or the nearest one above it that exists: it need not be created.

    That may be a file, in which nothing can be created.
    """
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def run(command: list[str]) -> ProgramResult:
    """Run a small program without input; stop it after LOOK_S."""
    try:
        with _starting:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            _running.add(child)
        with child:
            try:
                output, _ = child.communicate(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                child.kill()
                return ProgramResult()
            finally:
                _running.discard(child)
    except OSError as error:
        return _not_started(error)
    return ProgramResult(child.returncode, output.decode("utf-8", "replace"))


def _not_started(error: OSError) -> ProgramResult:
    return ProgramResult(None, error.strerror or str(error), error.errno or errno.EIO)


def run_test_program(folder: str, content: bytes, *before: str) -> ProgramResult:
    """Write a program into a folder, run it, and delete it.

    Args:
        before: the start of the command line, before the program's path.
    """
    try:
        handle, path = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
    except OSError as error:
        return _not_started(error)
    try:
        with _starting, open(handle, "wb") as file:
            file.write(content)
        os.chmod(path, 0o700)
        return run([*before, path])
    except OSError as error:
        return _not_started(error)
    finally:
        with suppress(OSError):
            os.unlink(path)


def version(package: str) -> str:
    """Return the version of an installed package, or nothing."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def has_avx() -> bool | None:
    """Return whether an x86-64 processor has AVX; None if that is unknown."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(_AVX_FEATURE))
    if sys.platform == "darwin":
        return {"1": True, "0": False}.get(_sysctl("hw.optional.avx1_0"))
    path = "/proc/cpuinfo"
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("flags"):
                return "avx" in line.split()
    return None


def cpu_model() -> str:
    """Return the name of the processor, or nothing."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    path = "/proc/cpuinfo"
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def under_rosetta() -> bool:
    """Return whether this Python runs under Rosetta."""
    return sys.platform == "darwin" and _sysctl("sysctl.proc_translated") == "1"


def _sysctl(name: str) -> str:
    return run(["sysctl", "-n", name]).output.strip()


def gpus(machine: str) -> list[str]:
    """Return the names of the GPUs that this process can see."""
    if sys.platform == "darwin":
        return ["Metal"] if machine == "arm64" else []
    names = list(_nvidia_of_proc()) or list(_nvidia_of_smi())
    if os.path.exists("/dev/kfd"):
        names.append("AMD (/dev/kfd)")
    return names


def _nvidia_of_proc() -> Iterator[str]:
    for path in glob("/proc/driver/nvidia/gpus/*/information"):
        with suppress(OSError):
            for line in Path(path).read_text("utf-8", "replace").splitlines():
                if line.startswith("Model"):
                    yield line.partition(":")[2].strip()


def _nvidia_of_smi() -> Iterator[str]:
    result = run(["nvidia-smi", "-L"])
    if result.status == 0:
        for line in result.output.splitlines():
            if "GPU" in line:
                yield line.partition("(UUID")[0].strip()


def lock_problem(folder: str) -> str:
    """Return what is wrong with file locks in a folder, or nothing.

    Another process requests the lock that this process holds.
    """
    from filelock import FileLock

    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=existing(folder)) as place:
            path = os.path.join(place, "lock")
            with FileLock(path, timeout=LOOK_S):
                result = run([sys.executable, "-c", _LOCK, path])
    except OSError as error:  # filelock.Timeout is one
        return error.strerror or str(error)
    answer = result.output.strip()
    if answer == "refused":
        return ""
    if answer == "held":
        return "two processes hold one lock at once"
    return str(result)
