"""What an engine's end means: each known failure by the words and the status with which it really comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.explain import TABLE, cpu_fallback, explained, offloaded, remedy

# (name of the row, exit status, output, platform)
CASES = [
    ("gatekeeper", 127, "ape error: ./m.llamafile: prog mmap failed w/ errno 1", "darwin"),
    ("noexec", 127, "ape error: /mnt/m.llamafile: prog mmap failed w/ errno 1", "linux"),
    ("no compiler", 1, "please run: xcode-select --install", "darwin"),
    ("other processor", 127, "m.llamafile: this ape program lacks riscv64 support", "linux"),
    ("no tools", 127, "/work/m.llamafile: 2: gzip: not found", "linux"),
    ("no tools", 127, "m.llamafile: line 9: uname: command not found", "linux"),
    ("binfmt", 1, "run-detectors: unable to find an interpreter for ./m.llamafile", "linux"),
    ("binfmt", 1, "Cannot open assembly './m': File does not contain a valid CIL image.", "linux"),
    ("binfmt", 1, "wine: could not load kernel32.dll, status c0000135", "linux"),
    ("wsl", 1, "error: APE is running on WIN32 inside WSL. You need to run: sudo sh -c ...", "linux"),
    ("wsl argument", 126, "/bin/sh: ./m.llamafile: Invalid argument", "linux"),
    ("unwritable", 1, "mkdir: cannot create directory '/nonexistent': Permission denied", "linux"),
    ("unwritable", 1, "dd: failed to open '/root/.ape-1.10': Read-only file system", "linux"),
    ("truncated", 1, "gzip: stdin: unexpected end of file", "linux"),
    ("no program", 2, "m.llamafile: 1: Syntax error: newline unexpected", "linux"),
    ("no program", 2, "m.llamafile: line 1: syntax error near unexpected token `newline'", "darwin"),
    ("virus scanner", None, "[WinError 225] Der Vorgang konnte nicht abgeschlossen werden", "win32"),
    ("denied", None, "[WinError 5] Access is denied", "win32"),
    ("not an exe", None, "[WinError 193] %1 is not a valid Win32 application", "win32"),
    ("not an exe", None, "[WinError 216] This version of %1 is not compatible", "win32"),
    ("elevation", None, "[WinError 740] The requested operation requires elevation", "win32"),
    ("no dll", 0xC0000135, "", "win32"),
    ("no avx on windows", 0xC000001D, "", "win32"),
    ("crash on windows", 0xC0000005, "loading model", "win32"),
    ("unknown option", 1, "error: unknown argument: --nobrowser", "linux"),
    ("unknown option", 1, "error: invalid argument: --nobrowser", "linux"),
    ("port", 1, "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", "linux"),
    ("avx", 1, "this llamafile requires AVX", "linux"),
    ("several models", 1, "llava.llamafile: error: multiple .gguf files found", "linux"),
    ("gpu memory", 1, "CUDA error: out of memory", "linux"),
    ("gpu memory", 1, "ggml_backend_cuda_buffer: cudaMalloc failed: out of memory", "linux"),
    ("no gpu", 1, "support for --gpu nvidia was explicitly requested, but it wasn't available", "linux"),
    ("driver", 1, "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", "linux"),
    ("memory", 1, "terminate called after throwing an instance of 'std::bad_alloc'", "linux"),
    ("old system", 1, "/lib/libc.so.6: version `GLIBC_2.38' not found (required by llama)", "linux"),
    ("no package", 1, "error: the embedded engine needs the optional package xllamacpp", "linux"),
    ("new model", 1, "error loading model: unknown model architecture: 'qwen9'", "linux"),
    ("no model", 1, "error: missing required -m MODEL.gguf", "linux"),
    ("unreadable model", 1, "llama_load_model_from_file: failed to load model", "linux"),
    ("rosetta", -4, "", "darwin"),
    ("illegal instruction", -4, "", "linux"),
    ("illegal instruction", 132, "Illegal instruction", "linux"),
    ("killed", -9, "loading", "linux"),
    ("killed", 137, "", "linux"),
    ("crash", -11, "", "darwin"),
    ("bus error", -7, "", "linux"),
    ("sandbox", -31, "", "linux"),
    ("not executable", 126, "/bin/sh: 1: ./m.llamafile: Permission denied", "linux"),
]


@pytest.mark.parametrize(("name", "status", "output", "platform"), CASES)
def test_each_failure_is_known(name: str, status: int | None, output: str, platform: str) -> None:
    """Issue 4.7, R28: the words and the status lead to their row, and to no other that stands before it."""
    found = explained(status, output, platform)
    assert found
    assert found.name == name
    assert remedy(status, output, platform) == found.remedy


def test_every_row_has_a_case() -> None:
    """A row that nothing reaches explains nothing."""
    assert [known.name for known in TABLE if known.name not in {case[0] for case in CASES}] == []


@pytest.mark.parametrize(
    ("status", "output"),
    [(1, ""), (0, ""), (None, ""), (1, "assertion failed: x > 0"), (-6, "abort"), (255, "?")],
)
def test_what_nobody_knows_is_not_explained(status: int | None, output: str) -> None:
    """R28: better no remedy than a wrong one."""
    assert remedy(status, output, "linux") == ""


@given(st.none() | st.integers(-64, 2**32 - 1), st.text(), st.sampled_from(["linux", "darwin", "win32"]))
def test_any_end_is_looked_up(status: int | None, output: str, platform: str) -> None:
    """R28: whatever a program prints, the table has an answer or none."""
    assert isinstance(remedy(status, output, platform), str)


@pytest.mark.parametrize(
    "line",
    [
        "warning: no usable GPU found, --gpu-layers option will be ignored",
        "warning: not compiled with GPU offload support, --gpu-layers option will be ignored",
        "llm_load_tensors: offloaded 0/33 layers to GPU",
        "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
        "note: falling back to CPU",
    ],
)
def test_the_cpu_stands_in(line: str) -> None:
    """Issue 4.8: llama.cpp's and llamafile's own words."""
    assert cpu_fallback(f"loading\n  {line}\nserver is listening") == line


def test_layers_on_the_gpu_are_what_counts() -> None:
    """Issue 4.8: one kind of GPU may be missing where another one is used."""
    text = "ggml_cuda_init: failed to initialize CUDA\nload_tensors: offloaded 33/33 layers to GPU"
    assert cpu_fallback(text) == ""
    assert offloaded(text)
    assert cpu_fallback("server is listening") == ""
    assert not offloaded("offloaded 0/33 layers to GPU")
