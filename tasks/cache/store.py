"""The files of a cache directory: list them, find what no catalogue names, remove."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

from tasks.cache.inventory import (
    STAMP,
    CachedFile,
    cached_files,
    uncatalogued_file,
    uncatalogued_paths,
)
from tasks.cache.prune import OURS, CacheFile
from tasks.cache.stamps import is_cache
from tasks.catalogue.artifact import DIGEST_CHARS, parse_stamp
from tasks.catalogue.environment import Environment
from tasks.catalogue.types import Catalogue
from tasks.console.text import digest
from tasks.system import own_files
from tasks.system.files import read_json
from tasks.system.paths import is_path

_MAX_DEPTH = 50  # folders that are searched; the recipe makes fewer
# what loading the tasks creates in any directory that LLAMAFILE_CACHE names
_CREATED_BY_LOADING = {"catalogue", "locks", "roots", "run"}


def files_of(cache: str, folders: Iterable[str] = OURS) -> list[CacheFile]:
    """Return every file in these folders of the cache, sorted by path.

    A link counts as a small file. Files and folders that cannot be read are omitted.
    """
    return sorted(file for folder in folders for file in _walk(cache, folder))


def _walk(cache: str, folder: str) -> Iterator[CacheFile]:
    path = os.path.join(cache, folder)
    if os.path.islink(path) or folder.count("/") > _MAX_DEPTH:
        return
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name = f"{folder}/{entry.name}"
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(cache, name)
            else:
                stat = os.lstat(entry.path)
                yield CacheFile(name, stat.st_size, stat.st_mtime, stat.st_atime)


def uncatalogued_files(cache: str, items: Iterable[CachedFile]) -> list[CachedFile]:
    """Return the files that have a stamp in the cache and are not among the items."""
    paths = [file.path for file in files_of(cache, ("models", "engines"))]
    targets = (item.artifact.target.removeprefix(f"{cache}/") for item in items)
    uncatalogued = []
    for path in uncatalogued_paths(paths, targets):
        stamp = parse_stamp(read_json(f"{cache}/{path}{STAMP}"))
        uncatalogued.append(
            uncatalogued_file(path, stamp.source if stamp else "", cache)
        )
    return uncatalogued


def is_unmarked(cache: str) -> bool:
    """Return whether a directory has files of others and no tag of this recipe."""
    try:
        has_other_files = bool(set(os.listdir(cache)) - _CREATED_BY_LOADING)
    except OSError:
        return False
    return has_other_files and not is_cache(cache)


def orphaned_stamps(cache: str, paths: Iterable[str]) -> list[str]:
    """Return those of the stamps whose file, outside the cache, does not exist.

    Such a stamp is named by the digest of its file's path, and has the path as source.

    Args:
        paths: of stamps, relative to the cache.
    """
    orphans = []
    for path in paths:
        data = read_json(os.path.join(cache, path))
        source = str(data.get("source", "")) if isinstance(data, dict) else ""
        if not is_path(source):
            continue
        name = f"stamps/{digest(source)[:DIGEST_CHARS]}.json"
        if path == name and is_missing(source):
            orphans.append(path)
    return orphans


def is_missing(path: str) -> bool:
    """Return whether a file certainly does not exist.

    In a folder that cannot be read it may exist.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def remove(cache: str, path: str, as_it_was: int, changed: float) -> bool:
    """Remove a file of the cache, and its folder if that is empty then.

    Args:
        path: relative to the cache.
        as_it_was: size of the file to remove, in bytes.
        changed: modification time of the file to remove, in seconds since 1970.

    Returns:
        False if the path is a different file now.

    Raises:
        OSError: it cannot be removed.
    """
    full = os.path.join(cache, *path.split("/"))
    try:
        if own_files.link_inside(cache, full):
            return False
        stat = os.lstat(full)
        if (stat.st_size, stat.st_mtime) != (as_it_was, changed):
            return False
        os.unlink(full)
    except FileNotFoundError:  # removed by another process
        return True
    if path.startswith(("models/", "engines/")):
        with contextlib.suppress(OSError):  # the folder is not empty
            for _ in range(path.count("/") - 1):
                full = os.path.dirname(full)
                os.rmdir(full)
    return True


def known_files(
    catalogue: Catalogue, environment: Environment, named: Sequence[str] = ()
) -> list[CachedFile]:
    """Return the files of the named models.

    Without names: every file of the catalogue, and the others that have a stamp here.
    """
    if named:
        return cached_files(catalogue, environment, named)
    catalogued = cached_files(catalogue, environment)
    return [*catalogued, *uncatalogued_files(environment.cache, catalogued)]
