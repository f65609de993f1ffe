"""What a command line allows to be downloaded. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import ResolvedModel


class DownloadPolicy(NamedTuple):
    """Which downloads are allowed, and what the error for another one says."""

    frozen: bool  # only files with a pinned digest
    offline: str  # the variable that forbids network access, or empty
    needed: tuple[Artifact, ...] = ()  # all files of the command line
    pins: Mapping[str, str] = {}  # path of a model's file → what pins its digest
    engine_fix: str = ""  # how to do without the engine's program, if that is possible

    def pin_fix(self, artifact: Artifact) -> str:
        """Return the command or option that pins an artifact."""
        program = "`doit lock --model llamafile`, and commit models.lock"
        return self.pins.get(artifact.target, program)


def download_policy(
    jobs: Collection[ResolvedModel],
    catalogued: Collection[str],
    *,
    frozen: bool,
    offline: str,
) -> DownloadPolicy:
    """Return the policy for the jobs of a command line.

    Args:
        catalogued: names of all models in the catalogue.
    """
    files: list[Artifact] = []
    programs: list[Artifact] = []
    pins: dict[str, str] = {}
    for resolved in jobs:
        files += resolved.files
        if resolved.exe:
            programs.append(resolved.exe)
            lock = f"`doit lock --model {resolved.engine}`, and commit models.lock"
            pins[resolved.exe.target] = lock
        for file in resolved.files:
            pins.setdefault(file.target, _pin_fix(resolved, catalogued))
    needed = (*files, *programs)
    return DownloadPolicy(frozen, offline, needed, pins, _engine_fix(jobs))


def _engine_fix(jobs: Iterable[ResolvedModel]) -> str:
    """Return the fix where a GGUF has an engine that may have to be downloaded."""
    if not any(resolved.exe and resolved.is_gguf for resolved in jobs):
        return ""
    return "--engine embedded serves a .gguf without it (pip install '.[embedded]')"


def _pin_fix(resolved: ResolvedModel, catalogued: Collection[str]) -> str:
    if (
        resolved.name in catalogued
        and resolved.artifact.in_cache
        and not resolved.confirmation
    ):
        return f"`doit lock --model {resolved.name}`, and commit models.lock"
    return "--sha256 HEX"
