"""One file: where it lies, and whether what lies there is it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.artifact import (
    Artifact,
    Stamp,
    TargetState,
    compare_target,
    engine_dir,
    engine_filename,
    is_gguf,
    is_native,
    model_dir,
    native_format,
    parse_stamp,
    stamp_data,
    stamp_path,
)
from tasks.system.file_stat import FileStat

A64, B64 = "a" * 64, "b" * 64
HERE = FileStat(1000, 5_000_000_000, dev=1, ino=2, ctime_ns=6_000_000_000)
PINNED = Artifact("m", ("https://h/m",), "/c/m", A64, 1000)
UNPINNED = Artifact("m", ("https://h/m",), "/c/m")
OWN = Artifact("m", (), "/home/m", in_cache=False)
OWN_PINNED = Artifact("m", (), "/home/m", A64, in_cache=False)
PROVEN = Stamp(HERE, A64, "https://h/m", {})
OTHER = PROVEN._replace(sha256=B64)
UNKNOWN = PROVEN._replace(sha256=None)
ANY = [PINNED, UNPINNED, OWN, OWN_PINNED]


@pytest.mark.parametrize(
    ("artifacts", "stat", "stamp", "state"),
    [
        pytest.param(ANY, None, None, TargetState.MISSING, id="no file"),
        pytest.param(ANY, None, PROVEN, TargetState.MISSING, id="no file, whatever was proven of it"),
        pytest.param(ANY, HERE, PROVEN, TargetState.FRESH, id="R6: as it was proven"),
        pytest.param(
            [PINNED, UNPINNED], HERE, None, TargetState.UNVERIFIED, id="in our cache, and nothing proven"
        ),
        pytest.param(
            [OWN_PINNED], HERE, None, TargetState.UNVERIFIED, id="the user's, with a digest to be proven"
        ),
        pytest.param([OWN], HERE, None, TargetState.FRESH, id="the user's own file is what it is"),
        pytest.param(
            [PINNED, OWN_PINNED],
            HERE,
            OTHER,
            TargetState.UNVERIFIED,
            id="R36: the catalogue wants other bytes now",
        ),
        pytest.param(
            [UNPINNED, OWN], HERE, OTHER, TargetState.FRESH, id="nothing pins it: what was proven holds"
        ),
        pytest.param(
            [PINNED, OWN_PINNED],
            HERE,
            UNKNOWN,
            TargetState.UNVERIFIED,
            id="run once, but its bytes were never read",
        ),
        pytest.param([OWN], HERE, UNKNOWN, TargetState.FRESH, id="which a file of the user's need not be"),
        *(
            pytest.param([PINNED, UNPINNED, OWN_PINNED], changed, PROVEN, TargetState.UNVERIFIED, id=name)
            for name, changed in {
                "another size": HERE._replace(size=1001),
                "a ns later": HERE._replace(mtime_ns=HERE.mtime_ns + 1),
                "a ns earlier": HERE._replace(mtime_ns=HERE.mtime_ns - 1),
                "another file": HERE._replace(ino=3),
                "another file system": HERE._replace(dev=2),
                "written, and its time set back": HERE._replace(ctime_ns=HERE.ctime_ns + 1),
            }.items()
        ),
        pytest.param(
            [PINNED, UNPINNED, OWN_PINNED],
            HERE,
            PROVEN._replace(stat=FileStat(HERE.size, HERE.mtime_ns, -1, -1, -1)),
            TargetState.UNVERIFIED,
            id="a stamp of an older version",
        ),
        pytest.param(
            [OWN],
            HERE._replace(size=1001),
            PROVEN,
            TargetState.FRESH,
            id="the user changed the user's own file",
        ),
    ],
)
def test_what_lies_at_a_target(
    artifacts: list[Artifact], stat: FileStat | None, stamp: Stamp | None, state: TargetState
) -> None:
    """R6, R20, R36: by a stat and a stamp alone, no byte is read."""
    assert [compare_target(artifact, stat, stamp) for artifact in artifacts] == [state] * len(artifacts)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
_STAMPS = st.builds(
    Stamp,
    st.builds(FileStat, *[st.integers()] * 5),
    st.none() | st.text(),
    st.text(),
    st.dictionaries(st.text(), st.text()),
)


@given(
    _JSON
    | st.fixed_dictionaries(
        dict.fromkeys(("size", "mtime_ns", "sha256"), _SCALARS),
        optional={"source": _JSON, "engines": _JSON, "dev": _SCALARS, "checksum": _SCALARS},
    )
)
def test_whatever_stands_in_a_stamp_file(data: Any) -> None:
    """A stamp or None, never an exception: None costs a look at the bytes, no more."""
    stamp = parse_stamp(json.loads(json.dumps(data)))
    assert stamp is None or parse_stamp(stamp_data(stamp)) == stamp


@given(_STAMPS)
def test_a_stamp_survives_its_file(stamp: Stamp) -> None:
    """What was proven is read back as it was written."""
    assert parse_stamp(json.loads(json.dumps(stamp_data(stamp)))) == stamp


_WHOLE = stamp_data(PROVEN)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": B64}, {"sha256": None}, {"size": 1001}, {"mtime_ns": 1}, {"dev": 9}, {"ino": 9},
        {"ctime_ns": 9}, {"source": "https://elsewhere/m"}, {"engines": {"self": "1"}}, {"later": 1},
        {"checksum": None}, {"checksum": A64}, {"ino": "2"},
    ],
    ids=str,
)  # fmt: skip
def test_a_stamp_that_was_damaged(change: dict[str, Any]) -> None:
    """Issue 11: its checksum is of all of it, so that no part of it can be another one."""
    assert parse_stamp({**_WHOLE, **change}) is None


def test_a_stamp_without_a_part() -> None:
    """Issue 11: nor may one be taken out; without all that is new, it is a stamp of before."""
    for key in _WHOLE:
        assert parse_stamp({name: value for name, value in _WHOLE.items() if name != key}) is None


_PLAIN = {"size": 1, "mtime_ns": 2, "sha256": A64}
_OLD = FileStat(1, 2, -1, -1, -1)  # of no file


@pytest.mark.parametrize(
    ("data", "stamp"),
    [
        pytest.param(_WHOLE, PROVEN, id="as it is written"),
        pytest.param(_PLAIN, Stamp(_OLD, A64, "", {}), id="an older version: what must be there"),
        pytest.param({**_PLAIN, "sha256": None}, Stamp(_OLD, None, "", {}), id="no digest"),
        pytest.param(
            {**_PLAIN, "engines": {"self": "0.8.6"}}, Stamp(_OLD, A64, "", {"self": "0.8.6"}), id="engines"
        ),
        pytest.param({"size": 1, "mtime_ns": 2}, None, id="a key is missing"),
        pytest.param({**_PLAIN, "size": "x"}, None, id="a size that is none"),
        pytest.param({**_PLAIN, "size": float("inf")}, None, id="a size without end"),
        pytest.param({**_PLAIN, "mtime_ns": float("nan")}, None, id="a time that is no number"),
        pytest.param({**_PLAIN, "engines": 3}, None, id="engines that are none"),
        pytest.param({**_PLAIN, "dev": 1, "ino": 2, "ctime_ns": 3}, None, id="no checksum"),
        pytest.param(None, None, id="no file"),
        pytest.param([], None, id="a list"),
    ],
)
def test_stamp_file(data: Any, stamp: Stamp | None) -> None:
    """A file of another version, or damaged, is no stamp."""
    assert parse_stamp(data) == stamp


def test_an_engine_is_added_to_what_was_proven() -> None:
    """The others stay, and so does the stamp it began with."""
    before = PROVEN.with_engine("self", "0.8.6")
    after = before.with_engine("llamafile", "0.10.5").with_engine("self", "0.9")
    assert after == PROVEN._replace(engines={"self": "0.9", "llamafile": "0.10.5"})
    assert before.engines == {"self": "0.8.6"}


_KEY = "0f115db062b7c0dd"  # what sha256sum says of https://example.com/ begins with
_OWN = Artifact("m", (), "https://example.com/", in_cache=False)


@pytest.mark.parametrize(
    ("got", "path"),
    [
        pytest.param(PINNED.partial, "/c/m.partial", id="bytes so far"),
        pytest.param(PINNED.journal, "/c/m.partial.json", id="what is known of them"),
        pytest.param(stamp_path("/c", PINNED), "/c/m.stamp.json", id="a stamp beside a file of ours"),
        pytest.param(stamp_path("/c", _OWN), f"/c/stamps/{_KEY}.json", id="never beside one of the user's"),
        pytest.param(model_dir("/c", A64, "u"), f"/c/models/{A64[:16]}", id="a model, by its digest"),
        pytest.param(
            model_dir("/c", None, "https://example.com/"), f"/c/models/url-{_KEY}", id="a model, by its URL"
        ),
        pytest.param(engine_dir("/c", A64, "u"), f"/c/engines/{A64[:16]}", id="an engine, by its digest"),
        pytest.param(
            engine_dir("/c", None, "https://example.com/"), f"/c/engines/url-{_KEY}", id="by its URL"
        ),
        pytest.param(engine_filename("0.10.5", "linux"), "llamafile-0.10.5", id="an engine"),
        pytest.param(engine_filename("0.10.5", "win32"), "llamafile-0.10.5.exe", id="R9: on Windows"),
    ],
)
def test_paths(got: str, path: str) -> None:
    """Where everything lies: the cache of one version is that of the next."""
    assert got == path


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        pytest.param(b"GGUF\x03\0\0\0", True, id="version 3"),
        pytest.param(b"GGUF\x02\0\0\0more", True, id="version 2"),
        pytest.param(b"GGUF\x01\0\0\0", False, id="version 1, which nobody reads any more"),
        pytest.param(b"GGUF\0\0\0\x03", False, id="big-endian"),
        pytest.param(b"GGUF", False, id="cut off"),
        pytest.param(b"GGUF\x03\0\0", False, id="cut off within the version"),
        pytest.param(b"MZqFpD='", False, id="a llamafile"),
        pytest.param(b"<!doctype html>", False, id="a web page"),
        pytest.param(b"", False, id="an empty file"),
    ],
)
def test_gguf(head: bytes, verdict: bool) -> None:
    """By its first eight bytes."""
    assert is_gguf(head) is verdict


ELF = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0"


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (ELF + b"\x3e\0", "an ELF program for x86_64"),
        (ELF + b"\xb7\0", "an ELF program for aarch64"),
        (ELF + b"\xf3\0", "an ELF program for another CPU"),
        (b"\x7fELF\2\2\1" + bytes(11) + b"\0\xb7", "an ELF program for aarch64"),  # big-endian
        (b"\x7fELF", "an ELF program for another CPU"),
        (bytes.fromhex("cffaedfe 07000001"), "a Mach-O program for x86_64, which macOS starts"),
        (bytes.fromhex("cffaedfe 0c000001"), "a Mach-O program for arm64, which macOS starts"),
        (b"MZqFpD='", ""),
        (b"#!/bin/sh", ""),
        (b"GGUF", ""),
        (b"", ""),
    ],
)
def test_native_programs(head: bytes, found: str) -> None:
    """F37: what a llamafile is after `--assimilate`, and what it was before."""
    assert (native_format(head), is_native(head)) == (found, bool(found))
