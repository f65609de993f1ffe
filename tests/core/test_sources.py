"""Which files an entry means, and where each is said to be (issue 5.3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.sources import (
    MOST_PARTS,
    HubFile,
    Release,
    hub_file,
    part,
    release,
    split_count,
    split_problem,
    wanted,
    wanted_engine,
)
from tests.core.catalogues import A64, B64

HUB = "https://huggingface.co"
COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
GITHUB = "https://github.com/o/r/releases/download"


@pytest.mark.parametrize(
    ("url", "file"),
    [
        pytest.param(f"{HUB}/o/r/resolve/main/m.gguf", HubFile("o/r", "main", "m.gguf"), id="main"),
        pytest.param(f"{HUB}/o/r/resolve/main/m.gguf?x=1", HubFile("o/r", "main", "m.gguf"), id="query"),
        pytest.param(f"{HUB}/o/r/resolve/main/m#x", HubFile("o/r", "main", "m"), id="fragment"),
        pytest.param(f"{HUB}/o/r/resolve/{COMMIT}/q/m", HubFile("o/r", COMMIT, "q/m"), id="in"),
        pytest.param(f"{HUB}/o/r/resolve/pr%2F1/a%20b", HubFile("o/r", "pr/1", "a b"), id="encoded"),
        pytest.param(f"{HUB}/o/r/blob/main/m.gguf", None, id="a page about it"),
        pytest.param(f"{HUB}/datasets/o/r/resolve/main/m.gguf", None, id="a data set"),
        pytest.param("https://huggingface.co.example/o/r/resolve/main/m.gguf", None, id="another host"),
        pytest.param("o/r/resolve/main/m.gguf", None, id="a path"),
    ],
)  # fmt: skip
def test_hub_file(url: str, file: HubFile | None) -> None:
    """Issue 5.3: what the Hub's addresses mean."""
    assert hub_file(url) == file


_word = st.text("abcXYZ019._-", min_size=1).filter(lambda s: s[0].isalnum())


@given(
    st.builds(lambda a, b: f"{a}/{b}", _word, _word),
    st.text("abc019._-/", min_size=1).filter(lambda s: s.strip("/")),
    st.lists(st.text(min_size=1).filter(lambda s: "/" not in s), min_size=1).map("/".join),
)
def test_a_file_of_the_hub_and_its_url(repo: str, revision: str, path: str) -> None:
    """Issue 5.3: whatever revision and path are called, the URL means them."""
    path = path.encode("utf-8", "replace").decode()  # a lone surrogate is in no URL
    assert hub_file(HubFile(repo, revision, path).url) == HubFile(repo, revision, path)


@pytest.mark.parametrize(
    ("revision", "pinned"),
    [(COMMIT, True), (COMMIT[:7], False), ("main", False), (COMMIT.upper(), False), ("v1.0", False)],
)
def test_is_pinned(revision: str, pinned: bool) -> None:
    """Issue 5.1: only a whole commit always means the same bytes."""
    assert HubFile("o/r", revision, "m.gguf").is_pinned is pinned


@pytest.mark.parametrize(
    ("url", "found", "api"),
    [
        pytest.param(
            f"{GITHUB}/0.10.5/llamafile-0.10.5",
            Release("https", "github.com", "o/r", "0.10.5", "llamafile-0.10.5"),
            "https://api.github.com/repos/o/r",
            id="GitHub",
        ),
        pytest.param(
            "http://127.0.0.1:9/o/r/releases/download/v%2F1/a%20b",
            Release("http", "127.0.0.1:9", "o/r", "v/1", "a b"),
            "http://127.0.0.1:9/api/v3/repos/o/r",
            id="an own GitHub, encoded",
        ),
        pytest.param(
            f"{GITHUB}/{{version}}/x-{{version}}",
            Release("https", "github.com", "o/r", "{version}", "x-{version}"),
            "https://api.github.com/repos/o/r",
            id="the latest",
        ),
        pytest.param(f"{GITHUB}/1/x?y=1", None, "", id="with a query"),
        pytest.param("https://github.com/o/r/archive/1.zip", None, "", id="no release"),
    ],
)
def test_release(url: str, found: Release | None, api: str) -> None:
    """Issue 5.1: a release's file, and whom to ask about it."""
    assert release(url) == found
    assert (found.api if found else "") == api


@pytest.mark.parametrize(
    ("url", "count", "problem"),
    [
        pytest.param("m-00001-of-00003.gguf", 3, "", id="the first of three"),
        pytest.param("https://e.org/m-00001-of-00003.gguf?download=true", 3, "", id="with a query"),
        pytest.param("https://e.org/m-00001-of-00003.gguf#x", 3, "", id="with a fragment"),
        pytest.param("m.gguf", 0, "", id="one file"),
        pytest.param("m-00001-of-00001.gguf", 0, "", id="one of one is a file like any other"),
        pytest.param("m-1-of-3.gguf", 0, "", id="other digits"),
        pytest.param("m-00001-of-00003.llamafile", 0, "", id="no GGUF"),
        pytest.param("hf:o/r@main/q/m-00001-of-00002.gguf", 2, "", id="of the Hub"),
        pytest.param(
            "m-00002-of-00003.gguf",
            0,
            "m-00002-of-00003.gguf is part 2 of 3: expected the first, m-00001-of-00003.gguf",
            id="the second",
        ),
        pytest.param(
            "m-00002-of-00003.gguf?x",
            0,
            "m-00002-of-00003.gguf?x is part 2 of 3: expected the first, m-00001-of-00003.gguf?x",
            id="the second, with a query",
        ),
        pytest.param(
            "m-00001-of-01000.gguf",
            0,
            "m-00001-of-01000.gguf is one of 1000 parts: expected 999 at most",
            id="a number of parts that nobody makes",
        ),
    ],
)
def test_split(url: str, count: int, problem: str) -> None:
    """Issue 5.3: a split GGUF is named by its first part."""
    assert (split_count(url), split_problem(url)) == (count, problem)


