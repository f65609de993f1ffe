"""The cache as a directory: its files, what no catalogue names, and removing some."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

from tasks.cache.inventory import STAMP, Item, items, strangers, unnamed
from tasks.cache.prune import OURS, Found
from tasks.cache.stamps import is_cache
from tasks.catalogue.artifact import DIGEST_CHARS, parse_stamp
from tasks.catalogue.environment import Place
from tasks.catalogue.types import Catalogue
from tasks.console.text import digest
from tasks.system import own_files
from tasks.system.files import read_json
from tasks.system.paths import is_path


def files_of(cache: str, folders: Iterable[str] = OURS) -> list[Found]:
    """Every file in these folders of the cache, in the order of their paths.

    A link counts as the small file that it is. What cannot be looked at is left out.
    """
    return sorted(one for folder in folders for one in _walk(cache, folder))


def _walk(cache: str, folder: str) -> Iterator[Found]:
    path = os.path.join(cache, folder)
    try:
        entries = [] if os.path.islink(path) else sorted(os.scandir(path), key=lambda one: one.name)
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(cache, f"{folder}/{entry.name}")
            else:
                yield _found(f"{folder}/{entry.name}", os.lstat(entry.path))


def _found(path: str, stat: os.stat_result) -> Found:
    return Found(path, stat.st_size, stat.st_mtime, stat.st_atime)


def others(cache: str, items: Iterable[Item]) -> list[Item]:
    """What has a stamp in the cache, and is none of these items."""
    paths = [one.path for one in files_of(cache, ("models", "engines"))]
    found = []
    for path in strangers(paths, (one.artifact.target.removeprefix(f"{cache}/") for one in items)):
        stamp = parse_stamp(read_json(f"{cache}/{path}{STAMP}"))
        found.append(unnamed(path, stamp.source if stamp else "", cache))
    return found


def is_foreign(cache: str) -> bool:
    """Whether a directory has no tag of ours, and more in it than loading the tasks leaves there."""
    try:
        return bool(set(os.listdir(cache)) - {"catalogue", "locks", "roots", "run"}) and not is_cache(cache)
    except OSError:
        return False


def stamps_of_nothing(cache: str, paths: Iterable[str]) -> list[str]:
    """Those of the stamps of users' own files whose file has gone.

    Such a stamp is named by its file's path, and says it where the file was not downloaded.
    """
    gone = []
    for path in paths:
        data = read_json(os.path.join(cache, path))
        source = str(data.get("source", "")) if isinstance(data, dict) else ""
        if not is_path(source):
            continue
        key = digest(source)[:DIGEST_CHARS]
        if path == f"stamps/{key}.json" and is_missing(source):
            gone.append(path)
    return gone


def is_missing(path: str) -> bool:
    """Whether there is certainly nothing: a folder that may not be looked into may have it."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def remove(cache: str, path: str, as_it_was: int, changed: float) -> bool:
    """Remove one file below the cache, and its folder if it was the last; False where it is another one now.

    Args:
        as_it_was, changed: size and time of change of the file that is meant.

    Raises OSError: it cannot be removed.
    """
    full = os.path.join(cache, *path.split("/"))
    try:
        if own_files.link_inside(cache, full):
            return False
        stat = os.lstat(full)
        if (stat.st_size, stat.st_mtime) != (as_it_was, changed):
            return False
        os.unlink(full)
    except FileNotFoundError:  # another prune, or its owner
        return True
    if path.count("/") == 2 and path.startswith(("models/", "engines/")):
        with contextlib.suppress(OSError):  # it has more in it
            os.rmdir(os.path.dirname(full))
    return True


def everything(catalogue: Catalogue, place: Place, named: Sequence[str] = ()) -> list[Item]:
    """What the catalogue names, and what else has a stamp here; or the files of the named models."""
    found = items(catalogue, place, named or None)
    return found if named else [*found, *others(place.cache, found)]
