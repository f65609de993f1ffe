"""Which engine serves a model, how it is started, and which version it has."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator

from tasks import ROOT, doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.catalogue.resolve import Job
from tasks.catalogue.types import Catalogue
from tasks.engine import command, failures
from tasks.engine.environment import engine_environment
from tasks.system import files, processes


def launch_of(platform: str, job: Job) -> command.Launch:
    """How the job's engine is started here."""
    exe = job.exe.target if job.exe else ""
    return command.Launch(job.engine, platform, job.artifact.target, exe, sys.executable, job.mmproj)


def engine_env(engine: str, **more: str) -> dict[str, str]:
    """The environment of an engine; the embedded one is a module of this project."""
    if engine == "embedded":
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        more = {**more, "PYTHONPATH": path}
    return engine_environment(os.environ, **more)


def engine_cwd(engine: str, folder: str) -> str:
    """The working directory of an engine: a folder where it may leave files (old ones write a llama.log).

    `python -m` imports from the working directory first, so the embedded one gets the recipe's own: in the
    cache a `signal.py` of somebody else would be run.
    """
    return str(ROOT) if engine == "embedded" else folder


@contextlib.contextmanager
def run_dir(cache: str) -> Iterator[str]:
    """Where an engine is asked (old ones leave a llama.log): in the cache, unless that is read-only."""
    folder = os.path.join(cache, "run")
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    if os.path.isdir(folder) and os.access(folder, os.W_OK) and not os.path.islink(folder):
        yield folder
    else:
        from tasks.engine import server_registry

        with server_registry.temporary_folder() as temporary:
            yield temporary


def proven_version(cache: str, artifact: Artifact, engine: str) -> str | None:
    """The version an engine said for these bytes; None where they are others than those asked for."""
    stamp = stamps.proof(cache, artifact)
    return stamp.engines.get(engine) if stamp else None


def engine_version(cache: str, catalogue: Catalogue, job: Job) -> str:
    """The version of what will serve the job: what it said itself, else what models.yaml says."""
    said = proven_version(cache, job.exe or job.artifact, job.engine)
    hint = catalogue.engine("llamafile").version if job.exe else job.model.engine_version
    return said or hint or ""


def ask_version(name: str, launch: command.Launch, cache: str, given: Iterable[Artifact]) -> str:
    """Run `--version`; the version, or nothing where the answer has none.

    Args:
        given: the files that the program is, or reads.

    Raises:
        ServerError: it cannot be run, fails, or does not come to an end.
        IntegrityError: one of its files is not the one that was proven.
    """
    from tasks.engine.failures import failed_start

    words = launch.version_command()
    stamps.check_unchanged(cache, given)
    try:
        with run_dir(cache) as folder:
            cwd = engine_cwd(launch.engine, folder)
            ending = processes.run(words, env=engine_env(launch.engine), cwd=cwd)
    except OSError as error:
        raise failed_start(name, words, error, launch.platform) from None
    if ending.status is None:
        raise failures.failure(
            f"{name} did not say its version within {processes.VERSION_S:.0f} s", ending, launch.platform
        )
    if ending.status != 0:
        raise failures.failure(f"{name} does not run here", ending, launch.platform)
    version = command.parse_version(ending.output)
    doit_adapter.log().info(
        "%s runs here: %s", name, ending.output.splitlines()[0] if ending.output else "no version said"
    )
    return version


def keep_version(cache: str, artifact: Artifact, engine: str, version: str) -> None:
    """Note in the stamp that the engine works with these bytes.

    Raises IntegrityError: the file was changed or replaced while the engine ran.
    """
    stamps.check_unchanged(cache, [artifact])
    found, stamp = files.stat(artifact.target), stamps.proof(cache, artifact)
    if found is not None and stamp is None:  # a file of the user's, which needs no proof
        stamp = Stamp(found, None, artifact.target, {})
    if stamp is not None:
        stamps.write_stamp(cache, artifact, stamp.with_engine(engine, version))
