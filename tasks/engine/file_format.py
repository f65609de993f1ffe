"""Check that a file has the format that its engine needs; make it executable."""

from __future__ import annotations

import os

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import HEAD_BYTES, PROGRAMS, Artifact, is_gguf, is_native, native_format
from tasks.errors import IntegrityError, RecipeError
from tasks.system import files

MODE = 0o755


def check_format(artifact: Artifact, engine: str) -> None:
    """Reject a file of the wrong format.

    A shell would run a web page that was saved as a llamafile as a script.

    Raises:
        IntegrityError: the file is not a program, or not a model, as the engine needs.
    """
    from zipfile import is_zipfile

    with open(artifact.target, "rb") as file:
        head = file.read(8)
    if engine == "self":
        valid = head.startswith(PROGRAMS)
        kind = "a llamafile"
        expected = repr(PROGRAMS[0])
        if is_native(head):
            # only one that was a llamafile: `--assimilate` keeps the zip
            valid = is_zipfile(artifact.target)
            expected = "a llamafile's zip at its end"
    elif engine == "llamafile" and artifact.target.endswith(".llamafile"):
        # -m also reads a llamafile, for the model inside
        valid = is_gguf(head) or is_zipfile(artifact.target)
        kind = "a complete llamafile"
        expected = "a zip with a model at its end"
    else:
        valid = is_gguf(head)
        kind = "a GGUF file"
        expected = "b'GGUF' and version 2 or 3"
    if valid:
        return
    fix = "give the path of a model"
    if artifact.owned:
        fix = "delete it and download it again"
    facts = [("begins with", repr(head)), ("expected", expected)]
    raise IntegrityError(f"{artifact.target} is not {kind}", facts, fix)


def native_program(path: str) -> str:
    """Return the format of a file that the system starts itself; "" for any other.

    A shell cannot read such a program, as it reads a llamafile.
    """
    try:
        with open(path, "rb") as file:
            return native_format(file.read(HEAD_BYTES))
    except OSError:
        return ""


def why_skipped(platform: str, engine: str) -> str:
    """Return why there is nothing to make executable, or an empty string (R31)."""
    if platform == "win32":
        return "skipped: Windows has no chmod"
    if engine != "self":
        return "skipped: it is data here, no program"
    return ""


def make_executable(cache: str, artifact: Artifact) -> None:
    """Set mode 0755; for a user's file, add execute permission for its readers.

    Where that is not permitted, /bin/sh can read and start a llamafile all the same.

    Raises:
        RecipeError: it is not permitted, and the system itself has to start the file.
        IntegrityError: the file is not a program, or not the one that was verified.
    """
    check_format(artifact, "self")
    path = artifact.target
    if artifact.owned and os.path.islink(path):
        what = f"{path} is a link; the mode of its target was not changed"
        fix = f"delete {path} and run the command again, or chmod +x the link's target"
        raise RecipeError(what, fix=fix)
    try:
        _chmod(cache, artifact)
    except OSError as error:
        what = f"cannot make {path} executable: {error.strerror}"
        fix = "ask its owner to run chmod +x, or copy it to a directory that you own"
        if native_program(path) and not os.access(path, os.X_OK):
            raise RecipeError(what, fix=fix) from None
        doit_adapter.log().info("%s\n  /bin/sh starts it without; if it does not run: %s", what, fix)


def _chmod(cache: str, artifact: Artifact) -> None:
    """Change the mode of the verified file; record its new state in the stamp."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    if artifact.owned:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(artifact.target, flags)
    try:
        stamps.check_unchanged(cache, [artifact])
        stamp = stamps.proof(cache, artifact)
        stat = os.fstat(handle)
        if stamp is not None and stamp.stat != files.stat_of(stat):
            what = f"{artifact.target} was replaced while its mode was changed"
            raise IntegrityError(what, fix="run the command again")
        os.fchmod(handle, _executable_mode(artifact, stat.st_mode))
        if stamp is not None:
            changed = files.stat_of(os.fstat(handle))
            stamps.write_stamp(cache, artifact, stamp._replace(stat=changed))
    finally:
        os.close(handle)


def _executable_mode(artifact: Artifact, mode: int) -> int:
    if artifact.owned:
        return MODE
    return mode | (mode & 0o444) >> 2
