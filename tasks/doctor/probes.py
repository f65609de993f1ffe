"""Look at this machine: tiny programs, the processor, the GPU, locks, certificates.

What it means is decided in `core.health`. A look ends by itself within LOOK_S, unless a disk hangs:
`side_by_side` leaves that one behind.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from tasks.cache import stamps
from tasks.doctor.checks import Ran

LOOK_S = 5.0
_running: set[subprocess.Popen[bytes]] = set()
# No program is started while another one is written: its child would have the file open, which is ETXTBSY
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


def side_by_side(looks: Mapping[str, Callable[[], Any]], limit_s: float) -> dict[str, Any]:
    """What each returns, or the exception that it raised, or None if it has not ended in time."""
    found: dict[str, Any] = dict.fromkeys(looks)

    def look(name: str) -> None:
        try:
            found[name] = looks[name]()
        except BaseException as error:  # told by name, in its line of the report
            found[name] = error

    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in looks]
    deadline = time.monotonic() + limit_s
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    except BaseException:  # a signal; nothing is started any more, and what was does not outlive us
        _starting.acquire(timeout=1)
        raise
    finally:
        for child in list(_running):
            child.kill()
        for thread in threads:
            if thread.is_alive():
                thread.join(0.1)  # enough for it to remove what it has written
    return dict(found)


def unwritable(folder: str) -> str:
    """Why the cache cannot be written, or nothing; it is made where it is not there."""
    try:
        stamps.make_cache(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def run(command: list[str]) -> Ran:
    """Run a small program that reads nothing, to its end or for LOOK_S."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        with _starting:
            child = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
            _running.add(child)
        with child:
            try:
                output, _ = child.communicate(timeout=LOOK_S)
            except subprocess.TimeoutExpired:
                child.kill()
                return Ran()
            finally:
                _running.discard(child)
    except OSError as error:
        return _refused(error)
    return Ran(child.returncode, output.decode("utf-8", "replace"))


def _refused(error: OSError) -> Ran:
    return Ran(None, error.strerror or str(error), error.errno or errno.EIO)


def tiny(folder: str, content: bytes, *before: str) -> Ran:
    """Write a program into a folder, run it behind the words `before`, and delete it."""
    try:
        handle, path = tempfile.mkstemp(prefix="doctor-", dir=folder)
    except OSError as error:
        return _refused(error)
    try:
        with _starting, open(handle, "wb") as file:
            file.write(content)
        os.chmod(path, 0o700)
        return run([*before, path])
    except OSError as error:
        return _refused(error)
    finally:
        with suppress(OSError):
            os.unlink(path)


def version(package: str) -> str:
    """The version of an installed package, or nothing."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def binfmt() -> dict[str, str]:
    """The entries of binfmt_misc by name; none where this process may not see them."""
    found = {}
    for path in glob("/proc/sys/fs/binfmt_misc/*"):
        with suppress(OSError, UnicodeDecodeError):
            found[os.path.basename(path)] = Path(path).read_text("utf-8")
    return found


def avx() -> bool | None:
    """Whether an x86-64 processor has AVX; None where the system does not tell."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(39))  # PF_AVX_INSTRUCTIONS_AVAILABLE
    if sys.platform == "darwin":
        said = run(["sysctl", "-n", "hw.optional.avx1_0"]).output.strip()
        return said == "1" if said in ("0", "1") else None
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("flags"):
                return "avx" in line.split()
    return None


def translated() -> bool:
    """Whether this Python runs in Rosetta."""
    on_mac = sys.platform == "darwin"
    return on_mac and run(["sysctl", "-n", "sysctl.proc_translated"]).output.strip() == "1"


def gpus(machine: str) -> list[str]:
    """The GPUs that show themselves."""
    if sys.platform == "darwin":
        return ["Metal"] if machine == "arm64" else []
    found = []
    for path in glob("/proc/driver/nvidia/gpus/*/information"):
        with suppress(OSError):
            lines = Path(path).read_text("utf-8", "replace").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    if not found and (listed := run(["nvidia-smi", "-L"])).status == 0:
        found = [line.partition("(UUID")[0].strip() for line in listed.output.splitlines() if "GPU" in line]
    return [*found, *(["AMD (/dev/kfd)"] if os.path.exists("/dev/kfd") else [])]


def lock_problem(folder: str) -> str:
    """What is wrong with locks in a folder, or nothing: another process asks for one that this one holds."""
    from filelock import FileLock

    try:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "doctor.lock")
        with FileLock(path, timeout=LOOK_S):
            said = run([sys.executable, "-c", _LOCK, path])
    except OSError as error:  # also a time-out
        return error.strerror or str(error)
    return {"refused": "", "held": "two processes hold one lock at once"}.get(said.output.strip(), str(said))


def certificates(env: Mapping[str, str]) -> tuple[str, str, str]:
    """(variable, path, problem) of the certificates that requests trusts, as it chooses them."""
    import ssl

    name = next((n for n in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if env.get(n)), "")
    path, problem = env.get(name, ""), ""
    if name and not os.path.exists(path):
        problem = "no such file"
    elif name and os.path.isfile(path):
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError is one
            problem = f"holds no certificates ({error.strerror or error})"
    return name, path, problem
