"""Untrusted names give a file in the intended folder on every system."""

from __future__ import annotations

import ntpath
import posixpath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tasks.errors import UsageError
from tasks.system.paths import (
    ENDING_BYTES,
    MAX_BYTES,
    NAME_BYTES,
    TEMPORARY,
    inside,
    is_path,
    is_version,
    name_problem,
    shared_mode,
    temporary_key,
    temporary_name,
)


@pytest.mark.parametrize(
    "name",
    [
        "m.gguf",
        "Llama-3.2-8X3B-GATED-MOE.i1-Q4_K_M.gguf",
        "mixtral (1).llamafile",
        "llamafile-0.10.5",
        "llamafile-0.10.5.exe",
        "模型.gguf",
        "console.gguf",
        "com10.gguf",
        "a..b",
        "x" * MAX_BYTES,
    ],
)
def test_a_name(name: str) -> None:
    """A usual name is taken as it is."""
    assert inside("/c/models", name) == f"/c/models/{name}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "expected the name of a file"),
        (".", "expected the name of a file"),
        ("..", "expected the name of a file"),
        ("a/b", "'/' cannot be in"),
        ("../a", "'/' cannot be in"),
        ("/etc/passwd", "'/' cannot be in"),
        ("x/../../../victim/.bashrc", "'/' cannot be in"),
        ("a\\b", "cannot be in"),
        ("..\\a", "cannot be in"),
        ("C:", "':' cannot be in"),
        ("C:x", "':' cannot be in"),
        ("m.gguf:stream", "':' cannot be in"),
        ("a\0b", "cannot be in"),
        ("a\nb", "cannot be in"),
        ("a\x1b[31mb", "cannot be in"),
        ("a\x7fb", "cannot be in"),
        ("a\u202egpj.exe", "cannot be in"),
        ("\ud800", "cannot be in"),
        ("-rf", "cannot begin with '-'"),
        (".bashrc", "cannot begin with '.'"),
        ("...", "cannot begin with '.'"),
        ("m.gguf.", "cannot end with '.'"),
        ("m.gguf ", "cannot end with ' '"),
        ("CON", "Windows reserves"),
        ("nul.gguf", "Windows reserves"),
        ("Com1.llamafile", "Windows reserves"),
        ("lpt9.tar.gz", "Windows reserves"),
        ("COM²", "Windows reserves"),
        ("aux .gguf", "Windows reserves"),
        ("CONIN$", "Windows reserves"),
        ("x" * (MAX_BYTES + 1), f"has {MAX_BYTES + 1} bytes, expected {MAX_BYTES} at most"),
        ("é" * 122, "has 244 bytes, expected 242 at most"),
    ],
)
def test_not_a_name(name: str, why: str) -> None:
    """Whatever leads elsewhere on some system is refused on all."""
    assert why in name_problem(name)
    with pytest.raises(UsageError, match="cannot be a file in /c/models"):
        inside("/c/models", name)


PARTS = ("..", ".", "/", "\\", ":", "C:", "a", "m.gguf", "\0", " ", "CON", "~", "$X", "%2e%2e")
texts = st.text() | st.lists(st.sampled_from(PARTS)).map("".join)


@given(texts)
@example("x/../../../victim/.bashrc")
@example("..\\..\\victim")
@example("C:\\Windows\\x")
@example("\\\\server\\share")
def test_the_result_stays_inside(name: str) -> None:
    """Linux, macOS and Windows: the result is a file in the folder, or the name is refused."""
    for flavour, folder in ((posixpath, "/home/u/c/models"), (ntpath, "C:\\u\\c\\models")):
        paths: Any = flavour
        try:
            path = inside(folder, name)
        except UsageError:
            continue
        assert paths.dirname(paths.normpath(path)) == folder
        assert paths.basename(paths.normpath(path)) == name
        assert paths.join(folder, name) == paths.normpath(path).replace("/", paths.sep)
        assert len(name.encode()) + ENDING_BYTES <= NAME_BYTES


@given(texts)
def test_a_version_is_a_name(text: str) -> None:
    """What an engine's version may be can be part of a file's name and of a URL."""
    if is_version(text):
        assert name_problem(f"llamafile-{text}") in ("", "the name of a file cannot end with '.'")
        assert not set(text) & set("/\\:%?#")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("0.10.5", True),
        ("1.0.0-rc.1+build", True),
        ("2024_11", True),
        ("", False),
        ("-1", False),
        (".5", False),
        ("x/../../../victim/.bashrc", False),
        ("1\n", False),
        ("1%2f", False),
        ("1 0", False),
        ("٣", False),
        ("9" * 65, False),
    ],
)
def test_versions(text: str, fits: bool) -> None:
    """Letters, digits and four signs of ASCII."""
    assert is_version(text) is fits


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("/home/u/models.yaml", True),
        ("/tmp/n\udce9", True),  # a byte that is not UTF-8, as Python has it
        ("", False),
        ("a\0b", False),
        ("\ud800", False),
        (None, False),
        (["/a"], False),
        (b"/a", False),
    ],
)
def test_paths_of_records(value: object, fits: bool) -> None:
    """A path that no system call takes is not a path."""
    assert is_path(value) is fits


@given(st.text(min_size=1), st.integers(1, 2**31), st.sampled_from([".tmp", ".copy", ".new.tmp"]))
def test_temporary_names(name: str, pid: int, ending: str) -> None:
    """Short whatever the file's own name is, found by it, and known again."""
    import re

    found = temporary_name(name, pid, "0123abcd", ending)
    assert len(found.encode()) <= 40
    assert found.startswith(temporary_key(name))
    assert re.fullmatch(TEMPORARY + re.escape(ending), found)
    assert temporary_key(name + "x") != temporary_key(name)


@pytest.mark.parametrize(
    ("cache", "is_same_group", "mode"),
    [
        (0o755, True, 0o755),
        (0o2775, True, 0o2775),
        (0o1777, True, 0o1777),
        (0o755, False, 0o755),
        (0o2775, False, 0o755),  # its group's permission is not for another group
        (0o1777, False, 0o1777),
        (0o757, False, 0o777),
        (0o700, False, 0o700),
    ],
)
def test_permissions_of_a_folder(cache: int, is_same_group: bool, mode: int) -> None:
    """F1: who may write the cache may write its folders, and nobody else."""
    assert shared_mode(cache, is_same_group) == mode
