"""Keep the manifest of an unpacked archive: which of its files were verified.

The archive beside the folder has the pinned digest; the manifest says that the files in
the folder are those of the archive (docs/adr/0018). It is valid for exactly these
files, as a stamp is: size, times, device and inode. It is not a signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat as modes
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_release import PROGRAMS
from tasks.system import files, own_files
from tasks.system.file_stat import FileStat

MANIFEST = "manifest.json"
_MAX_BYTES = 16 * 1024**2  # of a manifest
_MAX_DEPTH = 50  # folders that are searched; an archive has fewer

# manifests that could not be written, by path; valid in the process that read the files
_UNWRITTEN: dict[str, Manifest] = {}


class UnpackedFile(NamedTuple):
    """A file of an unpacked archive."""

    sha256: str
    stat: FileStat


class Manifest(NamedTuple):
    """What an unpacked archive consists of; paths are relative to `bin`, with `/`."""

    archive: str  # SHA-256
    files: Mapping[str, UnpackedFile]
    links: Mapping[str, str]  # path → target


def manifest_path(artifact: Artifact) -> str:
    """Return the path of the manifest of an archive."""
    return f"{artifact.unpacked}/{MANIFEST}"


def folder_of(artifact: Artifact) -> str:
    """Return the folder that has the files of an archive."""
    return f"{artifact.unpacked}/{PROGRAMS}"


def is_intact(artifact: Artifact) -> bool:
    """Return whether the folder has exactly the files that were verified.

    Reads no file but the manifest.
    """
    manifest = read_manifest(artifact)
    if manifest is None or manifest.archive != artifact.sha256:
        return False
    if os.path.islink(folder_of(artifact)):
        return False
    found = dict(contents(folder_of(artifact)))
    if found.keys() != {*manifest.files, *manifest.links}:
        return False
    for path, state in found.items():
        expected: object = manifest.links.get(path)
        if path in manifest.files:
            expected = manifest.files[path].stat
        if state != expected:
            return False
    return True


def contents(folder: str, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (path, state) of everything below a folder but its folders.

    The state is the stat of a file, the target of a link, and None of anything else:
    also of what another process has just removed, and of a folder below too many.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path = f"{prefix}{entry.name}"
        is_deep = path.count("/") > _MAX_DEPTH
        if entry.is_dir(follow_symlinks=False) and not is_deep:
            yield from contents(entry.path, f"{path}/")
        else:
            yield path, _state(entry.path)


def _state(path: str) -> object:
    try:
        status = os.lstat(path)
        if modes.S_ISLNK(status.st_mode):
            return os.readlink(path)
    except OSError:
        return None
    if modes.S_ISREG(status.st_mode):
        return files.stat_of(status)
    return None


def read_manifest(artifact: Artifact) -> Manifest | None:
    """Return the manifest of an archive; None if there is none of this user or root."""
    path = manifest_path(artifact)
    if path in _UNWRITTEN:
        return _UNWRITTEN[path]
    if own_files.link_inside(os.path.dirname(artifact.target), path):
        return None
    data = own_files.read_of_user(path, _MAX_BYTES)
    if data is None:
        return None
    return _parse(data)


def _parse(data: bytes) -> Manifest | None:
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
        if checksum != _checksum(body):
            return None
        found = {
            str(path): UnpackedFile(str(row[0]), FileStat(*map(int, row[1:])))
            for path, row in body["files"].items()
        }
        links = {str(path): str(target) for path, target in body["links"].items()}
        return Manifest(str(body["archive"]), found, links)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    except (IndexError, OverflowError):
        return None


def manifest_text(manifest: Manifest) -> str:
    """Return the JSON of a manifest, with a checksum that detects damage."""
    rows = {path: [one.sha256, *one.stat] for path, one in manifest.files.items()}
    body = {"archive": manifest.archive, "files": rows, "links": dict(manifest.links)}
    return json.dumps({**body, "checksum": _checksum(body)}, indent=0) + "\n"


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def keep_manifest(artifact: Artifact, manifest: Manifest) -> None:
    """Write the manifest of files that were verified; if it cannot be, remember it.

    It is then valid for this process only: the next one reads the files again.
    """
    path = manifest_path(artifact)
    try:
        files.write_atomic(path, manifest_text(manifest))
        _UNWRITTEN.pop(path, None)
    except OSError:
        _UNWRITTEN[path] = manifest


def forget(artifact: Artifact) -> None:
    """Remove the manifest, so that the next run compares the files with the archive.

    Raises:
        OSError: it cannot be removed.
    """
    _UNWRITTEN.pop(manifest_path(artifact), None)
    if os.path.lexists(manifest_path(artifact)):
        os.unlink(manifest_path(artifact))
