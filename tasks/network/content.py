"""Tell from a response's headers and first bytes what its body is. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Mapping

from tasks.console import formatting
from tasks.console.text import WORD, visible

HEAD_BYTES = 512  # that are looked at
FEW_BYTES = 1000  # a body of fewer bytes is an error message, not a file
_SHOWN = 80  # characters of a text in a message
# Source: the HTTP Content Coding Registry of IANA. Any other value, such as
# `aws-chunked` or `utf-8`, is the mistake of a server that sends the bytes as they are.
_CODINGS = frozenset(
    {
        *("aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip"),
        *("pack200-gzip", "x-compress", "x-gzip", "zstd"),
    }
)
_MODELS = (b"GGUF", b"MZqFpD", b"jartsr", b"\x7fELF")
_PAGES = (b"<!doctype html", b"<html")
_BLANK = b"\xef\xbb\xbf \t\r\n\f"  # also the byte order mark of UTF-8
# Source: git-lfs docs/spec.md
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def coding(headers: Mapping[str, str]) -> str:
    """Return the codings that change the bytes of a body (RFC 9110 §8.4), or "".

    Args:
        headers: with lower-case names.
    """
    words = headers.get("content-encoding", "").lower().split(",")
    return ", ".join(word.strip() for word in words if word.strip() in _CODINGS)


def is_labelled_page(headers: Mapping[str, str]) -> bool:
    """Return whether Content-Type says that a body is a web page."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml")


def is_web_page(head: bytes, labelled: bool = False, pinned: bool = False) -> bool:
    """Return whether the first bytes of a body belong to a web page.

    Args:
        labelled: Content-Type says so. Some servers say it of every file.
        pinned: a digest is known, which rejects other text.
    """
    start = head[:HEAD_BYTES].lstrip(_BLANK)
    if start[:14].lower().startswith(_PAGES):
        return True
    if not labelled or head.startswith(_MODELS):
        return False
    return not pinned or start.startswith(b"<")


def is_lfs_pointer(head: bytes) -> bool:
    """Return whether the first bytes are a Git LFS pointer."""
    return head.startswith(_LFS_POINTER)


def text_start(head: bytes) -> str:
    """Return how a text begins, on one line; "" for other bytes.

    The text is untrusted: it may contain control characters.
    """
    try:
        # the last character may be incomplete
        text, _ = codecs.utf_8_decode(head.lstrip(_BLANK))
    except UnicodeDecodeError:
        return ""
    text = " ".join(text.split())
    if len(text) > _SHOWN:
        return f"{text[:_SHOWN]}…"
    return text


def received(head: bytes, size: int) -> str:
    """Return how many bytes a body has and how they begin, for a message.

    Args:
        head: its first bytes.
        size: bytes of the whole body.
    """
    count = f"{size} bytes"
    if size >= FEW_BYTES:
        count = formatting.format_size(size)
    kind = opening(head, size)
    return f"{count}, {kind}" if kind else count


def opening(head: bytes, size: int) -> str:
    """Return what the first bytes are, "" if that is not known."""
    if is_lfs_pointer(head):
        return "a Git LFS pointer instead of the file"
    if is_web_page(head):
        return "a web page"
    if head.startswith(b"GGUF"):
        return "which begin as a GGUF file"
    text = text_start(head)
    if size >= FEW_BYTES or not text:
        return ""
    return f'"{visible(text, WORD)}"'
