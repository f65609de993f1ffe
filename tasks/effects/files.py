"""The disk: stamps, digests, modes, and writing a small file so that it is there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import get_ident
from typing import Any

from tasks.core.artifact import (
    PROGRAMS,
    Artifact,
    Stamp,
    State,
    is_gguf,
    judge_target,
    parse_stamp,
    stamp_path,
)
from tasks.core.errors import IntegrityError, NoRoom, RecipeError

BLOCK = 1024 * 1024  # bytes read at once; smaller blocks cost time, larger ones memory

_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory is a cache (https://bford.info/cachedir/): backups may leave it out.\n"
)
_README = (
    "Models and engines fetched by llamafile-recipe. Everything here can be fetched again;\n"
    "`doit` in the recipe's folder shows what is here, and `doit prune` frees space.\n"
)


def cache_root(env: Mapping[str, str], cwd: str) -> str:
    """LLAMAFILE_CACHE, else the platform's directory for caches; absolute."""
    if env.get("LLAMAFILE_CACHE"):
        return os.path.normpath(os.path.join(cwd, os.path.expanduser(env["LLAMAFILE_CACHE"])))
    from platformdirs import user_cache_dir

    return user_cache_dir("llamafile-recipe", appauthor=False)


def make_cache(root: str) -> None:
    """Create the cache with the tag that keeps it out of backups. Raises OSError."""
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("CACHEDIR.TAG", _CACHEDIR_TAG), ("README.txt", _README)):
        if not (folder / name).exists():
            write_atomic(folder / name, text)


def is_cache(root: str) -> bool:
    """Whether the directory was made by `make_cache`: has its tag, and the first line of its README."""
    try:
        texts = [Path(root, name).read_text("utf-8") for name in ("CACHEDIR.TAG", "README.txt")]
    except (OSError, ValueError):
        return False
    return all(
        a.splitlines()[:1] == b.splitlines()[:1] for a, b in zip(texts, (_CACHEDIR_TAG, _README), strict=True)
    )


def cannot_write(cache: str, error: OSError) -> RecipeError:
    """The error that says what to do about it."""
    what = f"cannot write to the cache {cache}: {error.strerror or error}"
    return RecipeError(what, fix="set LLAMAFILE_CACHE to a directory you can write to")


def write_atomic(path: str | Path, text: str, private: bool = False) -> None:
    """Write a small file so that a reader, and a machine that loses power, sees the old or the new one.

    Args:
        private: only its owner may read it; it need not outlive the power.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="", opener=_private if private else None) as file:
            file.write(text)
            file.flush()
            if not private:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # also a signal
        temporary.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_json(path: str | Path) -> Any:
    """The JSON in a file; None where there is no such file or no JSON in it."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def fsync_dir(path: str | Path) -> None:
    """Make a rename in a directory last; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_file(path: str | Path, seen: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file; `seen` is told how many bytes were read so far. It does not count as a use."""
    digest, done = hashlib.sha256(), 0
    with open(path, "rb", buffering=0, opener=_unnoticed) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            seen(done)
    return digest.hexdigest()


def _unnoticed(path: str, flags: int) -> int:
    """Open a file for reading, leaving its time of access as it was, where Linux grants that to its owner."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


def existing(folder: str) -> str:
    """The folder, or the nearest one above it that is there."""
    return next((str(p) for p in (Path(folder), *Path(folder).parents) if p.is_dir()), folder)


def stat(path: str) -> tuple[int, int] | None:
    """(size in bytes, mtime in ns) of a regular file; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if os.path.isfile(path) else None


def read_stamp(cache: str, artifact: Artifact) -> Stamp | None:
    """What was proven about the artifact's target, if anything was."""
    return parse_stamp(read_json(stamp_path(cache, artifact)))


def write_stamp(cache: str, artifact: Artifact, stamp: Stamp) -> None:
    """Keep what was proven."""
    data = stamp._asdict()
    write_atomic(stamp_path(cache, artifact), json.dumps(data, indent=1) + "\n")


def state(cache: str, artifact: Artifact) -> State:
    """What lies at the target, by a stat call and a small file."""
    return judge_target(artifact, stat(artifact.target), read_stamp(cache, artifact))


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is used up."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))


def check_space(artifact: Artifact, size: int | None, taken: int) -> None:
    """See that the disk has room for the rest of a file.

    Args:
        size: bytes of the whole, None where nobody says.
        taken: bytes that it has of the disk already.

    Raises NoRoom: it has not. OSError: its folder cannot be made.
    """
    import shutil  # these three are for downloads alone

    from tasks.core import report
    from tasks.core.transfer import SPACE_MARGIN, space_missing

    folder = os.path.dirname(artifact.target)
    os.makedirs(folder, exist_ok=True)
    missing = space_missing(size, taken, shutil.disk_usage(folder).free)
    if missing:
        raise NoRoom(
            f"{artifact.label} does not fit on the disk",
            [
                ("needs", report.size((size or 0) - taken)),
                ("missing", report.size(missing)),
                ("kept free", report.size(SPACE_MARGIN)),
                ("in", folder),
            ],
            fix="free some space, or set LLAMAFILE_CACHE to another disk",
        )


def is_executable(path: str, owned: bool = True) -> bool:
    """Whether the file may be run: ours by everybody (mode 0755), one of the user's by us."""
    try:
        return os.stat(path).st_mode & 0o555 == 0o555 if owned else os.access(path, os.X_OK)
    except OSError:
        return False


def check_format(artifact: Artifact, engine: str) -> None:
    """Refuse what the engine cannot be: a shell would read a web page saved as a llamafile as a script.

    Raises IntegrityError: the target is no program, or no model, as the engine needs it.
    """
    with open(artifact.target, "rb") as file:
        head = file.read(8)
    if engine == "self":
        fits, kind, expected = head.startswith(PROGRAMS), "llamafile", repr(PROGRAMS[0])
    else:
        fits, kind, expected = is_gguf(head), "GGUF file", "b'GGUF' and version 2 or 3"
    if engine == "llamafile" and not fits and artifact.target.endswith(".llamafile"):
        from zipfile import is_zipfile  # -m takes a llamafile for the model inside

        fits, kind, expected = is_zipfile(artifact.target), "whole llamafile", "a zip with a model at its end"
    if not fits:
        facts = [("begins with", repr(head)), ("expected", expected)]
        fix = "delete it and download it again" if artifact.owned else "give the path of a model"
        raise IntegrityError(f"{artifact.target} is no {kind}", facts, fix)
