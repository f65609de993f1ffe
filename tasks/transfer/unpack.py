"""Unpack a verified archive into a folder beside it, which appears as a whole.

The files are written to a temporary folder of the same directory, which is renamed when
all of them are on the disk: no process sees a part of it. The archive stays. It has the
pinned digest, so a folder that differs from it is replaced without a download.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil

from tasks import doit_adapter
from tasks.cache import unpacked
from tasks.cache.space import space_missing
from tasks.cache.unpacked import Manifest, UnpackedFile
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.engine_release import PROGRAMS
from tasks.console import formatting
from tasks.errors import NoRoomError, RecipeError
from tasks.system import files, own_files
from tasks.transfer.archive_reader import ArchiveReader
from tasks.transfer.archive_rules import Entry, Kind, bytes_of, entries_of, final_target
from tasks.transfer.disk_errors import disk_error
from tasks.transfer.locks import NoLockError, artifact_lock
from tasks.transfer.unpacked_files import compare, in_order, opened, reading

_NEW = ".unpacking"  # ends the name of a temporary folder
_OLD = ".replaced"  # of the folder that it replaces


def ensure_unpacked(cache: str, artifact: Artifact, program: str) -> None:
    """Ensure that the folder has exactly the files of the archive.

    Args:
        artifact: an archive that is here and verified.
        program: file name of the program that it has to contain.

    Raises:
        IntegrityError: the archive is not the verified one, or is refused.
        RecipeError: the folder cannot be written.
    """
    if unpacked.is_intact(artifact):
        return
    try:
        with artifact_lock(cache, artifact):
            if unpacked.is_intact(artifact):
                return
            _remove_leftovers(artifact)
            if not _is_same(cache, artifact, program):
                _replace(cache, artifact, program)
    except NoLockError as error:  # a cache that cannot be written
        if not _is_same(cache, artifact, program):
            raise RecipeError(error.what, error.facts, error.fix) from None


def _is_same(cache: str, artifact: Artifact, program: str) -> bool:
    """Compare the folder with the archive; keep the manifest of one that is right."""
    if not os.path.isdir(artifact.unpacked):
        return False
    manifest, problem = compare(cache, artifact, program)
    if problem:
        text = "%s: %s differs from its archive (%s); unpacking it again"
        folder = unpacked.folder_of(artifact)
        doit_adapter.log().warning(text, artifact.label, folder, problem)
        return False
    unpacked.keep_manifest(artifact, manifest)
    return True


def _replace(cache: str, artifact: Artifact, program: str) -> None:
    """Unpack the archive, and give the folder its name."""
    temporary = own_files.temporary_path(artifact.unpacked, _NEW)
    old = own_files.temporary_path(artifact.unpacked, _OLD)
    own_files.check_inside(cache, artifact.unpacked)
    try:
        manifest = _unpack(cache, artifact, program, temporary)
        files.write_atomic(
            f"{temporary}/{unpacked.MANIFEST}", unpacked.manifest_text(manifest)
        )
        if os.path.lexists(artifact.unpacked):
            os.rename(artifact.unpacked, old)
        os.rename(temporary, artifact.unpacked)
        files.fsync_dir(os.path.dirname(artifact.unpacked))
    except OSError as error:
        raise _disk_error(artifact, error) from None
    finally:
        _remove(temporary)
        _remove(old)
    size = sum(file.stat.size for file in manifest.files.values())
    text = "%s: %s files unpacked, %s"
    count = len(manifest.files)
    doit_adapter.log().info(text, artifact.label, count, formatting.format_size(size))


def _disk_error(artifact: Artifact, error: OSError) -> RecipeError:
    failed = disk_error(artifact._replace(size=None), error)
    return RecipeError(
        failed.what, [*failed.facts, ("unpacked", "nothing")], failed.fix
    )


def _unpack(cache: str, artifact: Artifact, program: str, folder: str) -> Manifest:
    """Write the files of the archive below a new folder.

    Raises:
        IntegrityError: the archive is refused.
        OSError: a file cannot be written.
    """
    found: dict[str, UnpackedFile] = {}
    links: dict[str, str] = {}
    top = f"{folder}/{PROGRAMS}"
    with opened(cache, artifact) as file, reading(artifact, file) as archive:
        entries = entries_of(archive.members(), program)
        _check_space(artifact, entries)
        for path in _folders(top, entries):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o755)
        regular = [entry for entry in entries if entry.member.kind is Kind.FILE]
        for entry in in_order(regular):
            found[entry.path] = _write(archive, entry, f"{top}/{entry.path}", program)
        by_path = {entry.path: entry for entry in entries}
        for entry in entries:
            if entry.member.kind is Kind.LINK:
                _link(entry, by_path, top, found, links)
    for path in _folders(top, entries):
        files.fsync_dir(path)
    return Manifest(artifact.sha256 or "", found, links)


def _folders(top: str, entries: list[Entry]) -> list[str]:
    """Return the folders to create, each after the one that it is in."""
    paths = {os.path.dirname(top), top}
    for entry in entries:
        parts = entry.path.split("/")[:-1]
        paths.update(
            "/".join([top, *parts[:count]]) for count in range(1, len(parts) + 1)
        )
    return sorted(paths, key=len)


def _check_space(artifact: Artifact, entries: list[Entry]) -> None:
    """Check that the disk has space for all files.

    Raises:
        NoRoomError: it has not.
    """
    size = bytes_of(entries, copies_links=os.name != "posix")
    folder = os.path.dirname(artifact.target)
    missing = space_missing(size, 0, shutil.disk_usage(folder).free)
    if missing:
        facts = [
            ("needs", formatting.format_size(size)),
            ("missing", formatting.format_size(missing)),
            ("in", folder),
        ]
        what = f"{artifact.label}: its files do not fit on the disk"
        fix = "free some space, or set LLAMAFILE_CACHE to another disk"
        raise NoRoomError(what, facts, fix)


def _write(
    archive: ArchiveReader, entry: Entry, path: str, program: str
) -> UnpackedFile:
    """Write one file; only a mode of 0644 or 0755 is set.

    Raises:
        OSError: it cannot be written.
    """
    digest = hashlib.sha256()
    handle = own_files.create(path)
    with open(handle, "wb") as file:
        for block in archive.blocks(entry.number):
            digest.update(block)
            file.write(block)
        file.flush()
        if hasattr(os, "fchmod"):
            mode = 0o644
            if entry.member.is_program or entry.path == program:
                mode = 0o755
            os.fchmod(handle, mode)
        os.fsync(handle)
    stat = files.stat(path)
    if stat is None:
        raise FileNotFoundError(path)
    return UnpackedFile(digest.hexdigest(), stat)


def _link(
    entry: Entry,
    by_path: dict[str, Entry],
    top: str,
    found: dict[str, UnpackedFile],
    links: dict[str, str],
) -> None:
    """Create a link, or a copy of its target where the system has no links.

    Raises:
        OSError: it cannot be written.
    """
    path = f"{top}/{entry.path}"
    try:
        if os.name != "posix":
            raise NotImplementedError
        os.symlink(entry.member.link, path)
        links[entry.path] = entry.member.link
    except (OSError, NotImplementedError):
        source = final_target(entry, by_path)
        shutil.copyfile(f"{top}/{source.path}", path)
        stat = files.stat(path)
        if stat is None:
            raise FileNotFoundError(path) from None
        found[entry.path] = UnpackedFile(found[source.path].sha256, stat)


def _remove_leftovers(artifact: Artifact) -> None:
    """Remove what killed processes have left; this process holds the lock."""
    for ending in (_NEW, _OLD):
        for path in own_files.temporaries(artifact.unpacked, ending):
            _remove(path)


def _remove(path: str) -> None:
    """Remove what is at a path of this module, if anything; no link is followed."""
    if os.path.isdir(path) and not os.path.islink(path):
        # of Python before 3.13, in folders that another user has made too deep
        with contextlib.suppress(RecursionError):
            shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
