"""The table of messages: what a user types, and the exact text of the error (issue 13)."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from tests.support.project import REPO, Project

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
CONVERT = "convert the model again, or use the file of another publisher: GGUF version 2 or 3, little-endian"
HUB = "https://huggingface.co/o/r/resolve/" + "a1" * 20 + "/m.gguf"
CONFLICT = "version: 1\n<<<<<<< HEAD\nmodels: {}\n=======\nmodels: []\n>>>>>>> other\n"
EMBEDDED = "--engine embedded"


class Case(NamedTuple):
    """A command line in a project, and its message; {p} is the project's path."""

    line: str
    status: int
    text: str  # of the error, with its facts and its fix
    files: Mapping[str, bytes] = MappingProxyType({})  # written into the project first
    env: Mapping[str, str] = MappingProxyType({})


def not_gguf(name: str, got: str, fix: str = "give the path of a model") -> str:
    """The message about a file of the user's that is not a GGUF."""
    expected = "GGUF in the first four bytes, and version 2 or 3"
    return f"{{p}}/{name} is not a GGUF file\n  got: {got}\n  expected: {expected}\n  fix: {fix}"


def own(data: bytes, got: str, fix: str = "give the path of a model") -> Case:
    """`doit verify` of a file of one's own, which is not a model."""
    line = f"verify {EMBEDDED} --llamafile own.gguf"
    return Case(line, 1, not_gguf("own.gguf", got, fix), {"own.gguf": data})


def endpoint(value: str, got: str) -> Case:
    """A download from the Hub, with this HF_ENDPOINT."""
    text = f"HF_ENDPOINT: expected https://HOST, got {got}\n  fix: set HF_ENDPOINT=https://HOST, or unset it"
    return Case("download --model hub", 1, text, {}, {"HF_ENDPOINT": value})


def no_scheme(url: str) -> Case:
    """A URL without https://."""
    text = f"--llamafile-url: {url}: https:// is missing (a local path begins with ./ or /)"
    return Case(f"download --llamafile-url {url}", 3, text)


