"""The cache's directory and its stamps: what was verified about each file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

from tasks.catalogue.artifact import Artifact, Stamp, State, judge_target, parse_stamp, stamp_data, stamp_path
from tasks.errors import IntegrityError, RecipeError, UsageError
from tasks.system import own_files
from tasks.system.files import MOST_JSON, _expanded, setting_path, stat, write_atomic

_UNWRITTEN: dict[str, Stamp] = {}  # of a read-only cache, by path: this process has read the files

_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory is a cache (https://bford.info/cachedir/): backups may leave it out.\n"
)
_README = (
    "Models and engines fetched by llamafile-recipe. Everything here can be fetched again;\n"
    "`doit` in the recipe's folder shows what is here, and `doit prune` frees space.\n"
)


def cache_root(env: Mapping[str, str], cwd: str) -> str:
    """LLAMAFILE_CACHE, else the platform's directory for caches; absolute.

    Raises UsageError: neither is known.
    """
    if given := setting_path(env, "LLAMAFILE_CACHE", cwd):
        return given
    from platformdirs import user_cache_dir

    found = ""
    if os.path.isabs(env.get("XDG_CACHE_HOME", "")) or _expanded("~", env):
        with contextlib.suppress(RuntimeError, OSError):
            found = user_cache_dir("llamafile-recipe", appauthor=False)
    if not os.path.isabs(found):
        what = "there is no home directory in which to keep a cache"
        raise UsageError(what, fix="set LLAMAFILE_CACHE to a directory, or HOME")
    return found


def make_cache(root: str) -> None:
    """Create the cache with the tag that keeps it out of backups. Raises OSError."""
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("CACHEDIR.TAG", _CACHEDIR_TAG), ("README.txt", _README)):
        if not (folder / name).exists():
            write_atomic(folder / name, text)


def is_cache(root: str) -> bool:
    """Whether the directory was made by `make_cache`: has its tag, and the first line of its README."""
    files = (("CACHEDIR.TAG", _CACHEDIR_TAG), ("README.txt", _README))
    found = [(own_files.read_most(os.path.join(root, name), 64 * 1024), text) for name, text in files]
    return all(data is not None and _first_line(data) == _first_line(text.encode()) for data, text in found)


def cannot_write(cache: str, error: OSError) -> RecipeError:
    """The error that says what to do about it."""
    what = f"cannot write to the cache {cache}: {error.strerror or error}"
    return RecipeError(what, fix="set LLAMAFILE_CACHE to a directory you can write to")


def read_stamp(cache: str, artifact: Artifact) -> Stamp | None:
    """What was proven about the artifact's target, if anything was."""
    path = stamp_path(cache, artifact)
    return _UNWRITTEN.get(path) or parse_stamp(_read_own_json(path))


def write_stamp(cache: str, artifact: Artifact, stamp: Stamp) -> bool:
    """Keep what was proven; False where the cache is read-only, so that only this process knows it."""
    path, data = stamp_path(cache, artifact), stamp_data(stamp)
    own_files.check_inside(cache, path)
    try:
        write_atomic(path, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        _UNWRITTEN[path] = stamp
        return False
    _UNWRITTEN.pop(path, None)
    return True


def state(cache: str, artifact: Artifact) -> State:
    """What lies at the target, by a stat call and a small file."""
    return judge_target(artifact, stat(artifact.target), read_stamp(cache, artifact))


def _first_line(data: bytes) -> bytes:
    return data.partition(b"\n")[0].rstrip(b"\r")


def _read_own_json(path: str) -> Any:
    """The JSON in a regular file that nobody but this user and root can have written; else None.

    Others may have a folder of the cache in common with us: what they write there proves nothing.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(path, encoding="utf-8", opener=lambda name, _: os.open(name, flags)) as file:
            found = os.fstat(file.fileno())
            mine = not hasattr(os, "geteuid") or found.st_uid in (0, os.geteuid())
            if not mine or not S_ISREG(found.st_mode) or found.st_size > MOST_JSON:
                return None
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return None


def proof(cache: str, artifact: Artifact) -> Stamp | None:
    """The stamp, where it was written for the very file that lies there, with the digest asked for."""
    found, stamp = stat(artifact.target), read_stamp(cache, artifact)
    fresh = judge_target(artifact, found, stamp) is State.FRESH
    return stamp if fresh and stamp is not None and stamp.stat == found else None


def check_unchanged(cache: str, artifacts: Iterable[Artifact]) -> None:
    """Compare each file once more with its pin, right before a program is given it.

    Raises IntegrityError: one is not what was proven.
    """
    for artifact in artifacts:
        found, stamp = stat(artifact.target), read_stamp(cache, artifact)
        if judge_target(artifact, found, stamp) is State.FRESH:
            continue
        got = "no such file" if found is None else "a file that was changed or replaced since"
        pin = artifact.sha256 or (stamp.sha256 if stamp else None)
        expected = f"sha256:{pin}" if pin else "the file that was proven"
        raise IntegrityError(
            f"{artifact.label}: {artifact.target} is not the file that was proven",
            [("expected", expected), ("got", got)],
            fix="run it again: the file is read, and fetched again if it is wrong",
        )
