"""The platform and the directories that the recipe works with. Pure."""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Callable
from typing import Any, NamedTuple


def _no_bytes(_: str) -> bytes:
    return b""


def _no_package(_: str) -> bool:
    return False


def _no_program(_: str) -> str:
    return ""


def _no_memory() -> int:
    return 0


def _no_gpu() -> bool:
    return False


class Environment(NamedTuple):
    """Platform and directories."""

    platform: str  # as in sys.platform
    cache: str  # absolute path of the cache
    root: str  # absolute directory of models.yaml
    cwd: str  # absolute directory in which the user typed the command
    # path → the first bytes of the file, empty if there is none
    first_bytes: Callable[[str], bytes] = _no_bytes
    # name → whether this Python package is installed
    has_package: Callable[[str], bool] = _no_package
    # name → absolute path of this program on PATH, empty if there is none
    find_program: Callable[[str], str] = _no_program
    memory: Callable[[], int] = _no_memory  # → bytes that this process may use
    gpu_memory: Callable[[], int] = _no_memory  # → bytes; 0: not known
    must_name_variant: bool = False  # the machine must not decide (CI)
    machine: str = "x86_64"  # as platform.machine() returns it
    has_vulkan: Callable[[], bool] = _no_gpu

    def absolute(self, path: str, base: str) -> str:
        """Return `path` relative to `base` as a normalized path."""
        flavour: Any = posixpath
        if self.platform == "win32":
            flavour = ntpath
        return str(flavour.normpath(flavour.join(base, path)))
