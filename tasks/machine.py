"""Say what this machine is, as the catalogue asks it."""

from __future__ import annotations

import functools
import os
import platform
import sys

from tasks.catalogue.environment import Environment
from tasks.network import huggingface
from tasks.system import files
from tasks.system.packages import find_program, has_package


def environment(cache: str, base: str, cwd: str) -> Environment:
    """Return the environment of a catalogue.

    Args:
        base: the directory of models.yaml.
    """
    return Environment(
        sys.platform,
        cache,
        base,
        cwd,
        files.first_bytes,
        has_package,
        find_program,
        functools.cache(_memory),  # which the catalogue asks for each model
        functools.cache(_gpu_memory),
        huggingface.env_flag(os.environ.get("CI")),
        platform.machine(),
        _has_vulkan,
    )


def _memory() -> int:
    from tasks.system import memory

    return memory.total()


def _gpu_memory() -> int:
    from tasks.system import memory

    return memory.gpu_total()


def _has_vulkan() -> bool:
    from tasks.system import gpus

    return gpus.has_vulkan(sys.platform, os.environ)
