"""What a file is, by its first bytes and by its name; the bytes win. Pure.

Source: ggml docs/gguf.md (magic, version, byte order).
"""

from __future__ import annotations

from tasks.catalogue.artifact import EXECUTABLE_MAGICS, is_gguf, is_native
from tasks.network import content

HEAD = content.HEAD_BYTES  # bytes that the functions look at
_MAGIC = b"GGUF"

NEWER_GGUF = (
    "convert the model again, or use the file of another publisher: GGUF version 2 or "
    "3, little-endian"
)


def is_program(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a llamafile, or a script."""
    return head.startswith(EXECUTABLE_MAGICS) or is_native(head)


def is_model(head: bytes) -> bool:
    """Whether a file begins as a model does: a GGUF or a llamafile."""
    return is_gguf(head) or is_program(head)


def has_gguf_name(filename: str) -> bool:
    """Whether a file name has the ending of a GGUF, in any case."""
    return filename.lower().endswith(".gguf")


def has_llamafile_name(filename: str) -> bool:
    """Whether a file name has the ending of a llamafile, in any case."""
    return filename.lower().endswith(".llamafile")


def has_model_name(filename: str) -> bool:
    """Whether a file name has the ending of a GGUF or of a llamafile."""
    return has_gguf_name(filename) or has_llamafile_name(filename)


def holds_gguf(head: bytes, filename: str) -> bool:
    """Whether a file is a GGUF: by its bytes, else by its name.

    Args:
        head: its first bytes; empty if it does not exist yet.
    """
    if is_model(head):
        return is_gguf(head)
    return has_gguf_name(filename)


def holds_program(head: bytes, filename: str) -> bool:
    """Whether a file is a llamafile: by its bytes, else by its name."""
    if is_model(head):
        return is_program(head)
    return has_llamafile_name(filename)


def head_problem(head: bytes) -> str:
    """Return what a file is that does not begin as a model does; else "".

    Args:
        head: its first HEAD bytes, or all of a shorter file.
    """
    if is_model(head):
        return ""
    if not head:
        return "it is empty (0 bytes)"
    if head.startswith(_MAGIC):
        return _gguf_problem(head)
    if content.is_lfs_pointer(head):
        return "it is a Git LFS pointer, not the file that it names"
    if content.is_web_page(head):
        return "it is a web page"
    text = content.text_start(head)
    if not text or not text.isprintable():
        return f"it begins with the bytes {head[:8].hex(' ')}"
    kind = "text"
    if text.startswith(("{", "[")):
        kind = "JSON"
    return f"it is {kind}: {text}"


def text_problem(head: bytes) -> str:
    """Return why a file is not a text that someone wrote, such as a template; or "".

    Args:
        head: its first HEAD bytes, or all of a shorter file.
    """
    if not head:
        return "it is empty (0 bytes)"
    if content.is_lfs_pointer(head):
        return "it is a Git LFS pointer, not the file that it names"
    if content.is_web_page(head):
        return "it is a web page"
    if b"\0" in head or not content.text_start(head):
        return f"it is not a text: it begins with {head[:8]!r}"
    return ""


def _gguf_problem(head: bytes) -> str:
    """Return what is wrong with a GGUF's version, or that it has none."""
    if len(head) < 8:
        return f"it is a GGUF that ends after {len(head)} bytes"
    version = int.from_bytes(head[4:8], "little")
    if version == 1:
        return "it is a GGUF of version 1, which engines do not read any more"
    if int.from_bytes(head[4:8], "big") in (1, 2, 3):
        return "it is a big-endian GGUF, for processors of another byte order"
    return f"it is a GGUF of version {version}, which is not known here"


def format_fix(head: bytes) -> str:
    """Return the fix for a GGUF that engines do not read; "" for anything else."""
    if head.startswith(_MAGIC) and len(head) >= 8 and not is_gguf(head):
        return NEWER_GGUF
    return ""
