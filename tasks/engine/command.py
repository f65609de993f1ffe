"""Build an engine's command line for every engine, platform and version. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tasks.catalogue.model_files import TEMPLATE, CompanionFile
from tasks.catalogue.settings import ServeSettings
from tasks.engine.feature_options import companion_options, feature_options
from tasks.errors import ServerError

Version = tuple[int, ...]

# Source: llamafile 0.10.0 dropped --nobrowser and exits at an unknown option
# (mozilla-ai/llamafile#955)
NOBROWSER_GONE: Version = (0, 10)
VULKAN_SINCE: Version = (0, 10)
# from 0.8 to 0.9 the server appends every token to its own llama.log, without a limit
OWN_LOG_SINCE: Version = (0, 8)
KEY_VARIABLE = "LLAMA_API_KEY"  # of the recipe, and of llama.cpp's server


class Launch(NamedTuple):
    """How to start an engine; all paths are absolute."""

    engine: str  # self, llamafile, embedded or llama-server
    platform: str  # a value of sys.platform
    model: str
    exe: str = ""  # the program of the engines `llamafile` and `llama-server`
    python: str = ""  # the Python interpreter, for the engine `embedded`
    companions: tuple[CompanionFile, ...] = ()
    kind: str = "chat"  # what the model is for
    native: bool = False  # the program is ELF or Mach-O, which a shell cannot read

    def program(self) -> list[str]:
        """Return the first part of the command line, up to the arguments.

        execve rejects an APE (ENOEXEC); a shell can start it. /bin/sh execs the
        program in place, so the pid is the engine's.

        Source: mozilla-ai/llamafile#7, Significant-Gravitas/AutoGPT#7637
        """
        if self.engine == "embedded":
            return [self.python, "-m", "tasks.engine.embedded"]
        if self.engine == "llama-server":
            return [self.exe]
        file = self.model if self.engine == "self" else self.exe
        if self.native or self.platform == "win32":
            return [file]
        return ["/bin/sh", file]

    def version_command(self) -> list[str]:
        """Return the command that prints the version, to prove that it runs (R8)."""
        return [*self.program(), "--version"]


def parse_version(text: str) -> str:
    """Return the version in the output of `--version`, or an empty string."""
    match = re.search(r"\bv(\d+(?:\.\d+)+)", text)
    return match.group(1) if match else ""


def parse_build(text: str) -> str:
    """Return llama.cpp's build number in the output of `--version`, or "".

    It is `version: 11669 (5e1b7c9)`, or from a distribution
    `version: 0.7.0 (build 11669, commit Debian)`.
    """
    match = re.search(r"^version: (?:.*\bbuild )?(\d+)\b(?!\.)", text, re.MULTILINE)
    return match.group(1) if match else ""


def version_in(engine: str, output: str) -> str:
    """Return the version that an engine prints with `--version`, or an empty string."""
    if engine == "llama-server":
        return parse_build(output)
    return parse_version(output)


def version_tuple(version: str | None) -> Version | None:
    """Convert `0.8.6` to numbers; None for an unknown version."""
    if not version:
        return None
    return tuple(int(part) for part in re.findall(r"\d+", version))


def serve_command(
    launch: Launch,
    settings: ServeSettings,
    *,
    version: str | None,
    more: Sequence[str] = (),
    extra: Sequence[str] = (),
    key_file: str = "",
) -> list[str]:
    """Return the command line that serves a model (R10, R11).

    Args:
        settings: all levels merged; the port is resolved.
        version: the engine's; None where it is unknown.
        more: further options of the recipe.
        extra: arguments passed through unchanged. They come last, to override.
        key_file: path of a file with the API key. llamafile has read it since 0.6
            (server.cpp --api-key-file). `ps` does not show it (R30).

    Raises:
        ServerError: the engine does not support a setting.
    """
    known = llamafile_version(launch.engine, version)
    _check_gpu(settings, version, known)
    _check_paths(launch)
    argv = launch.program()
    if launch.engine != "llama-server":
        argv.append("--server")
    if known is not None and known < NOBROWSER_GONE:
        argv.append("--nobrowser")
        if known >= OWN_LOG_SINCE:
            argv.append("--log-disable")
    if key_file:
        argv += ["--api-key-file", key_file]
    if launch.engine != "self":
        argv += ["-m", launch.model]
    argv += companion_options(
        launch.engine, launch.companions, version_tuple(version), launch.platform
    )
    argv += _engine_options(launch.engine, settings)
    argv += feature_options(
        launch.engine, launch.kind, settings, version_tuple(version)
    )
    return [*argv, *more, *settings.args, *extra]


def model_options(
    launch: Launch, settings: ServeSettings, version: str | None
) -> tuple[str, ...]:
    """Return the options of a model that is one of several behind a server.

    The address and /metrics are those of the one server.

    Raises:
        ServerError: the engine does not support a setting.
    """
    alone = replace(settings, metrics=None)
    words = serve_command(launch, alone, version=version)[len(launch.program()) :]
    address = words.index("--host")
    del words[address : address + len(("--host", "H", "--port", "P"))]
    return tuple(words)


def llamafile_version(engine: str, version: str | None) -> Version | None:
    """Return the version of llamafile; None for an unknown one, or another engine."""
    if engine in ("self", "llamafile"):
        return version_tuple(version)
    return None


def _engine_options(engine: str, settings: ServeSettings) -> list[str]:
    if engine == "llama-server":
        return _llama_server_options(settings)
    return _setting_options(settings)


def _llama_server_options(settings: ServeSettings) -> list[str]:
    """Return the settings as options of llama-server, which lacks `--gpu`.

    It has the GPU backends that it was built with; a kind of GPU selects none of them.
    """
    options = _setting_options(replace(settings, gpu=None))
    if settings.gpu == "disable":
        options += ["--device", "none"]
    elif settings.gpu not in (None, "auto") and settings.ngl is None:
        # without -ngl, it does not report a missing GPU
        options += ["-ngl", "auto"]
    return options


def _setting_options(settings: ServeSettings) -> list[str]:
    options = {
        "--host": settings.host,
        "--port": settings.port,
        "--ctx-size": settings.ctx_size,
        "--n-predict": settings.n_predict,
        "-ngl": settings.ngl,
        "--gpu": settings.gpu,
        "--threads": settings.threads,
    }
    argv = []
    for option, value in options.items():
        if value is not None:
            argv += [option, str(value)]
    return argv


def _check_gpu(
    settings: ServeSettings, version: str | None, known: Version | None
) -> None:
    if settings.gpu == "vulkan" and known is not None and known < VULKAN_SINCE:
        raise ServerError(
            f"llamafile {version} does not support --gpu vulkan, which needs 0.10",
            fix="use --gpu auto, or --engine llamafile for the version in models.yaml",
        )


def _check_paths(launch: Launch) -> None:
    """Reject a path that llamafile cannot open.

    Source: llamafile.c splits the path of -m at its first @, to name a file in a zip
    """
    if launch.engine not in ("self", "llamafile"):
        return
    paths = [one.path for one in launch.companions if one.role != TEMPLATE]
    if launch.engine == "llamafile":
        paths.insert(0, launch.model)
    for path in paths:
        if "@" in path:
            raise ServerError(
                f"llamafile cannot open {path}: it ends a path at the first @",
                fix="move it to a path without @ (LLAMAFILE_CACHE is the cache's path)",
            )
