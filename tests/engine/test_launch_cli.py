"""How a llamafile is started: in odd places, and where the system, the disk or the file do not let it.

The llamafile here starts as a real one does: its head is a shell script which looks for `ape`, else unpacks
a loader into TMPDIR, and the loader maps the file as a program is mapped. So the errors are the system's own.
"""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_failures import NO_AVX
from tests.engine.test_failures_cli import failure
from tests.fakes import llamafile
from tests.server.test_serve_cli import arguments, ask, behave, runs, serving, with_llamafile
from tests.support.project import Project, Result

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the remedies and the mounts are Linux's")

PAYLOAD_AT = 65536  # where the first member's bytes are, tests/fakes/llamafile.py
# maps the file to its last byte, as a program; errno 1 is EPERM, a noexec file system
LOADER = """\
#!{python}
import ctypes, os, sys
size, file = int(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
place = libc.mmap(None, size, 5, 2, os.open(file, os.O_RDONLY), 0)
if place == 2**64 - 1:
    sys.exit(os.write(2, b"ape error: %s: prog mmap failed w/ errno %d\\n"
             % (os.fsencode(file), ctypes.get_errno())) and 127)
ctypes.string_at(place + size - 1, 1)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
HEAD = """\
#!/bin/sh
command -v ape >/dev/null && exec ape "$@"
loader=${{TMPDIR:-${{HOME:-.}}}}/.ape-1.10
[ -x "$loader" ] && exec "$loader" {size} "$@"
mkdir -p "${{loader%/*}}" || exit
dd if="$1" bs=1 skip={skip} count={count} 2>/dev/null | gzip -dc >"$loader.$$" || exit
chmod 755 "$loader.$$" || exit
mv -f "$loader.$$" "$loader" || exit
exec "$loader" {size} "$@"
"""


def build(folder: Path) -> Path:
    """Write a llamafile with a loader inside, which its head unpacks."""
    head, file = folder / "head", folder / "ape.llamafile"
    loader = gzip.compress(LOADER.format(python=sys.executable).encode())
    llamafile.build(file, python=str(head), gguf=loader)
    size = file.stat().st_size
    head.write_text(HEAD.format(size=size, skip=PAYLOAD_AT, count=len(loader)))
    head.chmod(0o755)
    return file


@pytest.fixture
def ape(project: Project, tmp_path: Path) -> Path:
    """A llamafile, and a project whose model it is; with a TMPDIR for its loader."""
    file = build(tmp_path)
    project.catalogue({"m": project.entry(str(file), file.read_bytes())})
    behave(project)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    project.env["TMPDIR"] = str(temporary)
    return file


def move_cache(project: Project, folder: Path) -> None:
    project.cache = folder
    project.env["LLAMAFILE_CACHE"] = str(folder)


def fix(said: str) -> str:
    """Return the remedy of an error, its last line."""
    assert said.count("  fix: ") == 1, said
    return said[said.index("  fix: ") :]


def serve(project: Project, *words: str) -> str:
    """Run `doit serve`, which must fail; return its error."""
    return failure(project.doit("serve", "--port", "0", "--timeout", "30", *words))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("with  two spaces", id="spaces"),
        pytest.param("ünï 日本 😀", id="unicode"),
        pytest.param("me@home", id="an at sign"),
        pytest.param('it\'s "$HOME" `x`; & (*) \\', id="what a shell would read"),
    ],
)
class TestOddPlaces:
    """A path is a path, whatever its characters; nothing but the program itself reads it."""

    def test_of_the_cache(self, project: Project, ape: Path, tmp_path: Path, name: str) -> None:
        """Issue 4.7: download, chmod, verify and serve in a cache of this name."""
        move_cache(project, tmp_path / name / "cache")
        target = project.target(ape.read_bytes(), "ape.llamafile")
        with serving(project, "serve", "--port", "0") as (_, url):
            assert ask(url, "Hello") == "Hello"
        assert target.exists()
        assert [run["argv"][0] for run in runs(project)] == ["--version", "--server"]
        assert runs(project)[-1]["cwd"] == str(project.run_folder)

    def test_of_the_file(self, project: Project, ape: Path, tmp_path: Path, name: str) -> None:
        """Issue 4.7: --llamafile PATH, its folder and itself of this name, and TMPDIR as well."""
        folder = tmp_path / name
        folder.mkdir()
        own = ape.rename(folder / f"{name}.llamafile")
        project.env["TMPDIR"] = str(folder / "tmp")
        with serving(project, "serve", "--llamafile", str(own), "--port", "0") as (_, url):
            assert ask(url, "Hello") == "Hello"
        assert "--server" in arguments(project)
        assert (folder / "tmp" / ".ape-1.10").exists()


@linux
def test_a_noexec_cache(project: Project, ape: Path, mount: Callable[..., Path]) -> None:
    """Issue 4.7: the loader's own words, and where the cache can be instead."""
    move_cache(project, mount("noexec"))
    target = project.target(ape.read_bytes(), "ape.llamafile")
    said = failure(project.doit("verify"))
    assert "ERROR: m does not run here\n" in said
    assert "  ended: exit status 127\n" in said
    assert f"  output: ape error: {target}: prog mmap failed w/ errno 1\n" in said
    assert "a noexec file system: set LLAMAFILE_CACHE to another disk" in fix(said)
    move_cache(project, Path(project.env["TMPDIR"]) / "cache")
    assert project.doit("verify").status == 0


