"""The cache directory and its stamps, which record what was verified of each file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

from tasks.catalogue.artifact import (
    Artifact,
    Stamp,
    TargetState,
    compare_target,
    parse_stamp,
    stamp_data,
    stamp_path,
)
from tasks.catalogue.model_format import is_model, text_problem
from tasks.errors import IntegrityError, RecipeError, UsageError
from tasks.system import own_files
from tasks.system.files import (
    MAX_JSON,
    _expanded,
    first_bytes,
    nearest_existing_dir,
    setting_path,
    sha256_file,
    stat,
    write_atomic,
)  # fmt: skip

# stamps that could not be written, by path; valid in the process that read the files
_UNWRITTEN: dict[str, Stamp] = {}

# a cache of another user, a read-only one, a full disk
_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC),
    getattr(errno, "EDQUOT", errno.ENOSPC),
)

_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory is a cache (https://bford.info/cachedir/): "
    "backups may leave it out.\n"
)
_README = (
    "Models and engines fetched by llamafile-recipe. "
    "Everything here can be fetched again;\n"
    "`doit` in the recipe's folder shows what is here, and `doit prune` frees space.\n"
)
_FILES = {"CACHEDIR.TAG": _CACHEDIR_TAG, "README.txt": _README}


def cache_root(env: Mapping[str, str], cwd: str) -> str:
    """Return LLAMAFILE_CACHE, or else the platform's cache directory; absolute.

    Raises:
        UsageError: neither is known.
    """
    if given := setting_path(env, "LLAMAFILE_CACHE", cwd):
        return given
    from platformdirs import user_cache_dir

    directory = ""
    if os.path.isabs(env.get("XDG_CACHE_HOME", "")) or _expanded("~", env):
        with contextlib.suppress(RuntimeError, OSError):
            directory = user_cache_dir("llamafile-recipe", appauthor=False)
    if not os.path.isabs(directory):
        what = "cannot choose a cache directory: no home directory is known"
        raise UsageError(what, fix="set LLAMAFILE_CACHE to a directory, or HOME")
    return directory


def make_cache(root: str) -> None:
    """Create the cache, with the tag that excludes it from backups.

    Raises:
        OSError: it cannot be created.
    """
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        if not (folder / name).exists():
            write_atomic(folder / name, text)


def is_cache(root: str) -> bool:
    """Return whether `make_cache` created a directory: by its tag and its README."""
    for name, text in _FILES.items():
        data = own_files.read_most(os.path.join(root, name), 64 * 1024)
        if data is None or _first_line(data) != _first_line(text.encode()):
            return False
    return True


def cache_write_error(cache: str, error: OSError) -> RecipeError:
    """Return the error for a cache that cannot be written."""
    what = f"cannot write to the cache {cache}: {error.strerror or error}"
    return RecipeError(what, fix="set LLAMAFILE_CACHE to a directory you can write to")


def read_stamp(cache: str, artifact: Artifact) -> Stamp | None:
    """Return the stamp of an artifact, or None."""
    path = stamp_path(cache, artifact)
    return _UNWRITTEN.get(path) or parse_stamp(_read_own_json(path))


def write_stamp(cache: str, artifact: Artifact, stamp: Stamp) -> bool:
    """Save a stamp; return False if the cache cannot be written.

    There the stamp is valid for this process only: the next one reads the file again.
    """
    path = stamp_path(cache, artifact)
    text = json.dumps(stamp_data(stamp), indent=1) + "\n"
    own_files.check_inside(cache, path)
    try:
        write_atomic(path, text)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _UNWRITTEN[path] = stamp
        return False
    _UNWRITTEN.pop(path, None)
    return True


def target_state(cache: str, artifact: Artifact) -> TargetState:
    """Return the state of an artifact, by one stat call and one small file.

    An unpinned file of the cache that does not begin as a model, or as a text where it
    has to be one, counts as missing: an older version of the recipe kept whatever a
    server sent.
    """
    state = compare_target(artifact, stat(artifact.target), read_stamp(cache, artifact))
    if state is TargetState.MISSING or not is_no_model(artifact):
        return state
    return TargetState.MISSING


def is_no_model(artifact: Artifact) -> bool:
    """Return whether no digest covers a file of the cache, and it is not a model.

    A template must be a text instead.
    """
    if artifact.sha256 is not None or not artifact.in_cache or artifact.unpacked:
        return False
    head = first_bytes(artifact.target)
    status = stat(artifact.target)
    if not head and (status is None or status.size):
        return False  # it cannot be read, which other messages explain
    if artifact.is_text:
        return bool(text_problem(head))
    return not is_model(head)


def _first_line(data: bytes) -> bytes:
    return data.partition(b"\n")[0].rstrip(b"\r")


def _read_own_json(path: str) -> Any:
    """Return the JSON in a file that this user or root has written; else None.

    A directory of the cache may be shared: another user's stamp proves nothing.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(
            path, encoding="utf-8", opener=lambda name, _: os.open(name, flags)
        ) as file:
            if not _is_own_file(os.fstat(file.fileno())):
                return None
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return None


