"""A llamafile that `--assimilate` has made a program of one system, which starts it without a shell."""

from __future__ import annotations

import os
import platform
import struct
import sys
from pathlib import Path

import pytest

from tests.fakes import llamafile
from tests.server.test_serve_cli import arguments, ask, behave, runs, serving
from tests.support.project import Project
from tests.support.servers import failed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="writes a program for Linux")

BASE = 0x400000
HEADERS = 64 + 56
# execve(PATH, argv, environment), then exit(127); PATH is what follows the code
CODE = {
    "x86_64": (
        62,
        bytes.fromhex("488b0c24488d742408488d54ce08488d3d13000000b83b0000000f05bf7f000000b83c0000000f05"),
    )
}


def elf(path: str, machine: int, code: bytes) -> bytes:
    """A static ELF program that replaces itself by another one, with the same arguments."""
    data = code + os.fsencode(path) + b"\0"
    size = HEADERS + len(data)
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096) + data


def zipped(program: bytes, folder: Path) -> bytes:
    """The program with a llamafile's zip at its end."""
    return program + llamafile.build(folder / "zip.llamafile").read_bytes()


@pytest.fixture
def program(project: Project, tmp_path: Path) -> bytes:
    """A program for this machine, which is a fake llamafile."""
    if platform.machine() not in CODE:
        pytest.skip("no program for this CPU")
    fake, script = llamafile.build(tmp_path / "fake.llamafile"), tmp_path / "script"
    script.write_text(f'#!/bin/sh\nexec /bin/sh {fake} "$@"\n')
    script.chmod(0o755)
    behave(project)
    machine, code = CODE[platform.machine()]
    return zipped(elf(str(script), machine, code), tmp_path)


def test_of_the_catalogue(project: Project, program: bytes) -> None:
    """F37: from download to answers, as any llamafile."""
    (project.path / "m.llamafile").write_bytes(program)
    project.catalogue({"m": project.entry("m.llamafile", program)})
    with serving(project, "serve", "--port", "0") as (_, url):
        assert ask(url, "Hello") == "Hello"
    assert [run["argv"][0] for run in runs(project)] == ["--version", "--server"]


def test_of_the_user(project: Project, program: bytes, tmp_path: Path) -> None:
    """F37: --llamafile FILE; a shell could not read it."""
    own = tmp_path / "own.llamafile"
    own.write_bytes(program)
    result = project.doit("with", "--llamafile", str(own), "--", "true")
    assert result.status == 0, result.err
    assert "--server" in arguments(project)
    assert own.stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (elf("/x", 243, b"\0"), "an ELF program for another CPU"),
        (
            struct.pack("<II", 0xFEEDFACF, 0x0100000C) + bytes(24),
            "a Mach-O program for arm64, which macOS starts",
        ),
    ],
)
def test_of_another_machine(project: Project, tmp_path: Path, head: bytes, found: str) -> None:
    """F37: the error names what it is, what this machine is, and what runs everywhere."""
    own = tmp_path / "own.llamafile"
    own.write_bytes(zipped(head, tmp_path))
    said = failed(project.doit("with", "--llamafile", str(own), "--", "true"))
    assert "Exec format error" in said
    assert f"program: {found}\n  this machine: linux on {platform.machine()}\n" in said
    assert "fix: use the llamafile as it was published: before `--assimilate` it runs everywhere" in said


def test_a_program_that_is_no_llamafile(project: Project, tmp_path: Path) -> None:
    """F37: any other program of the system is refused, and not run."""
    own = tmp_path / "own.llamafile"
    own.write_bytes(Path(os.path.realpath("/bin/true")).read_bytes())
    said = failed(project.doit("with", "--llamafile", str(own), "--", "true"))
    assert "is not a llamafile" in said
    assert "expected: a llamafile's zip at its end" in said
