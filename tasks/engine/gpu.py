"""Read from an engine's output whether it uses a GPU. Pure.

The comments name their sources as in known_failures.py.
"""

from __future__ import annotations

import re

# the engine reports that it uses the CPU. gpu.c:71 and #263 (0.6 to 0.9);
# server.cpp:2424 of 0.8.6; common.cpp:814, ggml-org/llama.cpp#9343 (upstream until
# 2024); #965 (0.10.2), ggml-org/llama.cpp#23943 (upstream since)
_FELL_BACK = (
    "falling back to CPU inference|no usable GPU found"
    "|not compiled with GPU offload support"
)
# the number of layers on the GPU, where printed, decides. llama.cpp:7854; #273
_OFFLOADED = r"offloaded (\d+)/\d+ layers to GPU"
# one GPU backend failed, another may work: ggml-cuda.cu:14374,
# abetlen/llama-cpp-python#1890; cuda.c:749, #263; ggml-org/llama.cpp#6184; #988, #961
# (0.10); ollama/ollama#16985
_ONE_FAILED = (
    r"failed to initialize (CUDA|ROCm)|No GPU devices found|GPU support not possible"
    r"|no CUDA devices found|no devices detected|no pre-built GPU library"
    r"|crashed during device probe|load_backend: failed to load"
)
# a GPU backend works. janhq/jan#6091, #374, metal.c:273, cuda.c:746, #81
_ONE_WORKED = (
    r"found [1-9]\d* (CUDA|ROCm|Vulkan) devices|using device (?!CPU)\w+ \("
    r"|GPU support (successfully )?loaded|ggml_metal_init: (found device|GPU name)"
)


def cpu_fallback(output: str) -> str:
    """Return the line that reports the use of the CPU, or an empty string.

    Args:
        output: all output of an engine that was asked to use a GPU. Its last lines
            alone may lack the decisive one.
    """
    fell_back = _lines_with(_FELL_BACK, output)
    if fell_back:
        return fell_back[0]
    failed = _lines_with(_ONE_FAILED, output)
    counted = _lines_with(_OFFLOADED, output)
    if counted:
        if any(_offloaded_layers(output)):
            return ""
        # the reason of a failure explains more than the count
        return failed[0] if failed else counted[0]
    if failed and not re.search(_ONE_WORKED, output, re.IGNORECASE):
        return failed[0]
    return ""


def _lines_with(pattern: str, output: str) -> list[str]:
    matches = re.compile(pattern, re.IGNORECASE).search
    return [line.strip() for line in output.splitlines() if matches(line)]


def _offloaded_layers(output: str) -> list[int]:
    return [int(count) for count in re.findall(_OFFLOADED, output, re.IGNORECASE)]


def reports_gpu(output: str) -> bool:
    """Return whether an engine reports that it uses a GPU."""
    if any(_offloaded_layers(output)):
        return True
    return re.search(_ONE_WORKED, output, re.IGNORECASE) is not None
