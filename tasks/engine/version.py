"""Start an engine, ask for its version, and record that in the stamp."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping

from tasks import ROOT, doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.catalogue.endpoints import ResolvedEndpoint
from tasks.catalogue.engine_choice import LLAMA_SERVER_MISSING, install_llama_server
from tasks.catalogue.engine_release import libraries_of
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.types import Catalogue
from tasks.engine import capabilities, command
from tasks.engine.environment import (
    engine_environment,
    no_user_config,
    own_libraries_first,
)
from tasks.engine.file_format import native_program
from tasks.errors import ServerError
from tasks.system import files, own_files, packages, processes


def launch_of(system: str, resolved: ResolvedModel) -> command.Launch:
    """Return how to start the job's engine on this machine."""
    program = resolved.artifact.target
    exe = ""
    if separate := resolved.program or resolved.exe:
        program = separate.target
        exe = program
    return command.Launch(
        engine=resolved.engine,
        platform=system,
        model=resolved.artifact.target,
        exe=exe,
        python=sys.executable,
        companions=resolved.companions,
        kind=resolved.model.kind,
        native=bool(native_program(program)),
    )


def check_installed(resolved: ResolvedModel) -> None:
    """Check that llama-server is installed, if it is the engine.

    Raises:
        ServerError: it is not on PATH.
    """
    if resolved.engine == "llama-server" and resolved.program is None:
        what = f"{resolved.name}: {LLAMA_SERVER_MISSING}"
        has_embedded = packages.has_package("xllamacpp")
        raise ServerError(what, fix=install_llama_server(has_embedded=has_embedded))


def engine_env(
    engine: str, more: Mapping[str, str] | None = None, program: str = ""
) -> dict[str, str]:
    """Return an engine's environment; the embedded one must find this project.

    Args:
        more: variables that the recipe or models.yaml sets.
        program: path of the engine's program, if it has one.
    """
    more = {**no_user_config(sys.platform), **(more or {})}
    if engine == "embedded":
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        more = {**more, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    env = engine_environment(os.environ, more)
    return own_libraries_first(env, libraries_of(program))


def engine_cwd(engine: str, folder: str) -> str:
    """Return an engine's working directory.

    Old engines write a llama.log there. `python -m` imports from the working directory
    first, so the embedded engine gets the recipe's own: a `signal.py` in the cache must
    not be imported.

    Args:
        folder: the directory for other engines.
    """
    return str(ROOT) if engine == "embedded" else folder


@contextlib.contextmanager
def run_dir(cache: str) -> Iterator[str]:
    """Provide a working directory for `--version`.

    It is in the cache, or a temporary one where the cache is read-only.
    """
    folder = os.path.join(cache, "run")
    with contextlib.suppress(OSError):
        own_files.make_folder(cache, "run")
    writable = os.path.isdir(folder) and os.access(folder, os.W_OK)
    if writable and not os.path.islink(folder):
        yield folder
    else:
        with files.temporary_folder() as temporary:
            yield temporary


def recorded_version(cache: str, artifact: Artifact, engine: str) -> str | None:
    """Return the version that is recorded for these bytes; None without one."""
    stamp = stamps.proof(cache, artifact)
    return stamp.engines.get(engine) if stamp else None


def engine_version(cache: str, catalogue: Catalogue, resolved: ResolvedModel) -> str:
    """Return the version of the job's engine: the recorded one, else models.yaml's."""
    program = resolved.exe or resolved.program or resolved.artifact
    recorded = recorded_version(cache, program, resolved.engine)
    if recorded:
        return recorded
    if resolved.exe:
        # a tag of llama.cpp is `b` and the build number
        return (catalogue.engine(resolved.engine).version or "").removeprefix("b")
    if resolved.engine == "llama-server":
        return ""
    return resolved.model.engine_version or ""


def expected_version(cache: str, catalogue: Catalogue, resolved: ResolvedModel) -> str:
    """Return the version of the job's engine, before it has run; "" if unknown."""
    if resolved.engine == "embedded":
        return packages.package_version("xllamacpp")
    return engine_version(cache, catalogue, resolved)


def feature_problems(
    cache: str, catalogue: Catalogue, jobs: Iterable[ResolvedModel]
) -> list[tuple[str, str]]:
    """Return (what, fix) for each key that a job's engine does not have."""
    problems = []
    for resolved in jobs:
        if not capabilities.features_of(resolved):
            continue
        version = expected_version(cache, catalogue, resolved)
        problems += capabilities.feature_problems(resolved, version)
    return problems


def router_problems(
    cache: str, catalogue: Catalogue, endpoints: Iterable[ResolvedEndpoint]
) -> list[tuple[str, str]]:
    """Return (what, fix) for each endpoint whose llama-server is too old for it."""
    problems = []
    for one in endpoints:
        if one.program is not None:
            version = expected_version(cache, catalogue, one.default)
            problems += capabilities.router_problems(one.name, version)
    return problems


def ask_version(
    name: str,
    launch: command.Launch,
    cache: str,
    given: Iterable[Artifact],
    others: str = "",
) -> str:
    """Run `--version`; return the version, or an empty string if none is printed.

    Args:
        given: the files that the program consists of, or reads.
        others: other engines, for the error.

    Raises:
        ServerError: the program cannot be started, fails, or exceeds the time limit.
        IntegrityError: a file is not the one that was verified.
    """
    from tasks.engine import failures

    argv = launch.version_command()
    stamps.check_unchanged(cache, given)
    try:
        with run_dir(cache) as folder:
            cwd = engine_cwd(launch.engine, folder)
            env = engine_env(launch.engine, program=launch.exe)
            ending = processes.run(argv, env=env, cwd=cwd)
    except OSError as error:
        failed = failures.launch_error(name, argv, error, launch.platform)
        raise _with_format(failed, launch, argv[0], error) from None
    if ending.status != 0:
        what = f"{name} does not run here"
        if ending.status is None:
            limit = f"{processes.VERSION_S:.0f} s"
            what = f"{name} did not print its version within {limit}"
        failed = failures.engine_error(what, ending, launch.platform)
        raise failures.with_alternatives(failed, ending, launch.platform, others)
    output = "no version printed"
    if ending.output:
        output = ending.output.splitlines()[0]
    doit_adapter.log().info("%s: engine OK, %s", name, output)
    return command.version_in(launch.engine, ending.output)


def _with_format(
    failed: ServerError, launch: command.Launch, program: str, error: OSError
) -> ServerError:
    """Name the format of a native program that this system cannot start."""
    file_format = native_program(program)
    if error.errno != errno.ENOEXEC or not file_format:
        return failed
    here = f"{sys.platform} on {platform.machine()}"
    facts = [*failed.facts, ("program", file_format), ("this machine", here)]
    fix = failed.fix
    if launch.engine != "llama-server":
        fix = (
            "use the llamafile as it was published: "
            "before `--assimilate` it runs everywhere"
        )
    return ServerError(failed.what, facts, fix)


def record_version(cache: str, artifact: Artifact, engine: str, version: str) -> None:
    """Record in the stamp that the engine works with these bytes.

    Raises:
        IntegrityError: the file was changed or replaced while the engine ran.
    """
    stamps.check_unchanged(cache, [artifact])
    stat = files.stat(artifact.target)
    stamp = stamps.proof(cache, artifact)
    if stat is not None and stamp is None:
        # a user's file, which needs no verification
        stamp = Stamp(stat, None, artifact.target, {})
    if stamp is not None:
        stamps.write_stamp(cache, artifact, stamp.with_engine(engine, version))
