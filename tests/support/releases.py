"""Archives of a release of llama.cpp, and a catalogue that names them."""

from __future__ import annotations

import io
import platform
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.catalogue.engine_release import place_of

from tests.fakes.github import GitHub
from tests.support.project import Project

REPO = "ggml-org/llama.cpp"
HERE = place_of(sys.platform, platform.machine())
PROGRAM = b"#!/bin/sh\necho 'version: 11669 (5e1b7c9)'\n"
ENTRY = {"title": "llama.cpp's own server", "license": "MIT"}


def tar(members: Mapping[str, bytes | str], more: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """Return a .tar.gz of files (bytes) and symbolic links (text), then of members without bytes."""
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if name.endswith(("llama-server", ".so.1")) else 0o644
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return box.getvalue()


def zipped(members: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    """Return a .zip; a mode makes a member one of Unix."""
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # the constructor corrects names
            mode = (modes or {}).get(name, 0)
            info.create_system, info.external_attr = (3 if mode else 0), mode << 16
            archive.writestr(info, content)
    return box.getvalue()


def release(build: str = "b11669", program: bytes = PROGRAM, **more: bytes | str) -> bytes:
    """Return the archive of a release as it is published: one folder, a library and links to it."""
    folder = f"llama-{build}"
    return tar(
        {
            f"{folder}/llama-server": program,
            f"{folder}/libllama.so.1": b"a library" * 1000,
            f"{folder}/libllama.so": "libllama.so.1",
            f"{folder}/licenses/LICENSE": b"MIT",
            **{f"{folder}/{name}": content for name, content in more.items()},
        }
    )


def publish(github: GitHub, tag: str, archives: Mapping[str, bytes], digests: bool = True) -> None:
    """Publish a release with these archives, by the end of their names."""
    project = github.projects.get(REPO) or github.repo(REPO, "MIT")
    project.release(tag, {f"llama-{tag}-bin-{name}": data for name, data in archives.items()}, digests)


def engine(
    github: GitHub, archives: Mapping[str, str], version: str = "b11669", **keys: Any
) -> dict[str, Any]:
    """Return `engines:` with a release of the fake GitHub."""
    url = f"{github.endpoint}/{REPO}/releases/download/{{version}}/llama-{{version}}-bin-{{archive}}"
    return {"llama-server": {**ENTRY, "version": version, "url": url, "archives": dict(archives), **keys}}


def folder(project: Project) -> Path:
    """Return the folder of the only archive that is unpacked."""
    [found] = project.cache.glob("engines/*/*.unpacked")
    return found / "bin"
