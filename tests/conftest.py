"""Every test is hermetic: sockets reach loopback only, nothing of the user's environment or cache is seen."""

from __future__ import annotations

import gc
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import fork_server
from tests.support.fake_engines import odd, start
from tests.support.fixtures import mount, servers
from tests.support.llama_server import llama_server
from tests.support.project import Project
from tests.support.shared_modules import mould
from tests.support.users import public, shared, user

# fixtures of several modules
__all__ = ["llama_server", "mount", "odd", "public", "servers", "shared", "start", "user"]

_SCRUBBED = (
    *("LLAMAFILE_", "HF_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"),
    *("CURL_CA_BUNDLE", "SSL_CERT_", "CI", "NO_COLOR", "GITHUB_", "GITLAB_", "DOIT_", "LC_FAKE_LLAMAFILE"),
)
_LOOPBACK = ("127.", "::1", "localhost")


# CI always tries the same examples; by hand each run tries others
_QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("hand", deadline=None, max_examples=50, suppress_health_check=_QUIET)
settings.register_profile("ci", settings.get_profile("hand"), derandomize=True, max_examples=25)
settings.load_profile("hand")


class NetworkRefused(AssertionError):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True)
def _hermetic(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.upper().startswith(_SCRUBBED):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "no-home"  # of the tests that have no folder
    if "tmp_path" in request.fixturenames:
        home = request.getfixturevalue("tmp_path") / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local" / "state"))
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_LOOPBACK):
            raise NetworkRefused(f"a test connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A temporary copy of the recipe with a cache and a home of its own."""
    made = Project(tmp_path)
    made.forks = request.node.get_closest_marker("smoke") is None  # these start the script itself
    return made


def pytest_collection_finish() -> None:
    """Exempt the collected tests and the modules from garbage collection: they stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What this process's projects linked and forked goes with it (xdist's workers run no atexit)."""
    fork_server.close()
    if mould.cache_info().currsize:
        shutil.rmtree(mould(), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the chain, put the slowest first, and skip what needs /bin/sh where there is none."""
    for item in items:
        runs_doit = isinstance(item, pytest.Function) and Project in vars(item.module).values()
        if runs_doit and not item.get_closest_marker("smoke"):
            item.add_marker("chain")
        if isinstance(item, pytest.Function) and getattr(item.obj, "is_hypothesis_test", False):
            item.add_marker("once")  # many examples, of what has rows for every Python
    items.sort(key=lambda item: item.get_closest_marker("fresh") is None)
    if os.path.exists("/bin/sh"):
        return
    skip = pytest.mark.skip(reason="no /bin/sh to start the fake llamafile with")
    for item in items:
        if (
            item.path.parent.name == "cli"
            or item.path.stem.endswith("_cli")
            or item.path.stem in ("test_fake_llamafile", "test_processes", "test_client")
        ):
            item.add_marker(skip)