@given(st.integers(2, MOST_PARTS), st.data())
def test_parts(count: int, data: st.DataObject) -> None:
    """Issue 5.3: every part has its own name, as llama_split_path makes it; the first one's is the URL."""
    url = f"https://e.org/x/m-00001-of-{count:05}.gguf?a-00009-of-00009.gguf"
    number = data.draw(st.integers(2, count))
    assert part(url, 1) == url
    assert part(url, number) == f"https://e.org/x/m-{number:05}-of-{count:05}.gguf?a-00009-of-00009.gguf"
    assert split_problem(part(url, number))


ENTRIES = [
    pytest.param(
        {"url": "u.gguf", "mirrors": ["v.gguf"], "sha256": A64, "size": 5},
        [("u.gguf", "u.gguf", ("v.gguf",), A64, 5, False)],
        id="a URL",
    ),
    pytest.param(
        {"hf": "o/r", "file": "q/m.gguf"},
        [("hf:o/r@main/q/m.gguf", f"{HUB}/o/r/resolve/main/q/m.gguf", (), None, None, False)],
        id="main of the Hub, unsaid",
    ),
    pytest.param(
        {"hf": "o/r", "file": "a b.gguf", "revision": "refs/pr/1"},
        [("hf:o/r@refs/pr/1/a b.gguf", f"{HUB}/o/r/resolve/refs%2Fpr%2F1/a%20b.gguf", (), None, None, False)],
        id="a revision",
    ),
    pytest.param(
        {
            "url": "u-00001-of-00002.gguf",
            "mirrors": ["https://e.org/w-00001-of-00002.gguf"],
            "parts": [{"sha256": A64, "size": 1}, {"sha256": B64}],
        },
        [
            ("u-00001-of-00002.gguf",) * 2 + (("https://e.org/w-00001-of-00002.gguf",), A64, 1, False),
            ("u-00002-of-00002.gguf",) * 2 + (("https://e.org/w-00002-of-00002.gguf",), B64, None, False),
        ],
        id="two parts",
    ),
    pytest.param(
        {"hf": "o/r", "file": "m.gguf", "revision": COMMIT, "mmproj": {"file": "p.gguf", "sha256": A64}},
        [
            (f"hf:o/r@{COMMIT}/m.gguf", f"{HUB}/o/r/resolve/{COMMIT}/m.gguf", (), None, None, False),
            (f"hf:o/r@{COMMIT}/p.gguf", f"{HUB}/o/r/resolve/{COMMIT}/p.gguf", (), A64, None, True),
        ],
        id="a projector of the same repository and revision",
    ),
    pytest.param(
        {"hf": "o/r", "file": "m.gguf", "revision": COMMIT, "mmproj": {"hf": "o/eyes", "file": "p.gguf"}},
        [
            (f"hf:o/r@{COMMIT}/m.gguf", f"{HUB}/o/r/resolve/{COMMIT}/m.gguf", (), None, None, False),
            ("hf:o/eyes@main/p.gguf", f"{HUB}/o/eyes/resolve/main/p.gguf", (), None, None, True),
        ],
        id="a projector of another repository, whose revision is its own",
    ),
    pytest.param(
        {"url": "m.gguf", "mmproj": {"url": "p.gguf", "mirrors": ["q.gguf"], "size": 3}},
        [
            ("m.gguf", "m.gguf", (), None, None, False),
            ("p.gguf", "p.gguf", ("q.gguf",), None, 3, True),
        ],
        id="a projector by its URL",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "files"), ENTRIES)
def test_files_of_an_entry(entry: dict[str, Any], files: list[tuple[Any, ...]]) -> None:
    """Issue 5.3: all its files, the one that is served first."""
    assert [tuple(one) for one in wanted(entry)] == files


@pytest.mark.parametrize(
    ("engine", "url", "mirrors"),
    [
        pytest.param({"url": "e-1", "version": "1.0"}, "e-1", (), id="an address"),
        pytest.param({"url": "e-{version}", "version": "1.0"}, "e-1.0", (), id="of a version"),
        pytest.param(
            {"url": "e-{version}", "mirrors": ["f/{version}"], "version": "latest"},
            "e-{version}",
            ("f/{version}",),
            id="the lock file says of which",
        ),
        pytest.param({"url": "latest/e-{version}", "version": "2.0"}, "latest/e-2.0", (), id="a word in it"),
    ],
)
def test_program_of_an_engine(engine: dict[str, Any], url: str, mirrors: tuple[str, ...]) -> None:
    """R16, issue 5.1: its source is what changes when another version is wanted."""
    found = wanted_engine(engine)
    assert found is not None
    assert (found.source, found.url, found.mirrors) == (url, url, mirrors)


def test_a_package_has_no_program() -> None:
    """R16: the embedded engine is none of ours to fetch."""
    assert wanted_engine({"title": "e", "license": "MIT"}) is None