def _is_own_file(status: os.stat_result) -> bool:
    if hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid()):
        return False
    return S_ISREG(status.st_mode) and status.st_size <= MAX_JSON


def proof(cache: str, artifact: Artifact) -> Stamp | None:
    """Return the stamp if it matches the file at the target and the pinned digest."""
    current = stat(artifact.target)
    stamp = read_stamp(cache, artifact)
    if stamp is None or stamp.stat != current:
        return None
    if compare_target(artifact, current, stamp) is not TargetState.FRESH:
        return None
    return stamp


def check_unchanged(cache: str, artifacts: Iterable[Artifact]) -> None:
    """Compare each file with its pin again, right before a program opens it.

    Raises:
        IntegrityError: a file is not the one that was verified.
    """
    for artifact in artifacts:
        if artifact.unpacked:
            _check_unpacked(artifact)
        current = stat(artifact.target)
        stamp = read_stamp(cache, artifact)
        if compare_target(artifact, current, stamp) is TargetState.FRESH:
            continue
        if current is not None and _is_right_unstamped(cache, artifact, stamp):
            continue
        got = "a file that was changed or replaced since"
        if current is None:
            got = "no such file"
        pin = artifact.sha256 or (stamp.sha256 if stamp else None)
        expected = "the file that was verified"
        if pin:
            expected = f"sha256:{pin}"
        raise IntegrityError(
            f"{artifact.label}: {artifact.target} is not the file that was verified",
            [("expected", expected), ("got", got)],
            fix="run it again: it verifies the file, and downloads it again if needed",
        )


def _check_unpacked(artifact: Artifact) -> None:
    """Compare the files of an archive that is unpacked.

    Raises:
        IntegrityError: one is not the one that was verified, or there are others.
    """
    from tasks.cache import unpacked

    if unpacked.is_intact(artifact):
        return
    folder = unpacked.folder_of(artifact)
    what = f"{artifact.label}: {folder} does not have the files that were verified"
    raise IntegrityError(what, fix="run it again: it compares them with the archive")


def _is_right_unstamped(cache: str, artifact: Artifact, stamp: Stamp | None) -> bool:
    """Read a file whose stamp cannot be kept; return whether it has its digest.

    With `doit -n`, the process that verified the file is another one.
    """
    if not artifact.sha256 or os.access(
        nearest_existing_dir(os.path.dirname(stamp_path(cache, artifact))), os.W_OK
    ):
        return False
    got = sha256_file(artifact.target)
    if got.sha256 != artifact.sha256:
        return False
    source = artifact.target
    if stamp is not None:
        source = stamp.source
    write_stamp(cache, artifact, Stamp(got.stat, got.sha256, source, {}))
    return True
