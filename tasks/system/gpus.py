"""Whether this machine has a GPU that Vulkan can use; no library is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import glob

# of a driver that computes on the CPU; Source: Mesa, lavapipe
_SOFTWARE = "lvp_"
_DRIVERS = (
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
)
_DEVICES = "/dev/dri/renderD*"


def has_vulkan(
    platform: str,
    env: Mapping[str, str],
    drivers: tuple[str, ...] = _DRIVERS,
    devices: str = _DEVICES,
) -> bool:
    """Return whether there is a GPU and a driver for Vulkan.

    On Windows, the driver of every GPU of the last years installs the loader.

    Args:
        platform: as in sys.platform.
        drivers: folders of the loader's manifests, on Linux.
        devices: pattern of the paths of GPUs, on Linux.
    """
    if platform == "win32":
        root = env.get("SYSTEMROOT", "C:/Windows")
        return os.path.exists(f"{root}/System32/vulkan-1.dll")
    if not platform.startswith("linux") or not glob(devices):
        return False
    found = [path for folder in drivers for path in glob(f"{folder}/*.json")]
    return any(not os.path.basename(path).startswith(_SOFTWARE) for path in found)
