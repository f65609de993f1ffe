"""List known failures of engines: pattern, likely cause and fix. Pure.

Sources in the comments:
- `#N` is an issue of mozilla-ai/llamafile; owner/name#N is an issue elsewhere.
- A file and line is of llamafile 0.9.3, its llama.cpp included; apelink.c, loader.c
  and exit.c are of jart/cosmopolitan eedf7d2.
- `measured` is what a real APE (cosmopolitan's cocmd) did on Debian 12 with dash
  and bash.
"""

from __future__ import annotations

from typing import NamedTuple

from tasks.engine.causes import (
    BROKEN,
    CRASHED,
    KILLED,
    MEMORY,
    NO_AVX,
    NOEXEC,
    NOT_SENT,
    ROSETTA,
    SANDBOX,
    SCANNER,
    WSL,
)


class KnownFailure(NamedTuple):
    """A known failure; it matches where all of its conditions hold."""

    text: str  # the cause, and the command or edit that fixes it
    pattern: str = ""  # searched in the output, ignoring case; ^ and $ match at lines
    status: tuple[int, ...] = ()  # one of these exit statuses; empty: any
    platform: str = ""  # a value of sys.platform; empty: any
    # a word of the command that started it, or the file name of one; empty: any
    engine: str = ""
    other_engine: bool = True  # another engine may work


def _signal(number: int) -> tuple[int, int]:
    """Return both exit statuses of a signal: Python's and a shell's."""
    return -number, 128 + number


_TOO_NEW = "unknown (model architecture|pre-tokenizer)"