CASES = [
    # F19: HF_ENDPOINT
    pytest.param(endpoint("hf-mirror.com", "hf-mirror.com"), id="F19: no scheme"),
    pytest.param(
        endpoint('"http://127.0.0.1:9"', '"http://127.0.0.1:9"; remove the quotes'), id="F19: quotes"
    ),
    # F29: a URL
    pytest.param(no_scheme("huggingface.co/o/r/resolve/main/x.gguf"), id="F29: a host"),
    pytest.param(no_scheme("localhost:8000/x.gguf"), id="F29: a host and a port"),
    # F30 and F16: a file of one's own
    pytest.param(
        own(b"GGUF\1\0\0\0", "it is a GGUF of version 1, which engines do not read any more", CONVERT),
        id="F30: version 1",
    ),
    pytest.param(
        own(b"GGUF\0\0\0\3", "it is a big-endian GGUF, for processors of another byte order", CONVERT),
        id="F30: big-endian",
    ),
    pytest.param(own(b"", "it is empty (0 bytes)"), id="F16: empty"),
    pytest.param(
        Case(
            f"verify {EMBEDDED} --llamafile own.gguf", 1,
            "{p}/own.gguf is not a complete GGUF file\n"
            "  got: it is a part of a GGUF: 100000 bytes, expected at least 2246145\n"
            "  fix: copy or download it again",
            {"own.gguf": DEMO[:100_000]},
        ), id="F16: a part",
    ),
    pytest.param(own(b"Entry not found", "it is text: Entry not found"), id="F16: a text"),
    # F10: what it is, whatever its name
    pytest.param(
        Case(
            "verify --engine self --llamafile x.bin", 3,
            "x.bin is a GGUF, which is not a program\n  fix: --engine llamafile, or --engine embedded",
            {"x.bin": DEMO},
        ), id="F10: a GGUF as a program",
    ),
    pytest.param(
        Case(
            f"verify {EMBEDDED} --llamafile x.gguf", 3,
            "x is a llamafile, but the embedded engine reads GGUF files\n  fix: remove --engine",
            {"x.gguf": b"MZqFpD='\n"},
        ), id="F10: a llamafile that is named .gguf",
    ),
    pytest.param(
        Case(
            "download --llamafile-url https://h/x.bin", 3,
            "the file name in https://h/x.bin is 'x.bin': expected one ending in .llamafile or .gguf\n"
            "  fix: doit serve --llamafile NAME.gguf (or NAME.llamafile) --llamafile-url https://h/x.bin",
        ), id="F10: a URL of neither ending",
    ),
    # F31: a merge conflict
    pytest.param(
        Case(
            "plan", 3,
            "{p}/models.yaml:2: a merge conflict is not resolved\n"
            "  fix: edit {p}/models.yaml: keep one side of each conflict, without git's markers",
            {"models.yaml": CONFLICT.encode()},
        ), id="F31: models.yaml",
    ),
    pytest.param(
        Case(
            "plan", 3,
            "{p}/models.lock:2: a merge conflict is not resolved\n"
            "  fix: git checkout --theirs {p}/models.lock && doit lock",
            {"models.lock": CONFLICT.encode()},
        ), id="F31: models.lock",
    ),
    # F39: bounds of YAML
    pytest.param(
        Case(
            "plan", 3,
            "{p}/models.yaml:7: more than 500,000 values, counting what each alias expands to\n"
            "  fix: edit {p}/models.yaml",
            {"models.yaml": b"a0: &a0 [x]\n" + b"".join(
                f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n".encode() for n in range(1, 9)
            )},
        ), id="F39: 350 bytes of aliases",
    ),
    pytest.param(
        Case(
            "plan", 3,
            "{p}/models.yaml:2: lists and mappings nested more than 32 deep\n  fix: edit {p}/models.yaml",
            {"models.yaml": b"version: 1\nmodels: " + b"[" * 60 + b"]" * 60},
        ), id="F39: depth",
    ),
    pytest.param(
        Case(
            "plan", 3,
            "{p}/models.lock:2: more than 500,000 values, counting what each alias expands to\n"
            "  fix: edit {p}/models.lock",
            {"models.lock": b"version: 1\nmodels: [" + b"a," * 600_000 + b"]"},
        ), id="F39: a wide list",
    ),
    pytest.param(
        Case(
            "plan", 3,
            "cannot read the catalogue {p}/models.yaml: it has more than 16,777,216 bytes\n"
            "  fix: set LLAMAFILE_CATALOGUE to a models.yaml; unset, it is the recipe's",
            {"models.yaml": b"#" * (16 * 1024 * 1024 + 1)},
        ), id="F39: size",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_message(project: Project, case: Case) -> None:
    """Point 8: the status, and the whole text behind `ERROR: `."""
    project.catalogue({"hub": project.entry(HUB, DEMO, engine="embedded")})
    for name, data in case.files.items():
        (project.path / name).write_bytes(data)
    result = project.doit(*case.line.split(), env=case.env)
    assert (result.status, result.out) == (case.status, "")
    message = result.err[result.err.index("ERROR: ") + len("ERROR: ") :]
    assert message.rstrip("\n") == case.text.replace("{p}", str(project.path))


def test_a_conflict_in_the_lock_is_resolved_by_the_fix(project: Project) -> None:
    """F31: the command that the message shows works, in a clone with a real conflict."""
    lock = project.path / "models.lock"
    (project.path / "m.gguf").write_bytes(DEMO)
    project.catalogue({"m": project.entry("m.gguf", engine="embedded")})
    assert project.doit("lock").status == 0
    git(project.path, "init", "-q", "-b", "main")
    git(project.path, "add", "models.yaml", "models.lock")
    git(project.path, "commit", "-q", "-m", "base")
    text = lock.read_text()
    for branch, word in (("one", "Apache-2.0"), ("two", "Zlib")):
        git(project.path, "checkout", "-q", "-b", branch, "main")
        lock.write_text(text.replace("license: MIT", f"license: {word}"))
        git(project.path, "commit", "-q", "-a", "-m", branch)
    git(project.path, "merge", "one", status=1)
    broken = project.doit("plan")
    assert broken.status == 3
    fix = broken.err[broken.err.index("fix: ") + len("fix: ") :].strip()
    command, _, verb = fix.partition(" && ")
    git(project.path, *command.split()[1:])
    assert project.doit(*verb.split()[1:]).status == 0
    assert project.doit("lock", "--check").status == 0
    assert lock.read_text() == text


def git(folder: Path, *words: str, status: int = 0) -> None:
    """Run git, which must end with this status."""
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", *settings, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == status, done
