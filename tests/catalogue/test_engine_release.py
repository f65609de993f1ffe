"""Which archive of a release serves a machine, and what models.yaml may say about it."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from tasks.catalogue.engine_release import choose_archive, libraries_of, pinned_server, place_of
from tasks.catalogue.environment import Environment
from tasks.catalogue.schema import compile_catalogue
from tasks.catalogue.types import Catalogue
from tasks.errors import UsageError

from tests.support.catalogues import VALID, WHERE, edited
from tests.support.project import REPO

pytestmark = pytest.mark.once

ALL = (
    *("linux-x64", "linux-x64-vulkan", "linux-x64-nvidia", "linux-arm64", "macos-arm64"),
    *("windows-x64", "windows-x64-vulkan", "windows-x64-nvidia", "windows-x64-amd"),
)
NVIDIA, VULKAN = ("nvidia",), ("vulkan",)
BOTH = NVIDIA + VULKAN


@pytest.mark.parametrize(
    ("platform", "machine", "gpu", "found", "place", "reason"),
    [
        ("linux", "x86_64", None, (), "linux-x64", "no GPU"),
        ("linux", "x86_64", "auto", VULKAN, "linux-x64-vulkan", "a GPU with Vulkan"),
        ("linux", "x86_64", None, BOTH, "linux-x64-nvidia", "an NVIDIA GPU"),
        ("linux", "x86_64", "vulkan", NVIDIA, "linux-x64-vulkan", "gpu: vulkan"),
        ("linux", "x86_64", "disable", BOTH, "linux-x64", "gpu: disable"),
        ("linux", "x86_64", "amd", (), "", "no archive linux-x64-amd"),
        ("linux", "aarch64", None, BOTH, "linux-arm64", "no GPU with an archive"),
        ("linux", "riscv64", None, (), "", "no archive linux-riscv64"),
        ("darwin", "arm64", None, (), "macos-arm64", "no GPU with an archive"),
        ("darwin", "arm64", "apple", (), "macos-arm64", "gpu: apple"),
        ("darwin", "x86_64", None, (), "", "no archive macos-x64"),
        ("win32", "AMD64", None, (), "windows-x64", "no GPU"),
        ("win32", "AMD64", None, NVIDIA, "windows-x64-nvidia", "an NVIDIA GPU"),
        ("win32", "AMD64", None, VULKAN, "windows-x64-vulkan", "a GPU with Vulkan"),
        ("win32", "AMD64", "amd", (), "windows-x64-amd", "gpu: amd"),
        ("win32", "ARM64", None, (), "", "no archive windows-arm64"),
    ],
)
def test_the_archive_of_a_machine(
    platform: str, machine: str, gpu: str | None, found: tuple[str, ...], place: str, reason: str
) -> None:
    """The rule of docs/engines.md: what `gpu:` says, else the machine's GPU, else the one for the CPU."""
    choice = choose_archive(ALL, place_of(platform, machine), gpu, found)
    assert (choice.place, reason in choice.reason) == (place, True), choice


@pytest.mark.parametrize(
    ("program", "folder"),
    [
        ("/c/engines/k/a.tar.gz.unpacked/bin/llama-server", "/c/engines/k/a.tar.gz.unpacked/bin"),
        ("C:\\c\\a.zip.unpacked\\bin\\llama-server.exe", "C:/c/a.zip.unpacked/bin"),
        ("/usr/bin/llama-server", ""),
        ("/c/engines/k/llamafile-0.10.5", ""),
        ("", ""),
    ],
)
def test_where_the_libraries_of_a_release_are(program: str, folder: str) -> None:
    """Beside its program; other programs find theirs in the system."""
    assert libraries_of(program) == folder


def with_server(keys: str) -> str:
    """The small catalogue with an entry of llama-server."""
    entry = f"  llama-server: {{title: s, license: MIT, {keys}}}\n"
    return edited("models:\n", f"{entry}models:\n")


