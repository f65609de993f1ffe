"""An engine's environment is a list of variables: nothing else of the user reaches it."""

from __future__ import annotations

import pytest
from tasks.engine.environment import (
    engine_environment,
    is_passed,
    no_user_config,
    own_libraries_first,
    supervisor_environment,
    system_config,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "Path", "SystemRoot"),
        *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"),
        *("HSA_OVERRIDE_GFX_VERSION", "NVIDIA_VISIBLE_DEVICES", "VK_ICD_FILENAMES", "LD_LIBRARY_PATH"),
        *("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "GGML_SYCL_DEBUG"),
        *("USERPROFILE", "LOCALAPPDATA", "DYLD_LIBRARY_PATH", "RUNNER_TRACKING_ID"),
    ],
)
def test_what_passes(name: str) -> None:
    """Issue 15.1: what a program needs to start, the locale, and the GPU runtimes' own."""
    assert is_passed(name)
    assert engine_environment({name: "x"}, {}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("LLAMA_ARG_N_PARALLEL", "LLAMA_ARG_CTX_SIZE", "LLAMA_API_KEY", "LLAMA_CACHE", "LLAMA_LOG_FILE"),
        *("HF_TOKEN", "HF_HOME", "HTTP_PROXY", "https_proxy", "NO_PROXY", "AWS_SECRET_ACCESS_KEY"),
        *("GITHUB_TOKEN", "OPENAI_API_KEY", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "APPDATA", "PROGRAMDATA"),
        *("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "OMP_NUM_THREADS"),
        *("LLAMAFILE_CACHE", "CI", "PWD", "MY_VARIABLE", "TOKENIZERS_PARALLELISM", "MTMD_BACKEND_DEVICE"),
        *("NVIDIA_API_KEY", "CUDA_REGISTRY_TOKEN", "ROCM_PASSWORD", "LC_SECRET"),
        *("GGML_BACKEND_PATH", "GGML_METAL_PATH_RESOURCES", "GGML_CPU_TILED_MM"),
    ],
)
def test_what_does_not_pass(name: str) -> None:
    """Issue 15.1: whatever else there is, by any name."""
    assert not is_passed(name)
    assert engine_environment({name: "x", "PATH": "/bin"}, {}) == {"PATH": "/bin"}


def test_what_is_given() -> None:
    """Variables of models.yaml and of the recipe win over those of the user."""
    assert engine_environment({"LANG": "de", "A": "1"}, {"LANG": "C", "B": "2"}) == {"LANG": "C", "B": "2"}


@pytest.mark.parametrize(
    ("given", "folder", "name", "value"),
    [
        ("LD_LIBRARY_PATH", "/c/bin", "LD_LIBRARY_PATH", "/c/bin:/own"),
        ("DYLD_LIBRARY_PATH", "/c/bin", "DYLD_LIBRARY_PATH", "/c/bin:/own"),
        ("LD_LIBRARY_PATH", "", "LD_LIBRARY_PATH", "/own"),
        ("DYLD_FALLBACK_LIBRARY_PATH", "/c/bin", "DYLD_FALLBACK_LIBRARY_PATH", "/own"),
        ("PATH", "/c/bin", "LD_LIBRARY_PATH", None),
    ],
)
def test_a_release_uses_its_own_libraries(given: str, folder: str, name: str, value: str | None) -> None:
    """A libllama.so of the user's does not replace the verified one; nothing is set that was not."""
    assert own_libraries_first({given: "/own"}, folder).get(name) == value


def test_the_supervisor_has_the_recipes_own_variables() -> None:
    """It writes the records, whose folder they name; it has no credential either."""
    env = {
        "LLAMAFILE_STATE": "/s",
        "XDG_STATE_HOME": "/x",
        "HF_TOKEN": "t",
        "LLAMA_API_KEY": "k",
        "HOME": "/h",
    }
    expected = {"LLAMAFILE_STATE": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h", "PYTHONPATH": "/r"}
    assert supervisor_environment(env, {"PYTHONPATH": "/r"}) == expected


@pytest.mark.parametrize(
    ("platform", "variables", "system"),
    [
        ("linux", {"XDG_CONFIG_HOME": "/dev/null"}, "/etc/llama.cpp/config.ini"),
        ("darwin", {"XDG_CONFIG_HOME": "/dev/null"}, "/etc/llama.cpp/config.ini"),
        ("win32", {"APPDATA": "NUL"}, "D:/Data/llama.cpp/config.ini"),
    ],
)
def test_the_configuration_of_llama_cpp(platform: str, variables: dict[str, str], system: str) -> None:
    """Issue 15.1: the user's is not found; the machine's can only be reported."""
    assert no_user_config(platform) == variables
    assert system_config({"PROGRAMDATA": "D:/Data"}, platform) == system
