"""Memory of this machine and its control groups, read from real files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.gguf import ModelMetadata
from tasks.catalogue.model_memory import kv_cache_bytes
from tasks.planning import estimate
from tasks.system import memory

from tests.catalogue.test_gguf import written
from tests.fakes import llamafile

ROOT = Path(__file__).resolve().parents[2]
DEMO = ModelMetadata("llama", 4, 4096, 192, 6, 6, feed_forward_length=512, vocab_size=1536)


def test_the_demo_says_what_it_takes() -> None:
    """Issue 5.5: 4 layers, 6 heads of 32 numbers, twice, 2 bytes each: 3 KiB a token."""
    found = estimate.metadata(str(ROOT / "demo" / "demo.gguf"))
    assert found == DEMO._replace(tensor_bytes=2_200_320)
    assert kv_cache_bytes(found, 0) == 4096 * 3 * 1024


def test_a_llamafile_has_its_model_inside(tmp_path: Path) -> None:
    """Issue 5.5: stored as it is in the zip at the end of the file."""
    model = (ROOT / "demo" / "demo.gguf").read_bytes()
    assert estimate.metadata(str(llamafile.build(tmp_path / "m.llamafile", gguf=model))) == DEMO


def test_of_two_models_inside_the_larger_one_is_it(tmp_path: Path) -> None:
    """Issue 5.5: LLaVA has its vision projector, a .gguf as well, beside its model."""
    projector = written(tmp_path / "p.gguf", "clip", tokens=1)
    model = written(tmp_path / "m.gguf", "llama", block_count=7)
    path = llamafile.build(tmp_path / "m.llamafile", gguf=projector)
    with zipfile.ZipFile(path, "a") as box:
        box.writestr("model-q4.gguf", model, zipfile.ZIP_STORED)
    found = estimate.metadata(str(path))
    assert found == ModelMetadata("llama", 7, split_count=3, vocab_size=5000)


@pytest.mark.parametrize("name", ["none.gguf", ".", "exe", "packed", "short"])
def test_what_cannot_be_read_is_none(tmp_path: Path, name: str) -> None:
    """Issue 5.5: no file, a folder, no model inside, one that is compressed, one that is cut off."""
    if name == "exe":
        llamafile.build_exe(tmp_path / name)
    elif name == "packed":
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as box:
            box.writestr("model.gguf", (ROOT / "demo" / "demo.gguf").read_bytes())
    elif name == "short":
        (tmp_path / name).write_bytes((ROOT / "demo" / "demo.gguf").read_bytes()[:500])
    assert estimate.metadata(str(tmp_path / name)) is None


@given(st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=4))
def test_random_bytes_are_none_or_a_meta(tmp_path: Path, noise: bytes, at: int, change: bytes) -> None:
    """Issue 5.5: alone, before a zip's end, and as a change in a zip that was whole."""
    path = tmp_path / "noise"
    path.write_bytes(noise)
    estimate.metadata(str(path))
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("m.gguf", noise)
        box.writestr("n.gguf", b"GGUF" + noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - at] + change + whole[len(whole) - at + len(change) :])
    estimate.metadata(str(path))
    path.write_bytes(noise + b"PK\x05\x06" + noise)
    estimate.metadata(str(path))


def files(folder: Path, **contents: object) -> None:
    """Files of a control group."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has control groups")
def test_a_container_of_either_kind_limits_what_may_be_used(tmp_path: Path) -> None:
    """Issue 5.5: the tightest group counts, and the page cache is not what is used."""
    stat = "anon 7\nactive_file 100\ninactive_file 200\ntotal_active_file 100\ntotal_inactive_file 200"
    groups, mount = tmp_path / "cgroup", tmp_path / "mount"
    for line, top, limit, used, none in (
        ("0::/a/b", mount, "max", "current", "max"),
        ("4:cpu,memory:/a/b", mount / "memory", "limit_in_bytes", "usage_in_bytes", 1 << 62),
    ):
        inner = top / "a" / "b"
        groups.write_text(f"9:name=systemd:/x\n{line}\n")
        args = (str(groups), str(mount))
        assert memory.total(*args) == psutil.virtual_memory().total  # no files
        files(inner, **{limit: none, used: 1000, "stat": stat})
        assert memory.total(*args) == psutil.virtual_memory().total
        assert 1000 < memory.available(*args) <= psutil.virtual_memory().total
        files(inner.parent, **{limit: 5000, used: 1000, "stat": stat})
        assert (memory.total(*args), memory.available(*args)) == (5000, 4300)
        files(top, **{limit: 4000, used: 9000, "stat": stat})
        assert (memory.total(*args), memory.available(*args)) == (4000, 0)


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    """Issue 5.5: Docker without a namespace of groups gives the host's path, which is not there."""
    (tmp_path / "cgroup").write_text("0::/docker/0123\n")
    files(tmp_path / "mount", max=2_000_000)
    assert memory.total(str(tmp_path / "cgroup"), str(tmp_path / "mount")) == 2_000_000


def test_where_there_are_no_groups_it_is_the_machines(tmp_path: Path) -> None:
    """Issue 5.5: macOS, Windows."""
    assert memory.total(str(tmp_path / "none"), str(tmp_path)) == psutil.virtual_memory().total
    assert 0 < memory.available() <= memory.total()


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 24564", 24564),
        ("echo 81559; echo 81559", 2 * 81559),
        ("echo '[N/A]'", 0),
        ("echo; exit 9", 0),
        (None, 0),  # there is none
    ],
)
def test_memory_of_gpus(
    script: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 15.6: MiB of all GPUs; 0 where nvidia-smi does not state them, or is not there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if script:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    assert memory.gpu_total() == expected * 1024**2