@linux
def test_a_noexec_tmpdir(project: Project, ape: Path, mount: Callable[..., Path]) -> None:
    """Issue 4.7: the loader is unpacked and may not be run."""
    project.env["TMPDIR"] = str(mount("noexec"))
    said = failure(project.doit("verify"))
    assert "  ended: exit status 126\n" in said
    assert "/.ape-1.10: Permission denied" in said
    assert "TMPDIR, where an APE puts its loader, is on a noexec file system" in fix(said)


@linux
@pytest.mark.parametrize("variable", ["TMPDIR", "HOME"])
def test_a_read_only_folder(project: Project, ape: Path, mount: Callable[..., Path], variable: str) -> None:
    """Issue 4.7: a read-only TMPDIR, or a read-only HOME where there is none."""
    del project.env["TMPDIR"]
    project.env[variable] = str(mount("ro"))
    said = failure(project.doit("verify"))
    assert "Read-only file system" in said
    assert "export TMPDIR=FOLDER" in fix(said)


@linux
def test_a_full_tmpdir(project: Project, ape: Path, mount: Callable[..., Path]) -> None:
    """Issue 4.7: no room for the loader."""
    disk = mount("rw")
    project.env["TMPDIR"] = str(disk / "tmp")
    (disk / "tmp").mkdir()
    subprocess.run(["dd", "if=/dev/zero", f"of={disk}/hog", "bs=1M"], capture_output=True, check=False)
    said = failure(project.doit("verify"))
    assert "No space left on device" in said
    assert "the disk is full" in fix(said)


@linux
@pytest.mark.parametrize(
    ("script", "text"),
    [
        pytest.param(
            "#!{python}\nimport argparse\nargparse.ArgumentParser('ape').parse_args()\n",
            "ape: error: unrecognized arguments:",
            id="587: a program of Python",
        ),
        pytest.param(
            "#!/bin/sh\necho 'Attempto Parsing Engine for ACE 6.7, version 6.7.180715'\nexit 1\n",
            "Attempto Parsing Engine",
            id="587: the one that was met",
        ),
    ],
)
def test_another_ape_on_path(project: Project, ape: Path, tmp_path: Path, script: str, text: str) -> None:
    """Issue 4.7: a program of that name is given the file; said, with how to find it."""
    other = tmp_path / "bin" / "ape"
    other.parent.mkdir()
    other.write_text(script.format(python=sys.executable))
    other.chmod(0o755)
    project.env["PATH"] = f"{other.parent}{os.pathsep}{project.env['PATH']}"
    said = failure(project.doit("verify"))
    assert text in said
    assert "another program named ape is on PATH" in fix(said)


@linux
@pytest.mark.parametrize(
    ("size", "ended", "text"),
    [
        pytest.param(
            PAYLOAD_AT + 40, "exit status 1", "gzip: stdin: unexpected end of file", id="its loader"
        ),
        pytest.param(-1, "signal 7 (SIGBUS)", "(it printed nothing)", id="the rest"),
    ],
)
def test_a_truncated_file(
    project: Project, ape: Path, tmp_path: Path, size: int, ended: str, text: str
) -> None:
    """Issue 4.7: cut off in its loader, or behind it where the loader is there already."""
    own = tmp_path / "own.llamafile"
    whole = ape.read_bytes()
    own.write_bytes(whole[: size if size > 0 else len(whole) - 8192])
    if size < 0:
        assert project.doit("verify").status == 0  # unpacks the loader
    said = serve(project, "--llamafile", str(own))
    assert f"  command: /bin/sh {own} --version\n" in said
    assert f"  ended: {ended}\n" in said
    assert text in said
    assert "the file is truncated or its disk failed: delete it and run the command again" in fix(said)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        pytest.param(b"<!doctype html>\n<html><head>\n", "it is a web page", id="HTML"),
        pytest.param(b"Entry not found", "it is text: Entry not found", id="the Hub's 404"),
        pytest.param(
            b'{"error":"Invalid username."}', 'it is JSON: {"error":"Invalid username."}', id="the Hub's 401"
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "it is a Git LFS pointer, not the file that it names",
            id="Git LFS",
        ),
        pytest.param(b"", "it is empty (0 bytes)", id="nothing"),
        pytest.param(b"MZ", "it is text: MZ", id="two bytes of it"),
    ],
)
def test_a_page_in_place_of_the_file(
    project: Project, ape: Path, tmp_path: Path, content: bytes, got: str
) -> None:
    """Issue 4.7: never given to a shell, which would read it as a script; it is named."""
    own = tmp_path / "own.llamafile"
    own.write_bytes(content)
    said = serve(project, "--llamafile", str(own))
    assert f"{own} is not a llamafile\n  got: {got}\n" in said
    assert "give the path of a model" in fix(said)
    assert not runs(project)


