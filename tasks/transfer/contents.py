"""Check that a file that gets its final name begins and goes on as it has to.

A digest decides about pinned files. Of an unpinned one, a server may have sent an error
message, a Git LFS pointer or a part of the file with status 200.
"""

from __future__ import annotations

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.gguf import model_problem
from tasks.catalogue.model_format import HEAD, text_problem
from tasks.errors import IntegrityError
from tasks.system import own_files


def expected(artifact: Artifact) -> str:
    """Return what a file has to be, for an error message."""
    if artifact.is_text:
        return "a text"
    if artifact.unpacked:
        return "a .tar.gz or a .zip"
    return "a GGUF or a llamafile"


def wrong_file(artifact: Artifact, problem: str) -> IntegrityError:
    """Return the error for bytes that cannot be the artifact."""
    kind = "model"
    if artifact.is_text:
        kind = "text"
    if artifact.unpacked:
        kind = "archive"
    facts = [("got", problem), ("expected", expected(artifact))]
    return IntegrityError(f"{artifact.label}: not a {kind}", facts)


def _archive_problem(head: bytes) -> str:
    if head.startswith((b"\x1f\x8b", b"PK\3\4")):
        return ""
    return f"a file that begins with {head[:16]!r}"


def problem(artifact: Artifact, path: str, size: int) -> str:
    """Return why the bytes at `path` cannot be the artifact, or "".

    Args:
        size: bytes of the file; the file at `path` may be longer.

    Raises:
        OSError: the file cannot be read.
    """
    if artifact.sha256 is not None and size:
        return ""
    with open(own_files.open_regular(path), "rb") as file:
        head = file.read(min(size, HEAD))
        file.seek(0)
        if artifact.is_text:
            return text_problem(head)
        if artifact.unpacked:
            return _archive_problem(head)
        return model_problem(head, file, size)
