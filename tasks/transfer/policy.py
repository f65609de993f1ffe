"""What a command line allows to be downloaded. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.resolve import Job


class DownloadPolicy(NamedTuple):
    """Which downloads are allowed, and what the error for another one says."""

    frozen: bool  # only files with a pinned digest
    offline: str  # the variable that forbids network access, or empty
    needed: tuple[Artifact, ...] = ()  # all files of the command line
    pins: Mapping[str, str] = {}  # path of a model's file → what pins its digest

    def pin_fix(self, artifact: Artifact) -> str:
        """Return the command or option that pins an artifact."""
        program = "doit lock --model llamafile, and commit models.lock"
        return self.pins.get(artifact.target, program)


def download_policy(
    jobs: Iterable[Job], catalogued: Collection[str], *, frozen: bool, offline: str
) -> DownloadPolicy:
    """Return the policy for the jobs of a command line.

    Args:
        catalogued: names of all models in the catalogue.
    """
    files: list[Artifact] = []
    programs: list[Artifact] = []
    pins: dict[str, str] = {}
    for job in jobs:
        files += job.files
        if job.exe:
            programs.append(job.exe)
        for file in job.files:
            pins.setdefault(file.target, _pin_fix(job, catalogued))
    return DownloadPolicy(frozen, offline, (*files, *programs), pins)


def _pin_fix(job: Job, catalogued: Collection[str]) -> str:
    if job.name in catalogued and job.artifact.owned and not job.question:
        return f"doit lock --model {job.name}, and commit models.lock"
    return "--sha256 HEX"
