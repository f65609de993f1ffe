"""Run a project's `doit` as another user, if the tests run as root."""

from __future__ import annotations

import copy
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.project import Project

UIDS = (61_001, 61_002)  # neither has an entry in the system's list of users
# Where the interpreter lies in root's home, a user sees that home with nothing else in it; only the command
# and its children have these mounts.
_OPEN = """\
mkdir -p {place}/python && mount --bind {base} {place}/python && mount -t tmpfs -o mode=755 none {closed} &&
mkdir -p {base} && mount --move {place}/python {base} || exit 70
"""


def _closed_parent(path: str) -> str:
    """Return the highest folder above a path that other users cannot enter; "" if there is none."""
    parents = [parent for parent in reversed(Path(path).parents) if parent != Path("/")]
    return next((str(parent) for parent in parents if not parent.stat().st_mode & 0o001), "")


def _script(uid: int, command: str, place: Path) -> str:
    user = f"exec setpriv --reuid {uid} --regid {uid} --clear-groups {command}"
    base = os.path.realpath(sys.base_prefix)
    closed = _closed_parent(base)
    if not closed:
        return f'#!/bin/sh\n{user} "$@"\n'
    names = {"place": place, "base": base, "closed": closed}
    steps = _OPEN.format(**{name: shlex.quote(str(value)) for name, value in names.items()})
    inner = shlex.quote(f'{steps}{user} "$@"')
    return f'#!/bin/sh\nexec unshare --mount sh -c {inner} sh "$@"\n'


def _as_user(uid: int, project: Project, folder: Path) -> Project:
    """Return the project with commands that run as another user, with its own HOME and TMPDIR."""
    made = copy.copy(project)
    script = folder / f"doit-{uid}"
    script.write_text(_script(uid, shlex.quote(project.doit_program), folder / "mounts"))
    script.chmod(0o755)
    made.doit_program = str(script)
    made.env = dict(project.env)
    for name, variable in (("home", "HOME"), ("tmp", "TMPDIR")):
        own = folder / f"{name}-{uid}"
        own.mkdir()
        os.chown(own, uid, uid)
        made.env[variable] = str(own)
    return made


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a directory that every user can enter; only root can enter pytest's."""
    with tempfile.TemporaryDirectory(prefix="recipe-users-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def shared(public: Path) -> Iterator[Project]:
    """Yield a project and a cache that other users can access."""
    if os.name == "nt" or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("running as another user needs root and setpriv")
    project = Project(public)
    try:
        yield project
    finally:
        for process in project.processes():
            process.kill()


AsUser = Callable[[int], Project]


@pytest.fixture
def user(shared: Project, public: Path) -> AsUser:
    """Return a function that runs the shared project's commands as one of two other users."""

    def make(number: int) -> Project:
        python = f"{shlex.quote(sys.executable)} -SE -c pass"
        words = ["sh", "-c", _script(UIDS[number], python, public / "mounts").partition("\n")[2]]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot run as another user here: {done.stderr.decode().strip()}")
        return _as_user(UIDS[number], shared, public)

    return make
