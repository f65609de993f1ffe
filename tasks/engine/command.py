"""The engine's command line, for every engine, platform and version; and reading its version. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tasks.catalogue.types import Settings
from tasks.errors import ServerError

Version = tuple[int, ...]

# Source: llamafile 0.10.0 dropped the flag, an unknown flag ends it (mozilla-ai/llamafile#955)
NOBROWSER_GONE: Version = (0, 10)
VULKAN_SINCE: Version = (0, 10)
# From here to 0.9 the server appends every token to a llama.log of its own, which nobody bounds
OWN_LOG_SINCE: Version = (0, 8)


class Launch(NamedTuple):
    """What starts an engine."""

    engine: str  # self, llamafile or embedded
    platform: str  # as sys.platform says it
    model: str  # absolute path of the model
    exe: str = ""  # absolute path of llamafile's executable, for the engine `llamafile`
    python: str = ""  # absolute path of this interpreter, for the engine `embedded`
    mmproj: str = ""  # absolute path of the model's vision projector

    def program(self) -> list[str]:
        """The words that start it, without arguments.

        An APE is refused by execve (ENOEXEC) until a shell reads it, and /bin/sh execs in place, so that
        the pid is the engine's (mozilla-ai/llamafile#7, Significant-Gravitas/AutoGPT#7637).
        """
        if self.engine == "embedded":
            return [self.python, "-m", "tasks.engine.embedded"]
        file = self.model if self.engine == "self" else self.exe
        return [file] if self.platform == "win32" else ["/bin/sh", file]

    def version_command(self) -> list[str]:
        """Ask for the version: proves that it runs here (R8)."""
        return [*self.program(), "--version"]


def parse_version(text: str) -> str:
    """The version in what `--version` printed, or nothing."""
    found = re.search(r"\bv(\d+(?:\.\d+)+)", text)
    return found.group(1) if found else ""


def version_tuple(version: str | None) -> Version | None:
    """`0.8.6` as numbers; None where it is not known."""
    return tuple(int(p) for p in re.findall(r"\d+", version)) if version else None


def serve_command(
    launch: Launch, settings: Settings, *, version: str | None, extra: Sequence[str] = (), key_file: str = ""
) -> list[str]:
    """The command line that serves a model (R10, R11).

    Args:
        settings: all levels merged; the port is the real one.
        version: the engine's own, None where it is not known.
        extra: arguments handed through as they are, last, so that they win.
        key_file: path of a file with what clients must send, which llamafile has read since 0.6 (server.cpp
            --api-key-file); the embedded engine reads the environment. `ps` shows neither (R30).

    Raises:
        ServerError: a setting this engine cannot have.
    """
    known = None if launch.engine == "embedded" else version_tuple(version)
    _check(launch, settings, version, known)
    words = [*launch.program(), "--server"]
    if known is not None and known < NOBROWSER_GONE:
        words.append("--nobrowser")
        if known >= OWN_LOG_SINCE:
            words.append("--log-disable")
    if key_file:
        words += ["--api-key-file", key_file]
    if launch.engine != "self":
        words += ["-m", launch.model]
    if launch.mmproj:
        words += ["--mmproj", launch.mmproj]
    for flag, value in (
        ("--host", settings.host),
        ("--port", settings.port),
        ("--ctx-size", settings.ctx_size),
        ("--n-predict", settings.n_predict),
        ("-ngl", settings.ngl),
        ("--gpu", settings.gpu),
        ("--threads", settings.threads),
    ):
        if value is not None:
            words += [flag, str(value)]
    return [*words, *settings.args, *extra]


def _check(launch: Launch, settings: Settings, version: str | None, known: Version | None) -> None:
    if settings.gpu == "vulkan" and known is not None and known < VULKAN_SINCE:
        raise ServerError(
            f"llamafile {version} knows no --gpu vulkan, which came with 0.10",
            fix="--gpu auto, or --engine llamafile for the newer program of models.yaml",
        )
    opened = (launch.model if launch.engine == "llamafile" else "", launch.mmproj)
    if launch.engine != "embedded" and (path := next((p for p in opened if "@" in p), "")):
        # Source: llamafile.c splits the path of -m at its first @ to name a file inside a zip
        raise ServerError(
            f"llamafile cannot open {path}: it reads a path with @ only up to that sign",
            fix="move it to a path without @ (LLAMAFILE_CACHE says where the cache is)",
        )
