"""Whether Vulkan has a GPU: by the driver's manifest and the device, without loading a library."""

from __future__ import annotations

from pathlib import Path

import pytest
from tasks.system.gpus import has_vulkan

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("platform", "files", "found"),
    [
        ("linux", ("icd.d/radeon_icd.x86_64.json", "dri/renderD128"), True),
        ("linux", ("icd.d/radeon_icd.x86_64.json",), False),
        ("linux", ("icd.d/lvp_icd.x86_64.json", "dri/renderD128"), False),
        ("linux", ("dri/renderD128",), False),
        ("darwin", ("icd.d/moltenvk.json", "dri/renderD128"), False),
        ("win32", ("System32/vulkan-1.dll",), True),
        ("win32", ("icd.d/radeon_icd.json",), False),
    ],
)
def test_has_vulkan(tmp_path: Path, platform: str, files: tuple[str, ...], found: bool) -> None:
    """A driver and a device; one that computes on the CPU is none, and macOS has Metal."""
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    env = {"SYSTEMROOT": str(tmp_path)}
    assert has_vulkan(platform, env, (f"{tmp_path}/icd.d",), f"{tmp_path}/dri/renderD*") is found
