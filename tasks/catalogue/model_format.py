"""What a file is, by its first bytes and by its name; the bytes win. Pure.

Source: ggml docs/gguf.md (magic, version, byte order); git-lfs docs/spec.md.
"""

from __future__ import annotations

from tasks.catalogue.artifact import EXECUTABLE_MAGICS, is_gguf, is_native
from tasks.network.content import is_web_page

HEAD = 512  # bytes that the functions look at
_MAGIC = b"GGUF"
_LFS = b"version https://git-lfs.github.com/spec/"
_SHOWN = 60  # characters of a text in a message

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
    if head.startswith(_LFS):
        return "it is a Git LFS pointer, not the file that it names"
    if is_web_page(head):
        return "it is a web page"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n\f")
    kind = "text"
    if text.startswith((b"{", b"[")):
        kind = "JSON"
    shown = _readable(text)
    if shown:
        return f"it is {kind}: {shown}"
    return f"it begins with {head[:8]!r}"


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


def _readable(text: bytes) -> str:
    """Return the first line of a text; "" for binary data."""
    line = text.strip().partition(b"\n")[0].strip()
    try:
        shown = line.decode()
    except UnicodeDecodeError:
        return ""
    if not shown.isprintable():
        return ""
    if len(shown) > _SHOWN:
        return f"{shown[:_SHOWN]}…"
    return shown
