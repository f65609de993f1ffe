"""Find the llama-server that models.yaml names: a program, or a release's archive.

Pure. docs/engines.md has the rule of the archives as a table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact, engine_dir
from tasks.catalogue.constraints import ARCHIVE_GPUS, LATEST
from tasks.catalogue.engine_choice import installed_engines
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import absolute_source, adoption_folders, llamafile_exe
from tasks.catalogue.types import Catalogue, FileSpec
from tasks.errors import UsageError
from tasks.system.paths import inside
from tasks.urls import filename_of

NAME = "llama-server"
UNPACKED = ".unpacked"  # ends the name of the folder beside an archive
PROGRAMS = "bin"  # the folder of an unpacked archive that has the program
_PIN = "`doit lock --model llama-server`, and commit models.lock"
_SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
_CPUS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class ArchiveChoice(NamedTuple):
    """An archive by what it is for, and why it was chosen."""

    place: str  # a key of `archives:`; empty: none is for this machine
    reason: str


class PinnedServer(NamedTuple):
    """The llama-server that models.yaml names."""

    program: Artifact
    archive: Artifact | None = None  # that contains it; None for `path:`
    reason: str = ""


def place_of(platform: str, machine: str) -> str:
    """Return system and CPU as in `archives:`.

    Args:
        platform: as in sys.platform.
        machine: as platform.machine() returns it.
    """
    cpu = machine.lower()
    return f"{_SYSTEMS.get(platform, platform)}-{_CPUS.get(cpu, cpu)}"


def choose_archive(
    archives: Collection[str], place: str, gpu: str | None, found: Collection[str]
) -> ArchiveChoice:
    """Return the archive for a machine.

    `gpu:` decides. Without it, NVIDIA's comes before Vulkan's, each only if the machine
    has such a GPU; then the one for the CPU, which on macOS uses Metal.

    Args:
        archives: the keys of `archives:`.
        place: system and CPU.
        gpu: of the entry; None as `auto`.
        found: kinds of GPUs of the machine, of `nvidia` and `vulkan`.
    """
    if gpu in ("disable", "apple"):
        return _only(archives, place, f"gpu: {gpu}")
    if gpu not in (None, "auto"):
        return _only(archives, f"{place}-{gpu}", f"gpu: {gpu}")
    for kind in ("nvidia", "vulkan"):
        name = f"{place}-{kind}"
        if kind in found and name in archives:
            return ArchiveChoice(name, f"this machine has {_TITLES[kind]}")
    return _only(archives, place, "no GPU with an archive of its own was found")


_TITLES = {"nvidia": "an NVIDIA GPU", "vulkan": "a GPU with Vulkan"}


def _only(archives: Collection[str], name: str, reason: str) -> ArchiveChoice:
    if name in archives:
        return ArchiveChoice(name, reason)
    return ArchiveChoice("", f"there is no archive {name}")


def pinned_engines(catalogue: Catalogue, environment: Environment) -> tuple[str, ...]:
    """Return the engines that models.yaml names for .gguf files on this machine."""
    found = []
    if catalogue.has_engine("llamafile") and catalogue.engine("llamafile").url:
        found.append("llamafile")
    here = place_of(environment.platform, environment.machine)
    has_archive = any(place.startswith(here) for place in catalogue.archives(NAME))
    if has_archive or (catalogue.has_engine(NAME) and catalogue.engine(NAME).path):
        found.append(NAME)
    return tuple(found)


def usable_engines(catalogue: Catalogue, environment: Environment) -> tuple[str, ...]:
    """Return the engines that are on this machine, or that models.yaml pins for it."""
    return installed_engines(environment, pinned_engines(catalogue, environment))


def _choice(catalogue: Catalogue, environment: Environment) -> ArchiveChoice:
    archives = catalogue.archives(NAME)
    place = place_of(environment.platform, environment.machine)
    gpu = catalogue.engine(NAME).gpu
    found = []
    # finding a GPU starts a program, or reads folders
    if gpu in (None, "auto"):
        if f"{place}-nvidia" in archives and environment.gpu_memory():
            found.append("nvidia")
        if f"{place}-vulkan" in archives and environment.has_vulkan():
            found.append("vulkan")
    return choose_archive(archives, place, gpu, found)


def pinned_server(
    catalogue: Catalogue, environment: Environment
) -> PinnedServer | None:
    """Return the llama-server that models.yaml names; None: that on PATH is used.

    Raises:
        UsageError: `path:` names no file, no archive is for this machine, or it is not
            pinned.
    """
    if not catalogue.has_engine(NAME):
        return None
    engine = catalogue.engine(NAME)
    if engine.path:
        path = environment.absolute(engine.path, environment.root)
        if not environment.first_bytes(path):
            what = f"{catalogue.where}: engines.{NAME}.path: no such program: {path}"
            raise UsageError(what, fix="correct `path:`, or remove it")
        program = Artifact(NAME, (), path, in_cache=False)
        return PinnedServer(program, reason=f"`path:` of engines.{NAME}")
    archives = catalogue.archives(NAME)
    if not archives:
        return None
    place, reason = _choice(catalogue, environment)
    if not place:
        here = place_of(environment.platform, environment.machine)
        known = ", ".join(archives)
        what = f"{catalogue.where}: engines.{NAME}: {reason}: expected one of {known}"
        missing = here
        gpu = catalogue.engine(NAME).gpu
        if gpu in ARCHIVE_GPUS:
            missing = f"{here}-{gpu}"
        fix = f"add archives.{missing}, or use another engine: --engine embedded"
        raise UsageError(what, fix=fix)
    archive = _archive(place, archives[place], catalogue, environment)
    reason = f"archive {place}: {reason}"
    return PinnedServer(program_in(archive, environment.platform), archive, reason)


def pinned_programs(catalogue: Catalogue, environment: Environment) -> list[Artifact]:
    """Return what `doit exe` installs: each program that models.yaml pins.

    Raises:
        UsageError: the catalogue does not say where one is.
    """
    server = pinned_server(catalogue, environment)
    programs = []
    if server and server.archive:
        programs.append(server.archive)
    if not programs or "llamafile" in pinned_engines(catalogue, environment):
        programs.insert(0, llamafile_exe(catalogue, environment))
    return programs


def program_in(archive: Artifact, platform: str) -> Artifact:
    """Return the program of an archive that is unpacked."""
    return Artifact(archive.label, (), program_path(archive.unpacked, platform))


def program_path(folder: str, platform: str) -> str:
    """Return the path of the program in the folder of an archive."""
    return f"{folder}/{PROGRAMS}/{program_name(platform)}"


def libraries_of(program: str) -> str:
    """Return the folder of the libraries of a release's program; "" for any other."""
    folder = program.replace("\\", "/").rpartition("/")[0]
    if folder.endswith(f"{UNPACKED}/{PROGRAMS}"):
        return folder
    return ""


