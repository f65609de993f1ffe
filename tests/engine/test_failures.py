"""Failures of real programs with their fixes; outputs of engines that use the CPU."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tasks.engine.failures import match_failure, remedy
from tasks.engine.gpu import cpu_fallback, reports_gpu
from tasks.engine.known_failures import KNOWN_FAILURES, KnownFailure
from tasks.system.exit_status import ProcessExit

APE = "/x/m.llamafile"
LOADER = "/tmp/.ape-1.10"
CUDA_FULL = "allocating 14136.04 MiB on device 0: cudaMalloc failed: out of memory"
NO_AVX = "fatal error: the cpu feature AVX was required at build time but isn't available on this system"
ARCHITECTURE = "error loading model: error loading model architecture: unknown model architecture: 'gemma3'"
CUT = "tensor 'blk.3.attn_qkv.weight' data is not within the file bounds, model is corrupted or incomplete"
VIRUS = "Operation did not complete successfully because the file contains a virus or potentially unwanted"
KV_FULL = "llama_kv_cache_init: failed to allocate buffer for kv cache"
CPU_FULL = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 137438953504"
UNLOADED = "llama_model_load_from_file_impl: failed to load model"
LIBGOMP = "libgomp.so.1"
GLIBCXX = (
    "/lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by ggml-cuda.so)"
)
WIN = "win32"
MAC = "darwin"


def row(text: str, words: str, status: int | None = 1, platform: str = "linux", *, id: str) -> Any:
    """Return output, a part of the remedy, exit status and platform."""
    return pytest.param(text, words, status, platform, id=id)


# the words are empty where nothing is known
ENDINGS = [
    # the command line
    row("error: unknown argument: --nobrowser", "no such option", id="955: a flag that 0.10 dropped"),
    row("llamafile: --port unknown argument", "no such option", id="783: a flag that --v2 lacks"),
    row("error: invalid argument: --ngl", "no such option", id="llama.cpp 23739: upstream's words"),
    row(
        "0.00.065 E srv  llama_server: failed to initialize router models: "
        "option 'nonsense' not recognized in preset 'a'",
        "no such option",
        id="a section of an endpoint",
    ),
    row("error: invalid parameter for argument: --grammar", "other values", id="673: a value"),
    row(
        'error while handling argument "--spec-type": unknown speculative decoding type without draft model',
        "other values",
        id="club-3090 186: a value, upstream",
    ),
    row("error: invalid --gpu flag value: cuda", "other values", id="server.cpp:2629: --gpu"),
    row("error: missing required -m MODEL.gguf", "engine without a model", id="no model, 0.10"),
    row(
        "error loading model: failed to open models/7B/ggml-model-f16.gguf: No such file or directory",
        "engine without a model",
        id="no model, before 0.10",
    ),
    row(
        "mtmd_init_from_file: error: Failed to load CLIP model from /c/eyes.gguf",
        "not a vision projector",
        id="a GGUF that is no projector",
    ),
    row(
        "0.00.101.815 E cmn  common_init_: failed to load lora adapter '/c/demo.gguf'",
        "`lora:` is not a LoRA adapter",
        id="a GGUF that is no adapter",
    ),
    row(
        "0.02.636.456 E srv    load_model: failed to load draft model, '/c/half.gguf'",
        "`draft:` is not a model",
        id="a draft that is truncated",
    ),
    row("x: error: no .gguf file found in zip archive", "engine without a model", id="no model in the zip"),
    row("couldn't bind to server socket: hostname=127.0.0.1 port=8080", "--port 0", id="81: port, to 0.9"),
    row(
        "start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 80", "--port 0", id="port, 0.10"
    ),
    row("127.0.0.1:8080: Address already in use", "--port 0", id="716: port, --v2"),
    # an APE's start
    row(f"ape error: {APE}: prog mmap failed w/ errno 1", "Privacy & Security", 127, MAC, id="106, 108"),
    row(f"/bin/sh: {APE}: Operation not permitted", "com.apple.quarantine", 126, MAC, id="macOS forbids it"),
    row(f"ape error: {APE}: prog mmap failed w/ errno 1", "noexec", 127, id="run: a noexec cache, dash"),
    row(f"ape error: {APE}: prog mmap failed w/ errno 12", "39 bits", 127, id="74, 152, 215: few addresses"),
    row(
        "ape error: : not found (maybe chmod +x or ./ needed)",
        "`doit chmod`",
        127,
        id="run: a noexec cache, bash",
    ),
    row(
        f"{APE}: please run: xcode-select --install", "xcode-select --install", 1, MAC, id="a Mac without cc"
    ),
    row(f"{APE}: please run: xcode-select --install", "", id="which is for Macs"),
    row("gzip: stdin: unexpected end of file", "truncated", id="557, run: truncated"),
    row("gzip: stdin: unexpected end of file", "noexec", id="run: bash, noexec cache, first start"),
    row(f"ape error: {APE}: too small", "truncated", 127, id="loader.c: 1086"),
    row(f"{APE}: 61: gzip: not found", "install them", 127, id="run: no gzip, dash"),
    row(f"{APE}: line 61: gzip: command not found", "install them", 127, id="no gzip, bash"),
    row("gzip: stdout: No space left on device", "disk is full", id="run: TMPDIR is full"),
    row(
        f"{APE}: 61: cannot create {LOADER}.15078: Read-only file system",
        "TMPDIR=FOLDER",
        2,
        id="run: TMPDIR read-only, dash",
    ),
    row(f"{APE}: line 61: {LOADER}.1: Read-only file system", "HOME=FOLDER", id="the same, bash"),
    row(
        "mkdir: cannot create directory '/home/u/new': Read-only file system",
        "HOME=FOLDER",
        id="479, run: HOME read-only",
    ),
    row(
        "mkdir: cannot create directory '/dev/null': Not a directory", "TMPDIR=FOLDER", id="run: no directory"
    ),
    row(
        f"{APE}: 61: cannot create {LOADER}.15122: Permission denied",
        "TMPDIR=FOLDER",
        2,
        id="run: another user's TMPDIR, dash",
    ),
    row(f"{APE}: line 61: {LOADER}.19755: Permission denied", "TMPDIR=FOLDER", id="the same, bash"),
    row(f"{APE}: 64: exec: {LOADER}: Permission denied", "noexec", 126, id="run: TMPDIR noexec, dash"),
    row(
        f"{APE}: line 64: exec: {LOADER}: cannot execute: Permission denied",
        "noexec",
        126,
        id="run: TMPDIR noexec, bash",
    ),
    row(
        f"{APE}: 71: exec: {LOADER}: Exec format error",
        "another machine's CPU",
        126,
        id="run: a foreign loader",
    ),
    row("x: error while loading shared libraries: libvulkan.so.1: cannot open", "", 127, id="a library"),
    row(f"run-detectors: unable to find an interpreter for {APE}", "Gotchas", id="47, 130, 369, 513"),
    row(
        'err:module:import_dll Library API-MS-Win-Core-Synch-l1-2-0.dll (which is needed by L"Z:") not found',
        "binfmt_misc",
        id="201: Wine",
    ),
    row(
        '003c:fixme:service:scmdatabase_autostart_services service L"wineusb" failed to start: 1114',
        "Wine",
        id="22: Wine",
    ),
    row(
        f"Cannot open assembly '{APE}': File does not contain a valid CIL image.", "Mono", id="21, 373: Mono"
    ),
    row(f"-bash: {APE}: cannot execute: required file not found", "binfmt_misc", 127, id="500"),
    row(
        "error: APE is running on WIN32 inside WSL. You need to run: sudo sh -c 'echo -1 > "
        "/proc/sys/fs/binfmt_misc/WSLInterop'",
        "WSLInterop-late",
        77,
        id="100, 275, 579: WSL runs it as Windows",
    ),
    row("-bash: ./rocket-3b.Q5_K_M.llamafile.exe: Invalid argument", "WSLInterop", 126, id="356: WSL"),
    row("Attempto Parsing Engine for ACE 6.7, version 6.7.180715", "named ape", id="587: another ape"),
    row(
        "usage: ape [-h] f\nape: error: unrecognized arguments: --server", "named ape", 2, id="run: argparse"
    ),
    row("ape: unrecognized option '--server'", "named ape", 2, id="run: getopt"),
    row(f"{APE}: this ape program lacks riscv64 support", "x86-64 and arm64", 127, id="run: riscv64"),
    row("/x: 2: Syntax error: newline unexpected", "page", 2, id="run: HTML in dash"),
    row(
        "/x: line 1: syntax error near unexpected token `newline'\n/x: line 1: `<!doctype html>'",
        "page",
        2,
        id="run: HTML in bash",
    ),
    row("/x: 17: Syntax error: Unterminated quoted string", "delete it", 2, id="run: cut off at 1000 bytes"),
    row("/x: 1: Entry: not found", "page", 127, id="run: the Hub's 404"),
    row("/x: 1: {error:Invalid username or password.}: not found", "page", 127, id="run: the Hub's 401"),
    row("/x: 1: version: not found\n/x: 2: oid: not found", "pointer", id="run: a Git LFS pointer"),
    # the processor
    row(f"{APE}: {NO_AVX}", "lacks AVX", id="check_cpu.c: no AVX"),
    row(f"{APE}: {NO_AVX}", "Rosetta", 1, MAC, id="327, 488: Rosetta"),
    row("", "Rosetta", -4, MAC, id="11: Rosetta, SIGILL"),
    row("Illegal instruction (core dumped)", "lacks AVX", 132, id="llama.cpp 6723: a shell's words"),
    row("", "lacks AVX", -4, id="SIGILL"),
    row("", "lacks AVX", 3221225501, WIN, id="gpt4all 316: 0xC000001D"),
    row("", "lacks AVX", -1073741795, WIN, id="pyllamacpp 22: the same, signed"),
    # Windows does not start it; the texts are in the user's language
    row(f"[WinError 225] {VIRUS}", "virus scanner", None, WIN, id="31: Defender"),
    row("[WinError 225] 无法成功完成操作", "by mistake", None, WIN, id="Defender, in Chinese"),
    row("[WinError 193] %1 is not a valid Win32 application", "4 GiB", None, WIN, id="98, 257: over 4 GiB"),
    row(
        "The specified executable is not a valid application for this OS platform.",
        "--engine llamafile",
        None,
        WIN,
        id="257: PowerShell's words",
    ),
    row("Unsupported 16-Bit Application", "truncated", None, WIN, id="296: truncated"),
    row(
        "[WinError 216] This version of %1 is not compatible with the version of Windows you're running.",
        "x86-64",
        None,
        WIN,
        id="frp 3866, flet 1437: another processor",
    ),
    row("[WinError 740] The requested operation requires elevation", "administrator", None, WIN, id="740"),
    row(
        "[WinError 4551] An Application Control policy has blocked this file", "policy", None, WIN, id="4551"
    ),
    row("[WinError 1260] This program is blocked by group policy.", "AppLocker", None, WIN, id="1260"),
    row("[WinError 5] Access is denied", "virus scanner", None, WIN, id="cmder 3000: a scanner"),
    row("", "vc_redist", 3221225781, WIN, id="ollama 6804: 0xC0000135"),
    # the GPU
    row(
        "error: support for --gpu nvidia was explicitly requested, but it wasn't available in this build of "
        "xllamacpp",
        "remove --gpu to use the CPU",
        id="embedded.py: a build without it",
    ),
    row(
        "fatal error: support for --gpu nvidia was explicitly requested, but it wasn't available",
        "--gpu auto",
        id="273: no such GPU",
    ),
    row(
        "fatal error: --gpu vulkan was explicitly requested but Vulkan is not usable on this system",
        "--gpu disable",
        id="1048: no Vulkan",
    ),
    row("fatal error: --n-gpu-layers 35 was passed but no gpus were found", "--gpu auto", id="200: to 0.6"),
    row(
        "failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version",
        "update it",
        id="ollama 7666: an old driver",
    ),
    row(
        "CUDA error: no kernel image is available for execution on the device", "--gpu disable", -6, id="4215"
    ),
    row(CUDA_FULL, "--ngl", id="llama.cpp 16725: CUDA"),
    row(f"{CUDA_FULL}\n{KV_FULL}", "GPU's memory", id="inference 2926: and the context"),
    row("ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", "GPU's memory", -6, id="Vulkan"),
    row("llama_model_load: error loading model: unable to allocate CUDA0 buffer", "--ngl", id="20431"),
    # the model
    row("x: error: multiple .gguf files found in zip archive", "several models", id="two models in one file"),
    row(f"{ARCHITECTURE}\n{UNLOADED}", "newer than the engine", id="711: a new architecture"),
    row(f"error loading model: {CUT}\n{UNLOADED}", "truncated", id="moly-local 13: truncated"),
    row("gguf_init_from_file: invalid magic characters '<!do'", "truncated", id="ggml.c: no GGUF"),
    row(f"{APE}: warning: not a pkzip archive", "truncated", id="llamafile.c: a truncated one as -m"),
    row(f"llama_model_load: error loading model: x\n{UNLOADED}", "`doit verify`", id="another reason"),
    row("unable to load model", "does not read", id="494: server.cpp"),
    # memory
    row(f"{CPU_FULL}\n{KV_FULL}", "context does not fit", id="llama.cpp 8101: the context"),
    row(
        "common_init_from_params: failed to create context with model 'm'", "--ctx-size", id="16725: context"
    ),
    row(CPU_FULL, "memory is short", id="memory"),
    row(
        "terminate called after throwing an instance of 'std::bad_alloc'", "memory is short", -6, id="in C++"
    ),
    row("ggml_metal: error: Out Of Memory", "memory is short", 1, MAC, id="any case"),
    row("mmap failed: Cannot allocate memory", "smaller --ctx-size", id="the system's words"),
    row("[WinError 1455] The paging file is too small", "memory is short", None, WIN, id="ComfyUI 7069"),
    # the rest of what is said
    row(GLIBCXX, "too old", id="942, 948, alpaca.cpp 146: an old system"),
    row(
        f"error: the package xllamacpp does not load here: {LIBGOMP}: cannot open shared object file",
        "apt install libgomp1",
        id="issue 17.9: a minimal image",
    ),
    row(
        "error: the package xllamacpp does not load here: Library not loaded: @rpath/libomp.dylib",
        "brew install libomp",
        1,
        MAC,
        id="a Mac without OpenMP",
    ),
    row(
        f"error: the package xllamacpp does not load here: {GLIBCXX}",
        "too old",
        id="an old system, and the Python package",
    ),
    row(
        "error: the embedded engine needs the optional package xllamacpp: pip install '.[embedded]'",
        "pip install",
        id="the package is not installed",
    ),
    row(
        "error: xllamacpp 2025.1 is not the one that is needed (x): pip install '.[embedded]'",
        "--upgrade",
        id="another package",
    ),
    row("Bad system call", "--unsecure", 159, id="debtap 64: seccomp"),
    row("pledge: Operation not permitted", "--unsecure", id="server.cpp:3263: pledge"),
    row("error: Uncaught SIGSEGV (SEGV_1722) at 0x7ffd45a1cf19", "--gpu disable", 11, WIN, id="374, 988"),
    row('GGML_ASSERT: ggml-cuda.cu:493: !"CUDA error"', "--gpu disable", -6, id="llama-cpp-python 1436"),
    row(
        f"sh: 0: cannot open {APE}: No such file",
        "does not exist any more",
        2,
        id="run: the file has gone, dash",
    ),
    row(
        f"/bin/sh: {APE}: No such file or directory",
        "does not exist any more",
        127,
        id="run: the file has gone, bash",
    ),
    row("[Errno 2] No such file or directory", "does not exist any more", None, id="no such program"),
    row(
        "[WinError 2] The system cannot find the file specified",
        "does not exist any more",
        None,
        WIN,
        id="WinError 2",
    ),
    # the end alone
    row("", "memory is short", -9, id="SIGKILL"),
    row("", "memory is short", 137, id="ScaleLLM 38: SIGKILL, said by a shell"),
    row("", "macOS or a virus scanner", -9, MAC, id="14: SIGKILL on macOS"),
    row("", "truncated", -7, id="run: SIGBUS, truncated"),
    row("Bus error", "truncated", 135, id="run: the same, said by a shell"),
    row("", "truncated", -10, MAC, id="SIGBUS of macOS"),
    row("", "seccomp", -31, id="SIGSYS"),
    row("", "--gpu disable", -11, id="663: SIGSEGV"),
    row("", "--gpu disable", -6, id="SIGABRT"),
    row("", "--gpu disable", 3221225477, WIN, id="98, ollama 17375: 0xC0000005"),
    row("sh: Permission denied", "noexec", 126, id="run: it may not be run"),
    # what it printed explains more than how it ended
    row("failed to load model", "does not read", -9, id="output before status"),
    row("couldn't bind", "--port 0", None, id="while it still runs"),
    # nothing is known
    row("", "", id="nothing printed"),
    row("something new", "", id="something new"),
    row("", "", 0, id="no error"),
    row("", "", -15, id="SIGTERM"),
    row("", "", None, id="still running"),
    row("", "", -10, id="SIGUSR1, which is no SIGBUS on Linux"),
    row("Syntax error", "", 1, id="a syntax error that is no shell's"),
    row("llama_model_loader: loaded meta data with 24 key-value pairs and 254 tensors", "", id="all is well"),
]


@pytest.mark.parametrize(("output", "words", "status", "platform"), ENDINGS)
def test_remedy(output: str, words: str, status: int | None, platform: str) -> None:
    """R28: the remedy of a known failure; an empty string for others."""
    found = remedy(ProcessExit(["x"], status, output), platform)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("tasks.engine.embedded", "pip install -U '.[embedded]'"),
        ("/c/engines/llamafile-0.10.5", "try --engine embedded"),
    ],
)
def test_a_model_that_is_newer_than_its_engine(engine: str, text: str) -> None:
    """F27: the embedded engine is a package, so pip updates it."""
    ending = ProcessExit(["/bin/x", "-m", engine], 1, f"{ARCHITECTURE}\n{UNLOADED}")
    assert text in remedy(ending, "linux")


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        ("[Errno 8] Exec format error", None, "correct archives: or path: of engines.llama-server"),
        ("[Errno 86] Bad CPU type in executable", None, "correct archives: or path:"),
        ("[WinError 216] This version of %1 is not compatible", None, "correct archives: or path:"),
        ("x: error while loading shared libraries: libvulkan.so.1", 127, "gpu: disable of engines"),
        (f"{ARCHITECTURE}\n{UNLOADED}", 1, "if models.yaml pins it: version: of engines.llama-server"),
    ],
)  # fmt: skip
def test_a_release_that_does_not_fit(output: str, status: int | None, words: str) -> None:
    """It is no APE: the fix is an edit of models.yaml."""
    ending = ProcessExit(["/c/a.tar.gz.unpacked/bin/llama-server", "--version"], status, output)
    assert words in remedy(ending, "linux")


@pytest.mark.parametrize("index", range(len(KNOWN_FAILURES)))
def test_every_row_of_the_table_is_hit(index: int) -> None:
    """An entry that no real output selects is dead, or hidden by an earlier one."""
    rows: list[Any] = [row.values for row in ENDINGS]
    command = [KNOWN_FAILURES[index].engine or "x"]
    hit = [
        match_failure(ProcessExit(command, status, output), platform) for output, _, status, platform in rows
    ]
    assert any(found is KNOWN_FAILURES[index] for found in hit), KNOWN_FAILURES[index]


@pytest.mark.parametrize("entry", KNOWN_FAILURES, ids=lambda entry: entry.pattern or str(entry.status))
def test_every_row_says_something_of_use(entry: KnownFailure) -> None:
    """A row fits by what was printed or by the status, never always; its remedy is one line, as it is."""
    assert entry.pattern or entry.status
    assert not re.search(entry.pattern, "") or entry.status
    assert 8 < len(entry.text) <= 230
    assert not re.search(r"[\n{}]", entry.text)


_REAL: list[Any] = [row.values for row in ENDINGS]
_OUTPUTS = st.lists(st.sampled_from([r[0] for r in _REAL]) | st.text(), max_size=4).map("\n".join)
_STATUSES = st.none() | st.sampled_from([r[2] for r in _REAL]) | st.integers(-(2**40), 2**40)


@given(_OUTPUTS, _STATUSES, st.sampled_from(["linux", "darwin", "win32", "freebsd14", ""]))
@example("\x00\udcff", -(2**31), "linux")
def test_the_first_that_fits_holds(output: str, status: int | None, platform: str) -> None:
    """The first matching entry is returned; no input raises an exception."""
    ending = ProcessExit(["x"], status, output)
    found = match_failure(ending, platform)
    assert remedy(ending, platform) == (found.text if found else "")
    before = KNOWN_FAILURES[: KNOWN_FAILURES.index(found)] if found else KNOWN_FAILURES
    assert not [entry for entry in before if fits(entry, output, status, platform)]
    assert found is None or fits(found, output, status, platform)


def fits(entry: KnownFailure, output: str, status: int | None, platform: str) -> bool:
    """Return whether an entry matches, by the comments on its fields."""
    said = re.search(entry.pattern, output, re.IGNORECASE | re.MULTILINE) is not None
    ended = not entry.status or (status is not None and {status, status % 2**32} & set(entry.status) != set())
    return said and ended and entry.platform in ("", platform) and not entry.engine


FALLBACK_09 = "warning: --n-gpu-layers 9999 was passed but no GPUs were found; falling back to CPU inference"
FALLBACK_010 = "warning: no usable GPU found, --gpu-layers option will be ignored"
OLD_SERVER = '"msg":"Not compiled with GPU offload support, --n-gpu-layers option will be ignored. "}'
NO_CUDA = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
VULKAN = "ggml_vulkan: Found 1 Vulkan devices:"
WORKED = "llm_load_tensors: offloaded 33/33 layers to GPU"
NOT_AT_ALL = "llm_load_tensors: offloaded 0/33 layers to GPU"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        pytest.param(FALLBACK_09, FALLBACK_09, id="263, gpu.c: 0.6 to 0.9"),
        pytest.param(FALLBACK_010, FALLBACK_010, id="965, llama.cpp 23943: 0.10, upstream, and embedded"),
        pytest.param(
            "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
            "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
            id="llama.cpp 9343: upstream until 2024",
        ),
        pytest.param(OLD_SERVER, OLD_SERVER, id="server.cpp:2424 of 0.8.6"),
        pytest.param(NOT_AT_ALL, NOT_AT_ALL, id="273: no layer"),
        pytest.param(
            f"found 1 CUDA devices:\n{NOT_AT_ALL}", NOT_AT_ALL, id="6787: a GPU, and no layer on it"
        ),
        pytest.param(f"{NO_CUDA}\n{NOT_AT_ALL}", NO_CUDA, id="the reason tells more than the count"),
        pytest.param(NO_CUDA, NO_CUDA, id="llama-cpp-python 1890: no CUDA"),
        pytest.param(
            "link_cuda_dso: GPU support linked\nlink_cuda_dso: GPU support not possible",
            "link_cuda_dso: GPU support not possible",
            id="263: 0.6",
        ),
        pytest.param("link_cuda_dso: No GPU devices found", "link_cuda_dso: No GPU devices found", id="0.9"),
        pytest.param(
            "  ggml_init_cublas: no CUDA devices found, CUDA will be disabled",
            "ggml_init_cublas: no CUDA devices found, CUDA will be disabled",
            id="llama.cpp 6184, without its margin",
        ),
        pytest.param(
            "cuda: no pre-built GPU library found\ncuda: to enable GPU support, build with:",
            "cuda: no pre-built GPU library found",
            id="961: 0.10, thin",
        ),
        pytest.param(
            "cuda: INFO: CUDA library loaded but no devices detected; trying next backend\n"
            "vulkan: INFO: Vulkan crashed during device probe; trying next backend",
            "cuda: INFO: CUDA library loaded but no devices detected; trying next backend",
            id="988: 0.10.3",
        ),
        pytest.param(
            "0.00.006.542 E load_backend: failed to load /x/libggml-cuda.so: libcuda.so.1: cannot open",
            "0.00.006.542 E load_backend: failed to load /x/libggml-cuda.so: libcuda.so.1: cannot open",
            id="ollama 16985: upstream's plugins",
        ),
        # it is used
        pytest.param(WORKED, "", id="all layers"),
        pytest.param("load_tensors: offloaded 20/33 layers to GPU", "", id="some layers, as --ngl asked"),
        pytest.param("load_tensors: offloaded 10/10 layers to GPU", "", id="10 is not 0"),
        pytest.param(f"{NO_CUDA}\n{VULKAN}\n{WORKED}", "", id="CUDA failed, Vulkan did not"),
        pytest.param(f"{NO_CUDA}\n{VULKAN}", "", id="the same, layers not counted"),
        pytest.param(
            f"{NO_CUDA}\nllama_model_load: using device Vulkan0 (AMD Radeon RX 6800 XT) - 16112 MiB free",
            "",
            id="jan 6091",
        ),
        pytest.param(
            f"{WORKED}\nload_tensors: offloaded 0/2 layers to GPU", "", id="a draft model on the CPU"
        ),
        pytest.param("Apple Metal GPU support successfully loaded", "", id="metal.c"),
        pytest.param("link_cuda_dso: GPU support loaded", "", id="678: cuda.c"),
        pytest.param(
            "flash attention is not supported by the current backend; falling back to CPU (performance will",
            "",
            id="one operation on the CPU",
        ),
        pytest.param("", "", id="nothing printed"),
        pytest.param("main: server is listening on http://127.0.0.1:8080", "", id="nothing said of it"),
    ],
)
def test_fell_back_to_the_cpu(output: str, line: str) -> None:
    """Issue 4.8: the line of the output that says so; nothing where the GPU is used, or nothing is said."""
    assert cpu_fallback(f"loading\n{output}\nready\n") == line


@given(st.lists(st.sampled_from([FALLBACK_09, NO_CUDA, VULKAN, WORKED, NOT_AT_ALL]) | st.text()))
def test_the_line_is_one_of_the_output(lines: list[str]) -> None:
    """No input raises an exception, and the result is a line of the output."""
    output = "\n".join(lines)
    line = cpu_fallback(output)
    assert not line or line in [text.strip() for text in output.splitlines()]


@pytest.mark.parametrize(
    ("output", "works"),
    [
        ("load_tensors: offloaded 33/33 layers to GPU", True),
        ("llm_load_tensors: offloaded 0/33 layers to GPU", False),
        ("ggml_cuda_init: found 1 CUDA devices:", True),
        ("server is listening", False),
    ],
)
def test_a_gpu_works_for_it(output: str, works: bool) -> None:
    """Issue 4.8: output that reports the use of a GPU ends the wait."""
    assert reports_gpu(output) is works