@linux
def test_it_is_gone_when_it_is_started(project: Project, ape: Path, tmp_path: Path) -> None:
    """Issue 4.7: a program that a scanner, say, took away between two steps."""
    python = tmp_path / "gone"
    own = llamafile.build(tmp_path / "own.llamafile", python=str(python))
    said = serve(project, "--llamafile", str(own))
    assert "  ended: exit status 127\n" in said
    assert str(python) in said


# (what it prints, its exit status, words of what is shown, words of the remedy): as the real one says it
CRASHES = [
    pytest.param(NO_AVX, 1, "ended: exit status 1", "lacks AVX", id="no AVX"),
    pytest.param("", -signal.SIGILL, "ended: signal 4 (SIGILL)", "lacks AVX", id="SIGILL"),
    pytest.param("", -signal.SIGSEGV, "ended: signal 11 (SIGSEGV)", "--gpu disable", id="SIGSEGV"),
    pytest.param("", -signal.SIGKILL, "ended: signal 9 (SIGKILL)", "memory is short", id="SIGKILL"),
    pytest.param("", -31, "ended: signal 31 (SIGSYS)", "--security-opt seccomp=unconfined", id="SIGSYS"),
    pytest.param("Bus error", 135, "ended: exit status 135", "truncated", id="SIGBUS, said by a shell"),
    pytest.param(
        "x: this ape program lacks riscv64 support", 127, "lacks riscv64", "x86-64 and arm64", id="riscv64"
    ),
    pytest.param(
        "run-detectors: unable to find an interpreter for x", 1, "run-detectors", "binfmt_misc", id="binfmt"
    ),
    pytest.param(
        "error: APE is running on WIN32 inside WSL.", 77, "ended: exit status 77", "WSLInterop-late", id="WSL"
    ),
    pytest.param("x: line 64: gzip: command not found", 127, "gzip", "install them", id="no gzip"),
    pytest.param("something new", 3, "output: something new", "", id="nothing is known"),
]


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that no test changes, so that its catalogue is compiled once."""
    project = Project(tmp_path_factory.mktemp("still"))
    with_llamafile(project)
    return project


def explained(result: Result, shown: str, words: str) -> None:
    """R28: shown is in the error, and the remedy has the words; none where none is known."""
    said = failure(result)
    assert shown in said
    if words:
        assert words in fix(said)
    else:
        assert "  fix: " not in said


@linux
@pytest.mark.parametrize(("text", "status", "shown", "words"), CRASHES)
def test_asked_for_its_version(still: Project, text: str, status: int, shown: str, words: str) -> None:
    """Issue 4.7: a program that does not run here is explained by `doit verify`, again and again."""
    said: dict[str, Any] = {"version_text": text} if text else {}
    behave(still, version_status=int(status), **said)
    explained(still.doit("verify"), shown, words)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose model is verified already."""
    project = Project(tmp_path_factory.mktemp("proven"))
    with_llamafile(project)
    assert project.doit("verify").status == 0
    return project


@linux
@pytest.mark.parametrize(
    ("text", "status", "shown", "words"),
    [
        *CRASHES,
        pytest.param(
            "allocating 9 MiB on device 0: cudaMalloc failed: out of memory\n"
            "llama_kv_cache_init: failed to allocate buffer for kv cache",
            1,
            "output:\n      allocating 9 MiB",
            "the GPU's memory is short",
            id="the GPU's memory",
        ),
        pytest.param(
            "llama_kv_cache_init: failed to allocate buffer for kv cache",
            1,
            "kv cache",
            "--ctx-size",
            id="KV",
        ),
        pytest.param(
            "fatal error: support for --gpu nvidia was explicitly requested, but it wasn't available",
            1,
            "--gpu nvidia",
            "--gpu auto",
            id="no GPU",
        ),
        pytest.param(
            "error loading model: unknown model architecture: 'gemma3'", 1, "gemma3", "newer", id="too new"
        ),
    ],
)
def test_while_it_serves(proven: Project, text: str, status: int, shown: str, words: str) -> None:
    """Issue 4.7: a program that ends while it loads is explained by `doit serve`."""
    end = {"signal": -int(status)} if status < 0 else {"status": status}
    behave(proven, crash={**end, **({"text": text} if text else {})})
    explained(proven.doit("serve", "--port", "0", "--timeout", "30"), shown, words)


def test_words_that_a_shell_would_read(project: Project, ape: Path) -> None:
    """Issue 4.7: arguments reach the engine as they are."""
    words = ["--fancy-test-flag", "a  b $HOME `x` ; \"'"]
    with serving(project, "serve", "--port", "0", "--", *words):
        assert arguments(project)[-2:] == words