@pytest.mark.parametrize(
    ("keys", "key", "text"),
    [
        (
            "archives: {linux-x64: a.zip}",
            "version",
            "this key is required: the release that has the archives",
        ),
        ('version: "b1"', "version", "requires archives"),
        ("gpu: nvidia", "gpu", "requires archives"),
        ("url: https://x.org/a.zip", "url", "requires archives"),
        ('version: "1.b", archives: {linux-x64: a.zip}', "version", "b11669"),
        ('version: "b1", archives: {linux-ppc: a.zip}', "archives.linux-ppc", "SYSTEM-CPU-GPU"),
        ('version: "b1", archives: {linux-x64-apple: a.zip}', "archives.linux-x64-apple", "SYSTEM-CPU-GPU"),
        (
            'version: "b1", archives: {linux-x64: a.rar}',
            "archives.linux-x64",
            "the end of the name of a .tar.gz",
        ),
        ('version: "b1", archives: {linux-x64: ../a.zip}', "archives.linux-x64", "the end of the name"),
        ('version: "b1", archives: {linux-x64: a.zip}, gpu: tpu', "gpu", "one of auto, disable"),
        ('version: "b1", archives: {linux-x64: a.zip}, path: x', "path", "cannot be combined with archives"),
        (
            f'version: "b1", archives: {{linux-x64: a.zip}}, sha256: {"a" * 64}',
            "sha256",
            "`doit lock` writes",
        ),
        ('version: "b1", archives: {linux-x64: a.zip}, url: https://x.org/y', "url", "needs {archive}"),
        (
            'version: latest, archives: {linux-x64: a.zip}, url: "https://x.org/{archive}"',
            "version",
            "{version}",
        ),
    ],
)
def test_errors_of_the_entry(keys: str, key: str, text: str) -> None:
    """Each with its key; what a release's archive is for is checked, too."""
    with pytest.raises(UsageError) as error:
        compile_catalogue(with_server(keys), WHERE)
    assert f"engines.llama-server.{key}: " in error.value.what
    assert text in error.value.what


def test_the_entry_of_the_docs_is_valid() -> None:
    """docs/engines.md and the comment in models.yaml have the keys and the names that the schema takes."""
    [block] = re.findall(
        r"^```yaml\n(.*?)^```", (REPO / "docs" / "engines.md").read_text("utf-8"), re.M | re.S
    )
    text = (REPO / "models.yaml").read_text("utf-8")
    lines = text.partition("\n  llama-server:\n")[2].partition("\nmodels:\n")[0]
    shipped = yaml.safe_load(lines.replace("    # ", "    "))
    for entry in (yaml.safe_load(block)["engines"]["llama-server"], shipped):
        assert len(entry["archives"]) >= 5
        data = yaml.safe_load(VALID)
        data["engines"]["llama-server"] = entry
        found = Catalogue(compile_catalogue(json.dumps(data), WHERE), WHERE).archives("llama-server")
        assert all(file.url.startswith("https://github.com/ggml-org/llama.cpp/") for file in found.values())


def test_only_llama_server_has_archives() -> None:
    """Other engines are one file, or a package."""
    with pytest.raises(UsageError, match=r"llamafile.archives: only for the engine llama-server"):
        compile_catalogue(edited("llamafile-0.10.5\n", "x\n    archives: {linux-x64: a.zip}\n"), WHERE)


@pytest.mark.parametrize(
    ("keys", "text", "fix"),
    [
        (
            'version: "b1", archives: {linux-x64: a.zip}',
            "archive linux-x64 is not pinned",
            "doit lock --model",
        ),
        ("version: latest, archives: {linux-x64: a.zip}", "archive linux-x64 is not pinned", "doit lock"),
        (
            'version: "b1", archives: {macos-x64: a.zip}',
            "no archive linux-x64: expected one of macos-x64",
            "add",
        ),
        (
            'version: "b1", gpu: amd, archives: {linux-x64: a.zip}',
            "no archive linux-x64-amd: expected one of linux-x64",
            "add archives.linux-x64-amd, ",
        ),
        ("path: bin/llama-server", "no such program: /recipe/bin/llama-server", "correct `path:`"),
    ],
)
def test_what_is_refused_on_a_machine(keys: str, text: str, fix: str) -> None:
    """Nothing that is not pinned is unpacked, whatever --frozen says."""
    place = Environment("linux", "/cache", "/recipe", "/home/me")
    with pytest.raises(UsageError) as error:
        pinned_server(Catalogue(compile_catalogue(with_server(keys), WHERE), WHERE), place)
    assert text in error.value.what
    assert fix in error.value.fix


def test_a_program_of_ones_own() -> None:
    """`path:` is relative to models.yaml; without it and archives, PATH is asked."""
    place = Environment("linux", "/cache", "/recipe", "/home/me", first_bytes=lambda _: b"\x7fELF")
    found = pinned_server(Catalogue(compile_catalogue(with_server("path: ../bin/s"), WHERE), WHERE), place)
    assert found
    assert (found.program.target, found.program.in_cache, found.archive) == ("/bin/s", False, None)
    assert pinned_server(Catalogue(compile_catalogue(VALID, WHERE), WHERE), place) is None
