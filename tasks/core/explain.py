"""What an engine's end means for its user: one table from (status, output, platform) to the remedy. Pure.

The texts are those of cosmopolitan's loader (apelink.c), llamafile, llama.cpp and the systems; numbers are
issues of mozilla-ai/llamafile unless another project is named.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Known(NamedTuple):
    """A known failure."""

    name: str
    remedy: str
    pattern: str = ""  # in the output, any case
    statuses: tuple[int, ...] = ()  # exit status, negative for a signal, or NTSTATUS; empty: any
    platform: str = ""  # empty: any


def _died_of(number: int) -> tuple[int, ...]:
    """A signal, as Popen says it and as a shell does."""
    return (-number, 128 + number)


_MEMORY = "memory is short: a smaller --ctx-size or a smaller model (`doit` shows what each needs)"
_BROKEN = "the file is truncated or its disk failed: delete it and run this again"
_NO_AVX = "this CPU lacks AVX, which llamafile needs: another machine, or --engine embedded with a .gguf"
_NOEXEC = "its file system is mounted noexec: set LLAMAFILE_CACHE, or TMPDIR if it is that, to another disk"
_SCANNER = (
    "a virus scanner holds it back: allow the folder of LLAMAFILE_CACHE there (its digest was verified)"
)
_RELEASE_EXE = (
    "Windows does not start it (over 4 GiB, or not whole): --engine llamafile; `doit verify` checks it"
)
_WSL = "sudo sh -c 'echo -1 > /proc/sys/fs/binfmt_misc/WSLInterop' (WSLInterop-late on newer ones)"
_GPU_GONE = "the GPU or its driver is missing: --gpu auto, or --gpu disable"

# the first that fits holds: what names its cause comes before a bare status
TABLE = (
    # the loader of an APE
    Known("gatekeeper",
          "allow it in System Settings, Privacy & Security, or: xattr -d com.apple.quarantine FILE",
          "prog mmap failed", platform="darwin"),  # 14, 106, 108
    Known("noexec", _NOEXEC, "prog mmap failed"),  # run on Debian 12: status 127
    # apelink.c compiles with cc
    Known("no compiler", "xcode-select --install", "xcode-select", platform="darwin"),
    Known("other processor", "it has no program for this processor: another model, or another machine",
          "this ape program lacks"),
    Known("no tools", "its loader needs sh, uname, mkdir, dd, gzip, chmod and mv: install what is missing",
          r"\b(uname|mkdir|dd|gzip|chmod|mv): (command )?not found"),
    Known("binfmt",
          "binfmt_misc sends it to another loader: register APE there (llamafile's README, Gotchas)",
          r"run-detectors|valid CIL image|\bwine(64)?: "),  # 47, 130, 369, 513; 373; 22, 201, 311, 741
    Known("wsl", _WSL, "WIN32 inside WSL"),  # 100, 275
    Known("wsl argument", _WSL, "invalid argument", (126,), "linux"),  # 356
    Known("unwritable", "its loader cannot be unpacked: set TMPDIR (or HOME) to a folder you can write to",
          r"mkdir: .*|read-only file system"),  # 479; run: status 1
    Known("truncated", _BROKEN, "unexpected end of file"),  # run: gzip's words, status 1
    Known("no program", "it is no program, perhaps a web page: delete it and run this again",
          r"syntax error|unexpected (token|newline)|not found.*DOCTYPE|DOCTYPE", (2, 127)),  # run: status 2
    # Windows
    # 28, 338, 718
    Known("virus scanner", _SCANNER, r"WinError 225|WinError 226|potentially unwanted software"),
    Known("denied", _SCANNER, r"WinError 5\]", platform="win32"),  # 490
    # 66, 98, 296
    Known("not an exe", _RELEASE_EXE, r"WinError (193|216)\]|16-bit|not a valid (Win32 )?application"),
    Known("elevation", "Windows wants an administrator for it: a user's own folder in LLAMAFILE_CACHE",
          r"WinError 740\]"),
    Known("no dll", "a DLL of Windows is missing: install the Visual C++ Redistributable", "", (0xC0000135,)),
    Known("no avx on windows", _NO_AVX, "", (0xC000001D,)),
    # 988
    Known("crash on windows",
          "it crashed; --gpu disable tells whether the GPU is the cause", "", (0xC0000005,)),
    # engines
    Known("unknown option", "this version of the engine has no such option: leave it away",
          r"unknown argument: \S+|invalid argument: -"),  # 955
    Known("port", "another program has the port: --port 0 takes a free one",
          "couldn't bind|address already in use"),  # 54
    Known("avx", _NO_AVX, r"(requires?|needs?) (the )?AVX|AVX.* (required|not (available|supported))"),
    Known("several models", "it holds several models, and -m takes files with one", r"multiple \.gguf files"),
    Known("gpu memory", "the GPU's memory is short: fewer layers (--ngl N), or a smaller --ctx-size",
          r"cuda.*out of memory|cudaMalloc failed|vk::.*OutOfDeviceMemory|ErrorOutOfDeviceMemory"),
    Known("no gpu", _GPU_GONE, r"--gpu \S+ was explicitly"),  # cuda.c:935, metal.c:269
    Known("driver", _GPU_GONE, r"no CUDA-capable device|CUDA driver version is insufficient"),  # 273, 736
    Known("memory", _MEMORY, "out of memory|failed to allocate|bad_alloc|cannot allocate"),
    Known("old system", "this system's C library is too old for that engine: --engine llamafile",
          r"version .GLIBC(XX)?_\S+ not found"),
    Known("no package", "pip install '.[embedded]'", "optional package"),
    Known("new model",
          "this engine is older than the model: --engine llamafile, of a newer version in models.yaml",
          "unknown (model )?architecture|unsupported model architecture"),
    Known("no model", "the engine was given no model: `doit verify` checks it", "missing required -m"),
    Known("unreadable model",
          "this engine does not read the file: `doit verify` checks it, --engine llamafile may "
          "be newer", "failed to load model|error loading model"),
    # bare statuses
    # 11
    Known("rosetta", "an x86 terminal on an ARM Mac: open one without Rosetta", "", _died_of(4), "darwin"),
    Known("illegal instruction", "this CPU lacks an instruction the engine needs (AVX?)", "", _died_of(4)),
    Known("killed", "something killed it, most often because " + _MEMORY, "", _died_of(9)),
    Known("crash", "the engine crashed; --gpu disable tells whether the GPU is the cause", "", _died_of(11)),
    Known("bus error", _BROKEN, "", _died_of(7)),  # run: a truncated file whose loader is unpacked
    Known("sandbox",
          "the system forbids what it calls: try `-- --unsecure` (llamafile's own sandbox off)", "",
          _died_of(31)),
    Known("not executable",
          "it may not be run: is LLAMAFILE_CACHE or TMPDIR on a noexec file system?", "", (126,)),
)  # fmt: skip


def remedy(status: int | None, output: str, platform: str) -> str:
    """What most likely mends it, or nothing.

    Args:
        status: exit status, negative for a signal; None where it has not ended, or never began.
        output: its last lines, or the system's words.
        platform: as sys.platform says it.
    """
    found = explained(status, output, platform)
    return found.remedy if found else ""


def explained(status: int | None, output: str, platform: str) -> Known | None:
    """The first row that fits."""
    for known in TABLE:
        fits = known.platform in ("", platform) and (not known.statuses or status in known.statuses)
        if fits and re.search(known.pattern, output, re.IGNORECASE):
            return known
    return None


# llama.cpp (common/arg.cpp, common.cpp; issues 9153, 15946), llamafile 965, ggml-cuda.cu
_FALLBACK = re.compile(
    r"no usable GPU found|not compiled with GPU offload support|compiled without GPU support"
    r"|offloaded 0/\d+ layers|failed to initialize CUDA|no CUDA-capable device"
    r"|fall(ing|s)? back to (the )?CPU",
    re.IGNORECASE,
)
_OFFLOADED = re.compile(r"offloaded [1-9]\d*/\d+ layers", re.IGNORECASE)


def offloaded(output: str) -> bool:
    """Whether an engine says that layers are on the GPU."""
    return bool(_OFFLOADED.search(output))


def cpu_fallback(output: str) -> str:
    """The line that says that the CPU stands in for the GPU; nothing where none does, or layers got there."""
    if offloaded(output):
        return ""
    return next((line.strip() for line in output.splitlines() if _FALLBACK.search(line)), "")
