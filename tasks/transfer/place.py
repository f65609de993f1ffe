"""Check where a file is to be written, and make its folder."""

from __future__ import annotations

import os

from tasks.catalogue.artifact import Artifact
from tasks.errors import RecipeError
from tasks.system import files
from tasks.system.paths import ENDING_BYTES


def share_folder(cache: str, artifact: Artifact) -> None:
    """Let every user of the cache write to `models` or `engines`, where this is new."""
    import contextlib

    from tasks.system import own_files

    with contextlib.suppress(OSError):  # a download names what cannot be written
        own_files.make_folder(
            cache, os.path.relpath(artifact.target, cache).split(os.sep)[0]
        )


def check_place(cache: str, artifact: Artifact) -> None:
    """Check that a file may be created at the target.

    Raises:
        RecipeError: the target is not a regular file, leads out of the cache, or has a
            name that is too long for the file system.
    """
    from tasks.system import own_files

    _check_name(artifact)
    if artifact.in_cache:
        own_files.check_inside(cache, artifact.target)
    elif os.path.lexists(artifact.target) and not os.path.isfile(
        os.path.realpath(artifact.target)
    ):
        raise RecipeError(
            f"{artifact.target} is not a regular file, "
            "and is not replaced by a download",
            fix="--llamafile PATH of a file, or remove it",
        )


def _check_name(artifact: Artifact) -> None:
    """Check that the file system takes the names of a new target and of its journal.

    Raises:
        RecipeError: it does not.
    """
    import contextlib

    if os.path.lexists(artifact.target):
        return
    folder, name = os.path.split(artifact.target)
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # Windows cannot be asked
        most = (
            os.pathconf(files.nearest_existing_dir(folder), "PC_NAME_MAX")
            - ENDING_BYTES
        )
        if 0 < most < len(os.fsencode(name)):
            from tasks.transfer.disk_errors import name_too_long

            raise name_too_long(artifact, folder)