# the first match wins, so special entries come before general ones
KNOWN_FAILURES = (
    # -- the command line: server.cpp:2762; #783 (--v2); ggml-org/llama.cpp#23739
    # (upstream, so 0.10)
    KnownFailure(
        "this version of the engine has no such option: remove it",
        r"unknown argument\b|error: invalid argument: -"
        r"|option '.+' not recognized in preset",
    ),
    # #673; noonghunna/club-3090#186 (upstream); server.cpp:2629
    KnownFailure(
        "this version of the engine takes other values for it: see its --help",
        r"invalid parameter for argument|error while handling argument"
        r"|invalid --gpu flag value",
    ),
    # 0.10 and tasks/engine/embedded.py; common.h:42 (the default of -m);
    # llamafile.c:175
    KnownFailure(
        "it is an engine without a model: serve a .gguf, or a llamafile that contains "
        "a model",
        r"missing required -m|models/7B/ggml-model-f16\.gguf"
        r"|no \S*gguf file found in zip",
    ),
    # measured with xllamacpp 2026.10 and a GGUF that is not a projector; clip.cpp of
    # llama.cpp
    KnownFailure(
        "the file of `mmproj:` is not a vision projector, or belongs to another "
        "model: use the one that its publisher put beside the model",
        r"failed to load (CLIP|multimodal) model",
    ),
    # measured with llama-server 11669, xllamacpp 2026.10 and a GGUF that is a model
    KnownFailure(
        "the file of `lora:` is not a LoRA adapter in GGUF, or belongs to another "
        "model",
        "failed to load lora adapter",
    ),
    # measured with the same, and a truncated draft
    KnownFailure(
        "the file of `draft:` is not a model that this engine reads, or has another "
        "vocabulary than the model",
        "failed to load draft model",
    ),
    # server.cpp:3146, #81; #971 (0.10); #716 (--v2)
    KnownFailure(
        "another program uses the port: use --port 0 for a free one",
        r"couldn't bind|address already in use",
        other_engine=False,
    ),
    # -- an APE's start: #106, #108, #488, jart/cosmopolitan#918; arranger1044/iSoul#16
    KnownFailure(
        "macOS does not trust the file: allow it in System Settings, Privacy & "
        "Security, or run xattr -d com.apple.quarantine FILE",
        r"prog mmap failed w/ errno 1\b|map\(exec\) failed"
        r"|sh: .*Operation not permitted$",
        platform="darwin",
    ),
    # #74, #152, #215; jart/cosmopolitan#940 names the 39 bits
    KnownFailure(
        "programs get too little address space from the kernel (39 bits on some "
        "boards) or from ulimit -v: use a kernel with 48 bits, or --engine embedded "
        "with a .gguf",
        r"prog mmap failed w/ errno 12\b",
    ),
    # measured; loader.c:771
    KnownFailure(NOEXEC, "prog mmap failed"),
    # measured: bash reports this for a noexec file system and for a file without +x;
    # loader.c:1080
    KnownFailure(
        NOEXEC + "; or the file is not executable: run `doit chmod`",
        r"ape error: .*not found \(maybe chmod",
    ),
    # apelink.c:2195, metal.c:179
    KnownFailure("xcode-select --install", "xcode-select", platform="darwin"),
    # measured, #557; loader.c:1086
    KnownFailure(
        BROKEN + " (or: " + NOEXEC + ")",
        r"unexpected end of file|ape error: .*: too small",
    ),
    # measured: programs that the script at the start of an APE runs
    KnownFailure(
        "an APE unpacks its loader with gzip and coreutils: install them",
        r"\b(gzip|dd|mkdir|chmod|mv): (command )?not found",
    ),
    # measured on a full tmpfs
    KnownFailure(
        "the disk is full: free some space in TMPDIR, HOME and the cache",
        "No space left on device",
        other_engine=False,
    ),
    # measured with dash and bash; #479
    KnownFailure(
        "an APE's loader needs a writable directory: export TMPDIR=FOLDER HOME=FOLDER",
        r"Read-only file system|(cannot|can't) create .*(Permission denied"
        r"|Not a directory)"
        r"|\.ape-\d+\.\d+\.\d+: Permission denied",
    ),
    # measured with dash and bash
    KnownFailure(
        "TMPDIR, where an APE puts its loader, is on a noexec file system: export "
        "TMPDIR=FOLDER on another one",
        r"\.ape-\d+\.\d+: (cannot execute: )?Permission denied",
    ),
    # measured with a release for another CPU, with a text, and without libvulkan.so.1
    KnownFailure(
        "llama-server is a program for another system or CPU, or none: correct "
        "archives: or path: of engines.llama-server in models.yaml",
        r"Exec format error|cannot execute binary file|Bad CPU type|WinError (193|216)",
        engine="llama-server",
    ),
    KnownFailure(
        "a library of the system is missing: install it, or use the archive without a "
        "GPU: gpu: disable of engines.llama-server in models.yaml",
        "error while loading shared libraries",
        engine="llama-server",
    ),
    # measured with another architecture's loader in a shared home
    KnownFailure(
        "the unpacked APE loader is for another machine's CPU: "
        "rm $TMPDIR/.ape-* ~/.ape-*",
        "Exec format error|cannot execute binary file",
    ),
    # #47, #130, #253, #369, #513; #22, #201, #741, jart/cosmopolitan#51 (Wine); #21,
    # #373 (Mono); #500
    KnownFailure(
        "binfmt_misc passes the file to another program (Wine, Mono, run-detectors): "
        "register APE's own loader, see Linux in 'Gotchas' of llamafile's README",
        r"run-detectors|\b(err|fixme):\w+:|valid CIL image"
        r"|cannot execute: required file not found",
    ),
    # #100, #275, #579
    KnownFailure(WSL, "WIN32 inside WSL"),
    # #356, #202
    KnownFailure(
        WSL, r"(llamafile|\.exe|\.com)\S*: Invalid argument$", platform="linux"
    ),
    # #587; measured with an `ape` that uses argparse, and one that uses getopt
    KnownFailure(
        "another program named ape is on PATH and gets the file: "
        "find it with `command -v ape` and rename it",
        r"Attempto Parsing Engine|^(usage: )?ape(:| \[)",
    ),
    # measured; apelink.c:2288; 'Supported CPUs' of llamafile's README
    KnownFailure(
        "llamafile supports only x86-64 and arm64: use --engine embedded with a .gguf",
        r"this ape program lacks \S+ support",
    ),
    # measured with HTML, the text of a 404, JSON, a Git LFS pointer
    KnownFailure(
        NOT_SENT,
        r"<!doctype html|<html|\b(Entry|oid): (command )?not found|: \{.*\}: not found",
    ),
    # measured: HTML in dash; a file truncated in its first kilobytes
    KnownFailure(NOT_SENT, "syntax error", status=(2,)),
    # -- the processor: #327, #488, #11
    KnownFailure(
        ROSETTA,
        r"cpu feature \S+ was required|illegal (hardware )?instruction",
        platform="darwin",
    ),
    # #11
    KnownFailure(ROSETTA, status=_signal(4), platform="darwin"),
    # check_cpu.c:37; ggml-org/llama.cpp#6723
    KnownFailure(
        NO_AVX, r"cpu feature \S+ was required|illegal (hardware )?instruction"
    ),
    # ggml-org/llama.cpp#6723; Windows: dougeeai/llama-cpp-python-wheels#10,
    # nomic-ai/gpt4all#316
    KnownFailure(NO_AVX, status=(*_signal(4), 0xC000001D)),
    # -- Windows does not start it: #10, #31, #63, #490, #718;
    # pyinstaller/pyinstaller#8193
    KnownFailure(SCANNER, r"\[WinError 22[56]\]|contains a virus"),
    # #66, #98, #139, #257, #793; #296 (16-bit: truncated); python/cpython#88313 (193)
    KnownFailure(
        "Windows cannot start a program over 4 GiB, or a truncated one: use --engine "
        "llamafile, which reads it with -m; if it is smaller, delete it and run the "
        "command again",
        r"\[WinError 193\]|not a valid (Win32 )?application|can't run on your PC"
        r"|16-bit application",
    ),
    # fatedier/frp#3866, flet-dev/flet#1437
    KnownFailure(
        "llamafile needs 64-bit Windows on x86-64: use --engine embedded with a .gguf",
        r"\[WinError 216\]",
    ),
    # BlueAmulet/GreenLuma-2025-Manager#11, Tribler/tribler#7574
    KnownFailure(
        "clear 'Run this program as an administrator' in the file's properties",
        r"\[WinError 740\]",
    ),
    # canton7/SyncTrayzor#12; ROCm/TheRock#3149
    KnownFailure(
        "a policy of this computer forbids it (AppLocker, Smart App Control): "
        "ask its administrator",
        r"\[WinError (1260|4551)\]|blocked by group policy|Application Control policy",
    ),
    # cmderdev/cmder#3000, r-lib/processx#393
    KnownFailure(SCANNER, r"\[WinError (5|32)\]"),
    # utilityai/llama-cpp-rs#583, ollama/ollama#6804
    KnownFailure(
        "a DLL is missing: install https://aka.ms/vs/17/release/vc_redist.x64.exe, "
        "or try --gpu disable",
        status=(0xC0000135,),
    ),
    # tasks/engine/embedded.py: xllamacpp from PyPI has no GPU on Linux
    KnownFailure(
        "this build of xllamacpp does not use that GPU: remove --gpu to use the CPU, "
        "or use --engine llamafile",
        "available in this build",
    ),
    # -- the GPU: cuda.c:966, #273, #384, #961, #1048; #200 (0.5, 0.6)
    KnownFailure(
        "the GPU or its driver is missing: use --gpu auto, or --gpu disable",
        r"--gpu \S+ was explicitly|was passed but no gpus were found$",
    ),
    # ollama/ollama#7666, abetlen/llama-cpp-python#1436
    KnownFailure(
        "the NVIDIA driver is older than the engine's CUDA: update it, "
        "or use --gpu disable",
        "driver version is insufficient",
    ),
    # ggml-org/llama.cpp#4215
    KnownFailure(
        "the engine does not support this GPU: use --gpu disable",
        "no kernel image is available",
    ),
    # ggml-org/llama.cpp#20431, #16725; ollama/ollama#9782; ggml-org/llama.cpp#5441
    # (Vulkan), #7366
    KnownFailure(
        "the GPU's memory is short: use fewer layers (--ngl), a smaller --ctx-size, "
        "or --gpu disable",
        r"cudaMalloc failed|CUDA error: out of memory|OutOfDeviceMemory"
        r"|allocate (CUDA|ROCm|Vulkan|Metal)\d* buffer",
    ),
    # -- the model: llamafile.c:181
    KnownFailure(
        "the file contains several models, and -m takes a file with one",
        r"multiple \.gguf files",
    ),
    KnownFailure(
        "the model is newer than the engine: pip install -U '.[embedded]'",
        _TOO_NEW,
        engine="tasks.engine.embedded",
    ),
    # measured with build 11669
    KnownFailure(
        "the model is newer than the engine: update llama-server (brew upgrade "
        "llama.cpp, apt upgrade llama.cpp, winget upgrade llama.cpp; if models.yaml "
        "pins it: version: of engines.llama-server)",
        _TOO_NEW,
        engine="llama-server",
    ),
    # llama.cpp:4447, #711, #730; llama.cpp:5447
    KnownFailure(
        "the model is newer than the engine: pin a newer engine in models.yaml, "
        "or try --engine embedded",
        _TOO_NEW,
    ),
    # ggml-org/llama.cpp#6774, moly-ai/moly-local#13; ggml.c:19761; llamafile.c:130 (the
    # end is missing)
    KnownFailure(
        BROKEN, "not within the file bounds|invalid magic|not a pkzip archive"
    ),
    # -- memory: llama.cpp:2885, ggml-org/llama.cpp#8101; common.cpp:2097;
    # llama.cpp:17864
    KnownFailure(
        "the context does not fit into memory: use a smaller --ctx-size",
        "buffer for kv cache|failed to create context|failed to allocate compute",
    ),
    # ggml.c:169, ggml-org/llama.cpp#639 (8), Comfy-Org/ComfyUI#7069 (1455)
    KnownFailure(
        MEMORY,
        r"out of memory|failed to allocate|bad_alloc|cannot allocate|\[WinError (8"
        r"|1455)\]",
    ),
    # -- other messages: antimatter15/alpaca.cpp#146, #942, #948
    KnownFailure(
        "the system's C or C++ library is too old: use a newer system, "
        "or --gpu disable",
        r"GLIBC(XX)?_[\d.]+'? not found",
    ),
    # minimal images lack it, and the wheels of xllamacpp do not contain it
    KnownFailure(
        "apt install libgomp1, dnf install libgomp, or on a Mac brew install libomp",
        r"libgomp\.so\S*: cannot open|Library not loaded: \S*libg?omp",
    ),
    # tasks/engine/embedded.py
    KnownFailure(
        "pip install --upgrade '.[embedded]'",
        "optional package|xllamacpp does not load|is not the one",
    ),
    # llama.cpp:17465, server.cpp:463, #494
    KnownFailure(
        "this engine does not read the file: check it with `doit verify`, or try "
        "--engine llamafile, which may be newer",
        "failed to load model|error loading model|unable to load model",
    ),
    # helixarch/debtap#64; server.cpp:3263
    KnownFailure(SANDBOX, r"bad system call|^pledge: "),
    # #107, #374, #988; abetlen/llama-cpp-python#1436
    KnownFailure(CRASHED, "uncaught SIG|GGML_ASSERT"),
    # measured: dash, bash
    KnownFailure(
        "the program does not exist any more: run the command again",
        r"\[WinError [23]\]|\[Errno 2\]|sh: .*(cannot open .*No such file"
        r"|No such file or directory$)",
    ),
    # -- the exit status alone: #14, and 'Gotchas' of llamafile's README (CrowdStrike)
    KnownFailure(
        KILLED + "; or macOS or a virus scanner blocked it",
        status=_signal(9),
        platform="darwin",
    ),
    # vectorch-ai/ScaleLLM#38
    KnownFailure(KILLED, status=_signal(9)),
    # SIGBUS, by signal.h of macOS
    KnownFailure(BROKEN, status=_signal(10), platform="darwin"),
    # measured: a truncated file whose loader was unpacked before
    KnownFailure(BROKEN, status=_signal(7)),
    # helixarch/debtap#64 (159)
    KnownFailure(SANDBOX, status=_signal(31)),
    # #663; ggml.c's abort; Windows: #98, ollama/ollama#17375, janhq/jan#6091,
    # microsoft/winget-pkgs#287472
    KnownFailure(
        CRASHED,
        status=(
            *_signal(11),
            *_signal(6),
            *_signal(8),
            *_signal(5),
            0xC0000005,
            0xC0000409,
        ),
    ),
    # measured: the loader in a TMPDIR that is noexec
    KnownFailure(
        "permission denied: is the cache or TMPDIR on a noexec file system?",
        status=(126,),
    ),
)
