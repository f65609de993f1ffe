"""Build an engine's environment: a list of variables passes, nothing else. Pure.

An engine is a program of a third party, and every variable may change what it does:
llama.cpp's server reads `LLAMA_ARG_*` for nearly every option. docs/environment.md
lists what passes.
"""

from __future__ import annotations

from collections.abc import Mapping

# upper-case names
_PASSED = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "TZ"),
        *("LANG", "LANGUAGE"),
        # Windows does not start a program without some of these
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE"),
        *("LOCALAPPDATA", "USERNAME", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE"),
        # by these, GitHub's runner and Jenkins find the processes that a job leaves
        *("RUNNER_TRACKING_ID", "JENKINS_NODE_COOKIE"),
        # where the libraries of GPU runtimes are
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    )
)
_PREFIXES = (
    "LC_",
    # GPU runtimes: CUDA_VISIBLE_DEVICES, GGML_VK_VISIBLE_DEVICES, VK_ICD_FILENAMES
    *("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "ROCM_", "HSA_", "VK_"),
    # not every GGML_*: GGML_BACKEND_PATH and GGML_METAL_PATH_RESOURCES load code
    *("GGML_CUDA_", "GGML_OPENCL_", "GGML_SYCL_", "GGML_VK_"),
)
# what a credential is named, also one that `auth:` of models.yaml names: NVIDIA_API_KEY
_SECRETS = ("KEY", "TOKEN", "PASSWORD", "SECRET", "CREDENTIALS")
# searched before the folders that a program names; the systems that have them use `:`
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# of the recipe itself, for its supervisor
_RECIPE = ("LLAMAFILE_", "XDG_")
# llama.cpp reads it before the command line, and has no option against that
# Source: common/arg.cpp of llama.cpp, PR 26118
SYSTEM_CONFIG = "/etc/llama.cpp/config.ini"


def is_passed(name: str) -> bool:
    """Return whether a variable of the user reaches an engine."""
    # Windows treats names in lower and upper case alike
    upper = name.upper()
    if upper.endswith(_SECRETS):
        return False
    return upper in _PASSED or upper.startswith(_PREFIXES)


def engine_environment(
    env: Mapping[str, str], more: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment for an engine and its `--version`.

    Args:
        env: the user's.
        more: variables that the recipe or models.yaml sets; they are not filtered.
    """
    passed = {name: value for name, value in env.items() if is_passed(name)}
    return {**passed, **more}


def own_libraries_first(env: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the environment in which a program finds its own libraries first.

    These variables come before the RUNPATH of a program: a libllama.so in a folder of
    the user's would replace the verified one.

    Args:
        folder: of the program's libraries; empty if it has none of its own.
    """
    found = dict(env)
    for name in _LIBRARY_PATHS:
        if folder and found.get(name):
            found[name] = f"{folder}:{found[name]}"
    return found


def supervisor_environment(
    env: Mapping[str, str], more: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment for the supervisor of an engine.

    Args:
        env: the user's.
        more: variables that the recipe sets.
    """
    own = {
        name: value
        for name, value in env.items()
        if name.startswith(_RECIPE) and not name.endswith(_SECRETS)
    }
    return {**own, **engine_environment(env, more)}


def no_user_config(platform: str) -> dict[str, str]:
    """Return the variables that keep the user's configuration from an engine.

    llama.cpp reads `llama.cpp/config.ini` in the user's configuration directory. No
    file can exist below a device.
    """
    if platform == "win32":
        return {"APPDATA": "NUL"}
    return {"XDG_CONFIG_HOME": "/dev/null"}


def system_config(env: Mapping[str, str], platform: str) -> str:
    """Return the path of llama.cpp's configuration for all users of a machine."""
    if platform == "win32":
        return f"{env.get('PROGRAMDATA', 'C:/ProgramData')}/llama.cpp/config.ini"
    return SYSTEM_CONFIG
