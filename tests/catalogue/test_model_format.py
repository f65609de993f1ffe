"""What a file is: the bytes win over the name (F10, F16, F30)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.model_format import (
    NEWER_GGUF,
    format_fix,
    head_problem,
    holds_gguf,
    holds_program,
    is_model,
)

GGUF = b"GGUF\3\0\0\0"
APE = b"MZqFpD='\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n"


# first bytes, name, whether it is a GGUF, whether it is a llamafile
KINDS = [
    # no file yet: the name
    (b"", "m.gguf", True, False),
    (b"", "M.GGUF", True, False),
    (b"", "m.Gguf", True, False),
    (b"", "m.llamafile", False, True),
    (b"", "M.LLAMAFILE", False, True),
    (b"", "m.bin", False, False),
    (b"", "m.gguf.bin", False, False),
    (b"", "gguf", False, False),
    # the bytes
    (GGUF, "sha256-ab", True, False),
    (GGUF, "m.bin", True, False),
    (GGUF, "m.llamafile", True, False),
    (APE, "m.gguf", False, True),
    (APE, "sha256-ab", False, True),
    (b"#!/bin/sh\n", "m.gguf", False, True),
    # bytes of neither: the name
    (LFS, "m.gguf", True, False),
    (LFS, "m.llamafile", False, True),
    (b"GGUF\1\0\0\0", "m.gguf", True, False),
]


@pytest.mark.parametrize(("head", "name", "gguf", "program"), KINDS)
def test_the_bytes_win(head: bytes, name: str, gguf: bool, program: bool) -> None:
    """F10: the first bytes decide, and the name only where they decide nothing."""
    assert holds_gguf(head, name) is gguf
    assert holds_program(head, name) is program


# first bytes, what is wrong with them
HEADS = [
    (GGUF, ""),
    (b"GGUF\2\0\0\0", ""),
    (APE, ""),
    (b"jartsr='", ""),
    (b"APEDBG='", ""),
    (b"#!/bin/sh", ""),
    (b"", "it is empty (0 bytes)"),
    (b"GGUF", "it is a GGUF that ends after 4 bytes"),
    (b"GGUF\3\0\0", "it is a GGUF that ends after 7 bytes"),
    (b"GGUF\1\0\0\0", "it is a GGUF of version 1, which engines do not read any more"),
    (b"GGUF\0\0\0\3", "it is a big-endian GGUF, for processors of another byte order"),
    (b"GGUF\0\0\0\1", "it is a big-endian GGUF, for processors of another byte order"),
    (b"GGUF\4\0\0\0", "it is a GGUF of version 4, which is not known here"),
    (b"GGUF\0\0\0\0", "it is a GGUF of version 0, which is not known here"),
    (LFS, "it is a Git LFS pointer, not the file that it names"),
    (b"<!DOCTYPE html><p>", "it is a web page"),
    (b"\xef\xbb\xbf\n <HTML lang=de>", "it is a web page"),
    (b'{"error":"Repository not found"}', 'it is JSON: {"error":"Repository not found"}'),
    (b"\n[1]", "it is JSON: [1]"),
    (b"Entry not found", "it is text: Entry not found"),
    (b"\nFehler: gr\xc3\xb6\xc3\x9fer\r\nmehr", "it is text: Fehler: größer mehr"),
    (b"a" * 81, "it is text: " + "a" * 80 + "…"),
    (b"\x1b[2Jx", "it begins with the bytes 1b 5b 32 4a 78"),
    (b" \n", "it begins with the bytes 20 0a"),
    (b"\0" * 512, "it begins with the bytes 00 00 00 00 00 00 00 00"),
    (b"PK\3\4\xff\xff", "it begins with the bytes 50 4b 03 04 ff ff"),
    (b"gguf\3\0\0\0", "it begins with the bytes 67 67 75 66 03 00 00 00"),
    (b"\x7fELF\2\1\1\0", ""),  # an assimilated llamafile
    (b"PK\3\4\x14\0\0\0", "it begins with the bytes 50 4b 03 04 14 00 00 00"),
]


@pytest.mark.parametrize(("head", "problem"), HEADS)
def test_what_it_is_instead(head: bytes, problem: str) -> None:
    """F16, F30: a file that does not begin as a model does is named."""
    assert head_problem(head) == problem
    assert is_model(head) is (not problem)
    is_other_gguf = head.startswith(b"GGUF") and len(head) == 8 and bool(problem)
    assert format_fix(head) == (NEWER_GGUF if is_other_gguf else "")


@given(st.binary(max_size=600) | st.binary(max_size=60).map(lambda rest: b"GGUF" + rest))
def test_any_bytes(head: bytes) -> None:
    """The text is one printable line."""
    assert head_problem(head).isprintable()
    assert bool(head_problem(head)) != is_model(head)