def program_name(platform: str) -> str:
    """Return the file name of the program."""
    if platform == "win32":
        return f"{NAME}.exe"
    return NAME


def release_archives(
    catalogue: Catalogue, environment: Environment
) -> Iterator[Artifact]:
    """Yield the pinned archives for all systems: a cache may be used by several."""
    for place, file in catalogue.archives(NAME).items():
        if file.sha256:
            yield _archive(place, file, catalogue, environment)


def _archive(
    place: str, file: FileSpec, catalogue: Catalogue, environment: Environment
) -> Artifact:
    """Return the artifact of an archive.

    Raises:
        UsageError: it is not pinned. Its programs are started, and no publisher states
            a digest during a download.
    """
    version = catalogue.engine(NAME).version or ""
    if not file.sha256 or version == LATEST:
        what = f"{catalogue.where}: engines.{NAME}: archive {place} is not pinned"
        raise UsageError(what, fix=_PIN)
    urls = (file.url, *file.mirrors)
    sources = tuple(absolute_source(url, environment, environment.root) for url in urls)
    folder = engine_dir(environment.cache, file.sha256, sources[0])
    target = inside(folder, filename_of(file.url))
    return Artifact(
        f"{NAME} {version} ({place})",
        sources,
        target,
        file.sha256,
        file.size,
        adopt_from=adoption_folders(catalogue, environment),
        unpacked=f"{target}{UNPACKED}",
    )
