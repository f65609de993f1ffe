"""What a body is, from its headers and its first bytes."""

from __future__ import annotations

import pytest
from tasks.network import content

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5000000000\n"
PAGE = b"<!DOCTYPE html><html>"


@pytest.mark.parametrize(
    ("text", "coding"),
    [
        # RFC 9110 §8.4.1 and IANA's registry: other bytes
        *((name, name) for name in ("gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd")),
        *((name, name) for name in ("dcb", "dcz", "aes128gcm", "exi", "pack200-gzip")),
        ("GZIP", "gzip"),
        (" gzip ", "gzip"),
        ("gzip, br", "gzip, br"),
        ("aws-chunked, gzip", "gzip"),
        # no coding, though the field says so: the file
        ("", ""),
        ("identity", ""),
        ("aws-chunked", ""),  # S3 keeps what an upload said
        *((name, "") for name in ("utf-8", "UTF8", "none", "binary", "8bit", "base64", "chunked", "null")),
        ("application/octet-stream", ""),
        (",", ""),
    ],
)
def test_coding(text: str, coding: str) -> None:
    """The rest is the file, and the digest judges."""
    assert content.coding({"content-encoding": text}) == coding
    assert content.coding({}) == ""


@pytest.mark.parametrize(
    ("head", "labelled", "pinned", "page"),
    [
        (PAGE, False, True, True),
        (PAGE, True, True, True),
        (b"GGUF\x03\0\0\0", True, False, False),
        (b"MZqFpD='\n", True, False, False),
        (b"jartsr='\n", True, False, False),
        (b"\x7fELF\x02", True, False, False),
        # pinned: the digest judges, unless it is markup
        (b"\x00\x01\x02", True, True, False),
        (b"any text", True, True, False),
        (b"<head><title>Sign in", True, True, True),
        (b"\n <?xml version='1.0'?><!DOCTYPE html>", True, True, True),
        (b"<!-- a comment --><html>", True, True, True),
        (b"", True, True, False),
        # unpinned: the label is believed, unless it begins as a model
        (b"Please sign in", True, False, True),
        (b"\x00\x01\x02", True, False, True),
        (b"", True, False, True),
        # not labelled: only by its bytes
        (b"Please sign in", False, False, False),
        (b"<head><title>Sign in", False, True, False),
    ],
)
def test_page(head: bytes, labelled: bool, pinned: bool, page: bool) -> None:
    """Servers say text/html of files, and login pages say octet-stream."""
    assert content.is_web_page(head, labelled, pinned) is page


@pytest.mark.parametrize(
    ("head", "size", "text"),
    [
        (b"", 0, "0 bytes"),
        (b"Entry not found", 15, '15 bytes, "Entry not found"'),
        (b'{"error":\n "denied"}', 20, '20 bytes, "{"error": "denied"}"'),
        (POINTER, len(POINTER), f"{len(POINTER)} bytes, a Git LFS pointer instead of the file"),
        (PAGE, 21, "21 bytes, a web page"),
        (PAGE, 20_000, "20.0 kB, a web page"),
        (b"GGUF\x03\0\0\0", 8, "8 bytes, which begin as a GGUF file"),
        (b"GGUF\x03\0\0\0", 150_000, "150.0 kB, which begin as a GGUF file"),
        (b"\xff\xfe\x00", 3, "3 bytes"),
        (b" \n ", 3, "3 bytes"),
        (b"\xef\xbb\xbf\nNot Found", 13, '13 bytes, "Not Found"'),
        ("ö".encode() * 300, 600, '600 bytes, "' + "ö" * 80 + '…"'),
        ("ö".encode()[:1] + b"x", 2, "2 bytes"),
        (b"caf\xc3", 999, '999 bytes, "caf"'),  # the rest of the character comes later
        (b"x" * 512, 999, '999 bytes, "' + "x" * 80 + '…"'),
        (b"x" * 512, 1000, "1.00 kB"),
        (b"a\x1b[2Jb", 6, '6 bytes, "a\\x1b[2Jb"'),  # a terminal would obey
    ],
)
def test_received(head: bytes, size: int, text: str) -> None:
    """How many bytes, and if they are few, how they begin."""
    assert content.received(head, size) == text
