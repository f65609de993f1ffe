"""Check that a file has the format that its engine needs; make it executable."""

from __future__ import annotations

import os

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import (
    EXECUTABLE_MAGICS,
    HEAD_BYTES,
    Artifact,
    is_gguf,
    is_native,
    native_format,
)
from tasks.catalogue.model_format import (
    HEAD,
    format_fix,
    head_problem,
    holds_program,
    is_program,
)
from tasks.errors import IntegrityError, RecipeError
from tasks.system import files

MODE = 0o755


def check_format(artifact: Artifact, engine: str) -> None:
    """Reject a file of the wrong format.

    A shell would run a web page that was saved as a llamafile as a script.

    Raises:
        IntegrityError: the file is not a program, or not a model, as the engine needs.
    """
    if wrong := format_error(artifact.target, engine, owned=artifact.in_cache):
        raise wrong


def format_error(path: str, engine: str, *, owned: bool) -> IntegrityError | None:
    """Return why an engine cannot read a file; None if it can.

    Args:
        owned: the file lies in the cache, so it can be downloaded again.

    Raises:
        OSError: the file cannot be read.
    """
    from tasks.catalogue.gguf import model_problem

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD)
        file.seek(0)
        problem = model_problem(head, file, size)
    fix = "give the path of a model"
    if owned:
        fix = "delete it and download it again"
    if engine == "llamafile" and holds_program(head, path):
        from zipfile import is_zipfile

        # -m also reads a llamafile, for the model inside
        if is_zipfile(path):
            return None
        facts = [("got", problem), ("expected", "a zip with a model at its end")]
        return IntegrityError(f"{path} is not a complete llamafile", facts, fix)
    if engine == "self" and is_native(head):
        return _native_error(path, head, fix)
    if not problem:
        return _other_engine(path, engine, head)
    if engine != "self" and is_gguf(head) and not head_problem(head):
        what = f"{path} is not a complete GGUF file"
        if not owned:
            fix = "copy or download it again"
        return IntegrityError(what, [("got", problem)], fix)
    kind = "a GGUF file"
    expected = "GGUF in the first four bytes, and version 2 or 3"
    if engine == "self":
        kind = "a llamafile"
        expected = f"{EXECUTABLE_MAGICS[0].decode()} in the first bytes"
    facts = [("got", problem), ("expected", expected)]
    fix = format_fix(head) or fix
    return IntegrityError(f"{path} is not {kind}", facts, fix)


def _native_error(path: str, head: bytes, fix: str) -> IntegrityError | None:
    """Return the error for a native program that was not a llamafile.

    `--assimilate` makes a native program of a llamafile, and keeps the zip at its end.
    """
    from zipfile import is_zipfile

    if is_zipfile(path):
        return None
    facts = [("got", native_format(head)), ("expected", "a llamafile's zip at its end")]
    return IntegrityError(f"{path} is not a llamafile", facts, fix)


def _other_engine(path: str, engine: str, head: bytes) -> IntegrityError | None:
    """Return the error for a model that another engine reads; None if this one does."""
    if engine == "self" and not is_program(head):
        what = f"{path} is a GGUF, which is not a program"
        return IntegrityError(what, fix="--engine llamafile, or --engine embedded")
    if engine != "self" and is_program(head):
        what = f"{path} is a llamafile, and the engine {engine} reads a GGUF here"
        return IntegrityError(what, fix="--engine self")
    return None


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
        return "skipped: not an executable"
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
    if artifact.in_cache and os.path.islink(path):
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
        doit_adapter.log().info(
            "%s\n  /bin/sh starts it without; if it does not run: %s", what, fix
        )


def _chmod(cache: str, artifact: Artifact) -> None:
    """Change the mode of the verified file; record its new state in the stamp."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    if artifact.in_cache:
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
    if artifact.in_cache:
        return MODE
    return mode | (mode & 0o444) >> 2
