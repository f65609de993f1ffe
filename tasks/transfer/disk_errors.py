"""Errors of a target's file system: no space, read-only, a name that is too long."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress

from tasks.cache import space
from tasks.catalogue.artifact import Artifact
from tasks.console import formatting
from tasks.errors import NoRoomError, RecipeError
from tasks.system import files
from tasks.system.paths import ENDING_BYTES
from tasks.transfer.journal import load_progress


def disk_error(artifact: Artifact, error: OSError) -> RecipeError:
    """Return the error for a failed write; the partial is kept (R19)."""
    place = os.path.dirname(artifact.target)
    if error.errno == errno.ENAMETOOLONG:
        return name_too_long(artifact, place)
    if not files.is_full(error):
        what = f"{artifact.label}: cannot write: {error.strerror or error}"
        return RecipeError(
            what, [("in", place)], "set LLAMAFILE_CACHE to another directory"
        )
    saved = load_progress(artifact)
    size = artifact.size or saved.size
    taken = max(saved.done, files.allocated(artifact.partial))
    missing = ""
    if size:
        missing = formatting.format_size(max(0, size - taken) + space.SPACE_MARGIN)
    kept = ""
    if saved.done:
        kept = (
            f"{formatting.format_size(saved.done)}, the next run resumes the download"
        )
    facts = [("missing", missing), ("kept", kept), ("in", place)]
    quota = "" if error.errno == errno.ENOSPC else " (quota exceeded)"
    fix = "free some space and run it again"
    return RecipeError(f"{artifact.label}: the disk is full{quota}", facts, fix)


def name_too_long(artifact: Artifact, folder: str) -> RecipeError:
    """Return the error for a file name or path that the file system does not accept."""
    length = len(os.fsencode(os.path.basename(artifact.target)))
    most: object = ""
    with suppress(OSError, ValueError, AttributeError):  # Windows has no such call
        name_max = os.pathconf(files.nearest_existing_dir(folder), "PC_NAME_MAX")
        most = f"{name_max - ENDING_BYTES} bytes here"
    facts = [("length", f"{length} bytes"), ("limit", most), ("in", folder)]
    fix = (
        "pass --llamafile SHORTER_NAME --llamafile-url URL, "
        "or set LLAMAFILE_CACHE to another file system"
    )
    return RecipeError(
        f"{artifact.label}: the file name or the path is too long", facts, fix
    )


def check_space(artifact: Artifact, size: int | None, taken: int) -> None:
    """Check that the disk has space for the rest of a file.

    Args:
        size: bytes of the whole file, None while it is unknown.
        taken: bytes that are allocated already.

    Raises:
        NoRoomError: it has not.
        OSError: its folder cannot be created.
    """
    folder = os.path.dirname(artifact.target)
    os.makedirs(folder, exist_ok=True)
    missing = space.space_missing(size, taken, shutil.disk_usage(folder).free)
    if missing:
        raise NoRoomError(
            f"{artifact.label} does not fit on the disk",
            [
                ("needs", formatting.format_size((size or 0) - taken)),
                ("missing", formatting.format_size(missing)),
                ("kept free", formatting.format_size(space.SPACE_MARGIN)),
                ("in", folder),
            ],
            fix="free some space, or set LLAMAFILE_CACHE to another disk",
        )
