"""Helpers for tests of models.lock: publishers, and catalogues without digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.github import GitHub
from tests.fakes.github import Project as GitHubProject
from tests.fakes.hub_repo import Repo
from tests.fakes.hub_site import HubSite
from tests.fakes.server import FileServer
from tests.support.project import Project, Result

HUB = "https://huggingface.co"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class World:
    """A fake Hub, GitHub and plain server, and a project that uses them."""

    project: Project
    hub: HubSite
    github: GitHub
    server: FileServer
    repo: Repo  # o/r of the Hub
    releases: GitHubProject  # of gh/llamafile

    @property
    def requests(self) -> int:
        """The number of requests to all of them."""
        servers = (self.hub.origin, self.hub.cdn, self.github.origin, self.github.cdn, self.server)
        return sum(len(one.requests) for one in servers)

    @property
    def lock(self) -> Path:
        return self.project.path / "models.lock"

    def locked(self, *options: str) -> str:
        """Run `doit lock OPTIONS`, which must succeed; return its report."""
        result = self.project.doit("lock", *options)
        assert result.status == 0, result.err
        return result.out


def worlds(project: Project) -> Iterator[World]:
    """Yield a world."""
    with HubSite() as hub, GitHub() as github, FileServer() as server:
        project.env["HF_ENDPOINT"] = hub.endpoint
        yield World(project, hub, github, server, hub.repo("o/r"), github.repo("gh/llamafile"))


def entry(**keys: Any) -> dict[str, Any]:
    """Return a catalogue entry with only these keys."""
    return {"title": "A model", "license": "MIT", **keys}


def failed(result: Result, status: int = 1) -> str:
    """Return the error of a command that failed."""
    assert result.status == status, result
    return result.err[result.err.index("ERROR: ") :]
