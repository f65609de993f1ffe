"""`doit verify`: check that a model's engine runs here, with `--version` (R8)."""

from __future__ import annotations

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_choice import alternatives
from tasks.catalogue.engine_release import usable_engines
from tasks.catalogue.resolve import ResolvedModel
from tasks.context import Context
from tasks.engine import companions, file_format
from tasks.engine.launch_spec import given_files
from tasks.engine.version import (
    ask_version,
    check_installed,
    engine_version,
    launch_of,
    record_version,
    recorded_version,
)


def is_proven(context: Context, resolved: ResolvedModel) -> bool:
    """Whether the engine has run with exactly these bytes, companions included."""
    cache = context.environment.cache
    if resolved.engine == "llama-server" and resolved.program is None:
        return False
    return all(
        recorded_version(cache, file, name) is not None
        for file, name in _proofs(resolved)
    )


def _proofs(resolved: ResolvedModel) -> list[tuple[Artifact, str]]:
    """Return the files whose stamps record a version, each with the name for it."""
    files = [resolved.artifact]
    if resolved.program and not resolved.exe:
        files.append(resolved.program)
    proofs = [(file, resolved.engine) for file in files]
    for companion, file in companions.artifacts(resolved):
        proofs.append((file, companions.proof_name(resolved, companion)))
    return proofs


def run(context: Context, resolved: ResolvedModel) -> None:
    """Ask the engine for its version and write it into the model's stamp.

    Raises:
        ServerError: the engine is not installed, or does not run here.
        IntegrityError: the model has a format that the engine does not read.
    """
    cache = context.environment.cache
    check_installed(resolved)
    file_format.check_format(resolved.artifact, resolved.engine)
    companions.check_files(resolved)
    if resolved.engine == "llamafile":
        # the task `exe` has run the program
        version = context.catalogue.engine("llamafile").version or ""
    elif resolved.exe:
        version = engine_version(cache, context.catalogue, resolved)
    else:
        launch = launch_of(context.environment.platform, resolved)
        installed = usable_engines(context.catalogue, context.environment)
        others = alternatives(resolved.engine, installed, is_gguf=resolved.is_gguf)
        given = given_files(resolved)
        version = ask_version(resolved.name, launch, cache, given, others)
    if resolved.engine == "self":
        _warn_of_other(context, resolved, version)
    for file, name in _proofs(resolved):
        record_version(cache, file, name, version)


def _warn_of_other(context: Context, resolved: ResolvedModel, version: str) -> None:
    """Warn if a llamafile's version is not the one in models.yaml."""
    expected = resolved.model.engine_version
    if not expected or not version or f"{version}.".startswith(f"{expected}."):
        return
    text = "%s says llamafile %s; %s says %s"
    where = context.catalogue.where
    doit_adapter.log().warning(text, resolved.name, version, where, expected)
