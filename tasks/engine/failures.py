"""What a program's end means and what mends it: one table. And whether an engine left the GPU alone. Pure.

Sources in the comments: `#N` is an issue of mozilla-ai/llamafile; a file and line is of llamafile 0.9.3, its
llama.cpp included, and apelink.c, loader.c, exit.c are of jart/cosmopolitan eedf7d2; `run` is what a real APE
(cosmopolitan's cocmd) did on Debian 12 with dash and bash; owner/name#N is an issue elsewhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tasks.system.exit_status import Ending, status_text

if TYPE_CHECKING:
    from tasks.system.exit_status import Ending
import shlex
from collections.abc import Sequence

from tasks.errors import ServerError
from tasks.system import exit_status


class Known(NamedTuple):
    """A known failure: it fits where everything that it says is so."""

    text: str  # what it is, and the command or the edit that mends it
    pattern: str = ""  # in the output, any case; ^ and $ are of a line
    status: tuple[int, ...] = ()  # one of these exit statuses; empty: any
    platform: str = ""  # as sys.platform says it; empty: any


def _signal(number: int) -> tuple[int, int]:
    return -number, 128 + number  # as Python says it, and as a shell does


_MEMORY = "memory is short: a smaller --ctx-size or a smaller model (`doit` shows what each needs)"
_KILLED = "something killed it, most often because " + _MEMORY
_BROKEN = "the file is truncated or its disk failed: delete it and run this again"
_NOT_SENT = "the file is a page or a pointer that a server sent in its place: delete it, and check its url"
NOEXEC = "a noexec file system: set LLAMAFILE_CACHE to another disk, or mount -o remount,exec"
NO_AVX = "this CPU, or the virtual machine's, lacks AVX or what else the engine needs: use another machine"
ROSETTA = "Rosetta translates it, without AVX: use an arm64 shell and an arm64 Python (arch -arm64 zsh)"
WSL = "sudo sh -c 'echo -1 > /proc/sys/fs/binfmt_misc/WSLInterop' (on newer WSL: WSLInterop-late)"
_SCANNER = (
    "a virus scanner blocks it, for a llamafile most often by mistake: update its definitions, "
    "or make an exception for the cache (LLAMAFILE_CACHE)"
)
_CRASHED = "the engine crashed; --gpu disable tells whether the GPU is the cause"
_SANDBOX = (
    "a sandbox forbids a system call: `doit serve -- --unsecure` turns llamafile's own off; "
    "docker run --security-opt seccomp=unconfined tells whether it is the container's"
)

# the first that fits holds, so what is special stands before what is general
# fmt: off
TABLE = (
    # -- the command line: server.cpp:2762; #783 (--v2); ggml-org/llama.cpp#23739 (upstream, so 0.10)
    Known("this version of the engine has no such option: leave it away",
        r"unknown argument\b|error: invalid argument: -"),
    # #673; noonghunna/club-3090#186 (upstream); server.cpp:2629
    Known("this version of the engine takes other values there: see its --help",
        r"invalid parameter for argument|error while handling argument|invalid --gpu flag value"),
    # 0.10 and tasks/engine/embedded.py; common.h:42 (what -m is without a word); llamafile.c:175
    Known("it is an engine without a model: serve a .gguf, or a llamafile that has a model inside",
        r"missing required -m|models/7B/ggml-model-f16\.gguf|no \S*gguf file found in zip"),
    # run with xllamacpp 2026.10 and a GGUF that is no projector; clip.cpp of llama.cpp
    Known("the file of `mmproj:` is no vision projector, or one of another model: name the one that "
        "its publisher put beside the model",
        r"failed to load (CLIP|multimodal) model"),
    # server.cpp:3146, #81; #971 (0.10); #716 (--v2)
    Known("another program has the port: --port 0 takes a free one",
        r"couldn't bind|address already in use"),
    # -- an APE's start: #106, #108, #488, jart/cosmopolitan#918; arranger1044/iSoul#16
    Known("macOS does not trust the file: allow it in System Settings, Privacy & Security, "
        "or xattr -d com.apple.quarantine FILE",
        r"prog mmap failed w/ errno 1\b|map\(exec\) failed|sh: .*Operation not permitted$",
        platform="darwin"),
    # #74, #152, #215; jart/cosmopolitan#940 names the 39 bits
    Known("the kernel gives programs too few addresses (39 bits on some boards) or memory (ulimit -v): "
        "take a kernel with 48 bits, or --engine embedded with a .gguf",
        r"prog mmap failed w/ errno 12\b"),
    # run; loader.c:771
    Known(NOEXEC, "prog mmap failed"),
    # run: to bash nothing on a noexec file system is a program, nor a file without +x; loader.c:1080
    Known(NOEXEC + "; or the file is not executable, which `doit chmod` mends",
        r"ape error: .*not found \(maybe chmod"),
    # apelink.c:2195, metal.c:179
    Known("xcode-select --install", "xcode-select", platform="darwin"),
    # run, #557; loader.c:1086
    Known(_BROKEN + " (or: " + NOEXEC + ")", r"unexpected end of file|ape error: .*: too small"),
    # run: what the script at the head of an APE calls
    Known("an APE unpacks its loader with gzip and coreutils: install them",
        r"\b(gzip|dd|mkdir|chmod|mv): (command )?not found"),
    # run on a full tmpfs
    Known("the disk is full: free some space in TMPDIR, HOME and the cache", "No space left on device"),
    # run with dash and bash; #479
    Known("an APE's loader needs a folder that can be written: export TMPDIR=FOLDER HOME=FOLDER",
        r"Read-only file system|(cannot|can't) create .*(Permission denied|Not a directory)"
        r"|\.ape-\d+\.\d+\.\d+: Permission denied"),
    # run with dash and bash
    Known("TMPDIR, where an APE's loader goes, is on a noexec file system: export TMPDIR=FOLDER elsewhere",
        r"\.ape-\d+\.\d+: (cannot execute: )?Permission denied"),
    # run with the loader of another machine in its place (a shared home)
    Known("the APE loader that is there is another machine's: rm $TMPDIR/.ape-* ~/.ape-*",
        "Exec format error|cannot execute binary file"),
    # #47, #130, #253, #369, #513; #22, #201, #741, jart/cosmopolitan#51 (Wine); #21, #373 (Mono); #500
    Known("binfmt_misc hands the file to another program (Wine, Mono, run-detectors): register APE's own "
        "loader, see Linux in 'Gotchas' of llamafile's README",
        r"run-detectors|\b(err|fixme):\w+:|valid CIL image|cannot execute: required file not found"),
    # #100, #275, #579
    Known(WSL, "WIN32 inside WSL"),
    # #356, #202
    Known(WSL, r"(llamafile|\.exe|\.com)\S*: Invalid argument$", platform="linux"),
    # #587; run with an `ape` made with argparse, and one with getopt
    Known("another program named ape is on PATH and gets the file: `command -v ape` finds it; rename it",
        r"Attempto Parsing Engine|^(usage: )?ape(:| \[)"),
    # run; apelink.c:2288; 'Supported CPUs' of llamafile's README
    Known("llamafile has code for x86-64 and arm64 alone: --engine embedded with a .gguf",
        r"this ape program lacks \S+ support"),
    # run with HTML, the text of a 404, JSON, a Git LFS pointer
    Known(_NOT_SENT, r"<!doctype html|<html|\b(Entry|oid): (command )?not found|: \{.*\}: not found"),
    # run: HTML in dash; a file cut off in its first kilobytes
    Known(_NOT_SENT, "syntax error", status=(2,)),
    # -- the processor: #327, #488, #11
    Known(ROSETTA, r"cpu feature \S+ was required|illegal (hardware )?instruction", platform="darwin"),
    # #11
    Known(ROSETTA, status=_signal(4), platform="darwin"),
    # check_cpu.c:37; ggml-org/llama.cpp#6723
    Known(NO_AVX, r"cpu feature \S+ was required|illegal (hardware )?instruction"),
    # ggml-org/llama.cpp#6723; Windows: dougeeai/llama-cpp-python-wheels#10, nomic-ai/gpt4all#316
    Known(NO_AVX, status=(*_signal(4), 0xC000001D)),
    # -- Windows does not start it: #10, #31, #63, #490, #718; pyinstaller/pyinstaller#8193
    Known(_SCANNER, r"\[WinError 22[56]\]|contains a virus"),
    # #66, #98, #139, #257, #793; #296 (16-bit: truncated); python/cpython#88313 (193)
    Known("Windows runs no program over 4 GiB and none that is truncated: --engine llamafile takes "
        "a big one with -m; is it smaller, delete it and run this again",
        r"\[WinError 193\]|not a valid (Win32 )?application|can't run on your PC|16-bit application"),
    # fatedier/frp#3866, flet-dev/flet#1437
    Known("llamafile needs 64-bit Windows on x86-64: --engine embedded with a .gguf", r"\[WinError 216\]"),
    # BlueAmulet/GreenLuma-2025-Manager#11, Tribler/tribler#7574
    Known("clear 'Run this program as an administrator' in the file's properties", r"\[WinError 740\]"),
    # canton7/SyncTrayzor#12; ROCm/TheRock#3149
    Known("a policy of this computer forbids it (AppLocker, Smart App Control): ask who administers it",
        r"\[WinError (1260|4551)\]|blocked by group policy|Application Control policy"),
    # cmderdev/cmder#3000, r-lib/processx#393
    Known(_SCANNER, r"\[WinError (5|32)\]"),
    # utilityai/llama-cpp-rs#583, ollama/ollama#6804
    Known("a DLL is missing: install https://aka.ms/vs/17/release/vc_redist.x64.exe, or try --gpu disable",
        status=(0xC0000135,)),
    # -- the GPU: cuda.c:966, #273, #384, #961, #1048; #200 (0.5, 0.6)
    Known("the GPU or its driver is missing: --gpu auto, or --gpu disable",
        r"--gpu \S+ was explicitly|was passed but no gpus were found$"),
    # ollama/ollama#7666, abetlen/llama-cpp-python#1436
    Known("the NVIDIA driver is older than the engine's CUDA: update it, or --gpu disable",
        "driver version is insufficient"),
    # ggml-org/llama.cpp#4215
    Known("the engine has no code for this GPU: --gpu disable", "no kernel image is available"),
    # ggml-org/llama.cpp#20431, #16725; ollama/ollama#9782; ggml-org/llama.cpp#5441 (Vulkan), #7366
    Known("the GPU's memory is short: fewer layers on it (--ngl), a smaller --ctx-size, or --gpu disable",
        r"cudaMalloc failed|CUDA error: out of memory|OutOfDeviceMemory"
        r"|allocate (CUDA|ROCm|Vulkan|Metal)\d* buffer"),
    # -- the model: llamafile.c:181
    Known("it holds several models, and -m takes files with one", r"multiple \.gguf files"),
    # llama.cpp:4447, #711, #730; llama.cpp:5447
    Known("the model is newer than the engine: name a newer one in models.yaml, or try --engine embedded",
        "unknown (model architecture|pre-tokenizer)"),
    # ggml-org/llama.cpp#6774, moly-ai/moly-local#13; ggml.c:19761; llamafile.c:130 (the end is missing)
    Known(_BROKEN, "not within the file bounds|invalid magic|not a pkzip archive"),
    # -- memory: llama.cpp:2885, ggml-org/llama.cpp#8101; common.cpp:2097; llama.cpp:17864
    Known("the context does not fit into memory: a smaller --ctx-size",
        "buffer for kv cache|failed to create context|failed to allocate compute"),
    # ggml.c:169, ggml-org/llama.cpp#639 (8), Comfy-Org/ComfyUI#7069 (1455)
    Known(_MEMORY, r"out of memory|failed to allocate|bad_alloc|cannot allocate|\[WinError (8|1455)\]"),
    # -- the rest of what is said: antimatter15/alpaca.cpp#146, #942, #948
    Known("the system's C or C++ library is too old for it: a newer system, or --gpu disable",
        r"GLIBC(XX)?_[\d.]+'? not found"),
    # tasks/engine/embedded.py
    Known("pip install --upgrade '.[embedded]'", "optional package|xllamacpp does not load|is not the one"),
    # llama.cpp:17465, server.cpp:463, #494
    Known("this engine does not read the file: `doit verify` checks it, --engine llamafile may be newer",
        "failed to load model|error loading model|unable to load model"),
    # helixarch/debtap#64; server.cpp:3263
    Known(_SANDBOX, r"bad system call|^pledge: "),
    # #107, #374, #988; abetlen/llama-cpp-python#1436
    Known(_CRASHED, "uncaught SIG|GGML_ASSERT"),
    # run: dash, bash
    Known("the program has gone: run this again",
        r"\[WinError [23]\]|\[Errno 2\]|sh: .*(cannot open .*No such file|No such file or directory$)"),
    # -- the end alone: #14, and 'Gotchas' of llamafile's README (CrowdStrike)
    Known(_KILLED + "; or macOS or a virus scanner forbids it", status=_signal(9), platform="darwin"),
    # vectorch-ai/ScaleLLM#38
    Known(_KILLED, status=_signal(9)),
    # signal.h of macOS: its SIGBUS
    Known(_BROKEN, status=_signal(10), platform="darwin"),
    # run: a truncated file whose loader was unpacked before
    Known(_BROKEN, status=_signal(7)),
    # helixarch/debtap#64 (159)
    Known(_SANDBOX, status=_signal(31)),
    # #663; ggml.c's abort; Windows: #98, ollama/ollama#17375, janhq/jan#6091, microsoft/winget-pkgs#287472
    Known(_CRASHED, status=(*_signal(11), *_signal(6), *_signal(8), *_signal(5), 0xC0000005, 0xC0000409)),
    # run: the loader in a TMPDIR that is noexec
    Known("it may not be run: is the cache or TMPDIR on a noexec file system?", status=(126,)),
)
# fmt: on


def known(ending: Ending, platform: str) -> Known | None:
    """The row of the table that explains it."""
    statuses = () if ending.status is None else (ending.status, ending.status & 0xFFFFFFFF)
    for row in TABLE:
        fits = row.platform in ("", platform) and (not row.status or any(s in row.status for s in statuses))
        if fits and re.search(row.pattern, ending.output, re.IGNORECASE | re.MULTILINE):
            return row
    return None


def remedy(ending: Ending, platform: str) -> str:
    """What most likely mends it, or nothing."""
    row = known(ending, platform)
    return row.text if row else ""


# the engine's last word. gpu.c:71 and #263 (0.6 to 0.9); server.cpp:2424 of 0.8.6; common.cpp:814,
# ggml-org/llama.cpp#9343 (upstream until 2024); #965 (0.10.2), ggml-org/llama.cpp#23943 (upstream since)
_FELL_BACK = "falling back to CPU inference|no usable GPU found|not compiled with GPU offload support"
# where layers are counted, the count decides. llama.cpp:7854; #273
_OFFLOADED = r"offloaded (\d+)/\d+ layers to GPU"
# one way to a GPU failed, another may work: ggml-cuda.cu:14374, abetlen/llama-cpp-python#1890; cuda.c:749,
# #263; ggml-org/llama.cpp#6184; #988, #961 (0.10); ollama/ollama#16985
_ONE_FAILED = (
    r"failed to initialize (CUDA|ROCm)|No GPU devices found|GPU support not possible|no CUDA devices found"
    r"|no devices detected|no pre-built GPU library|crashed during device probe|load_backend: failed to load"
)
# another worked. janhq/jan#6091, #374, metal.c:273, cuda.c:746, #81
_ONE_WORKED = (
    r"found [1-9]\d* (CUDA|ROCm|Vulkan) devices|using device (?!CPU)\w+ \(|GPU support (successfully )?loaded"
    r"|ggml_metal_init: (found device|GPU name)"
)


def cpu_fallback(output: str) -> str:
    """The line in which an engine that was asked for a GPU says that it uses the CPU, or nothing.

    Args:
        output: all that the engine printed; in its last lines alone the one that counts may be missing.
    """
    lines = output.splitlines()
    said = [line.strip() for line in lines if re.search(_FELL_BACK, line, re.IGNORECASE)]
    if said:
        return said[0]
    failed = [line.strip() for line in lines if re.search(_ONE_FAILED, line, re.IGNORECASE)]
    counts = [(line.strip(), int(n)) for line in lines for n in re.findall(_OFFLOADED, line, re.IGNORECASE)]
    if counts:
        return "" if any(n for _, n in counts) else [*failed, counts[0][0]][0]
    return "" if re.search(_ONE_WORKED, output, re.IGNORECASE) or not failed else failed[0]


def on_gpu(output: str) -> bool:
    """Whether an engine says that a GPU works for it."""
    counted = [int(n) for n in re.findall(_OFFLOADED, output, re.IGNORECASE)]
    return any(counted) or bool(re.search(_ONE_WORKED, output, re.IGNORECASE))


def failed_start(name: str, command: Sequence[str], error: OSError, platform: str) -> ServerError:
    """The error for a program the system refused to start.

    The number leads, for its text is in the user's language: `[WinError 225] ...`, `[Errno 13] ...`.
    """
    number = getattr(error, "winerror", None)
    code = f"[WinError {number}]" if number else f"[Errno {error.errno}]" if error.errno else ""
    ending = exit_status.Ending(command, None, f"{code} {error.strerror or error}".strip())
    return failure(f"{name} could not be started", ending, platform)


def failure(what: str, ending: Ending, platform: str) -> ServerError:
    """The error for a program that failed: command, status, last lines, likely remedy (R26, R28)."""
    facts = [
        ("command", shlex.join(ending.command)),
        ("ended", status_text(ending.status, platform) if ending.status is not None else ""),
        ("output", ending.output or "(it printed nothing)"),
        ("log", ending.log),
    ]
    return ServerError(what, facts, fix=remedy(ending, platform))
