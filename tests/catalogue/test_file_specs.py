"""Which files an entry means, and where each is said to be (issue 5.3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.file_specs import (
    MAX_PARTS,
    HubFile,
    Release,
    engine_file_spec,
    file_specs,
    guess_model_info,
    parse_hub_reference,
    parse_hub_url,
    parse_release_url,
    part_url,
    split_count,
    split_error,
)

from tests.support.catalogues import A64, B64

HUB = "https://huggingface.co"
COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
GITHUB = "https://github.com/o/r/releases/download"


@pytest.mark.parametrize(
    ("url", "file"),
    [
        pytest.param(f"{HUB}/o/r/resolve/main/m.gguf", HubFile("o/r", "main", "m.gguf"), id="main"),
        pytest.param(f"{HUB}/o/r/resolve/main/m.gguf?x=1", HubFile("o/r", "main", "m.gguf"), id="query"),
        pytest.param(f"{HUB}/o/r/resolve/main/m#x", HubFile("o/r", "main", "m"), id="fragment"),
        pytest.param(f"{HUB}/o/r/resolve/{COMMIT}/q/m", HubFile("o/r", COMMIT, "q/m"), id="folder"),
        pytest.param(f"{HUB}/o/r/resolve/pr%2F1/a%20b.g", HubFile("o/r", "pr/1", "a b.g"), id="encoded"),
        pytest.param(f"{HUB}/o/r/blob/main/m.gguf", None, id="a page about it"),
        pytest.param(f"{HUB}/datasets/o/r/resolve/main/m.gguf", None, id="a data set"),
        pytest.param("https://huggingface.co.example/o/r/resolve/main/m.gguf", None, id="another host"),
        pytest.param("o/r/resolve/main/m.gguf", None, id="a path"),
    ],
)  # fmt: skip
def test_hub_file(url: str, file: HubFile | None) -> None:
    """Issue 5.3: what the Hub's addresses mean."""
    assert parse_hub_url(url) == file


_word = st.text("abcXYZ019._-", min_size=1).filter(lambda s: s[0].isalnum())


@given(
    st.builds(lambda a, b: f"{a}/{b}", _word, _word),
    st.text("abc019._-/", min_size=1).filter(lambda s: s.strip("/")),
    st.lists(st.text(min_size=1).filter(lambda s: "/" not in s), min_size=1).map("/".join),
)
def test_a_file_of_the_hub_and_its_url(repo: str, revision: str, path: str) -> None:
    """Issue 5.3: whatever revision and path are called, the URL means them."""
    path = path.encode("utf-8", "replace").decode()  # a lone surrogate is in no URL
    assert parse_hub_url(HubFile(repo, revision, path).url) == HubFile(repo, revision, path)


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
    assert parse_release_url(url) == found
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
    assert (split_count(url), split_error(url)) == (count, problem)


@given(st.integers(2, MAX_PARTS), st.data())
def test_parts(count: int, data: st.DataObject) -> None:
    """Issue 5.3: every part has its own name, as llama_split_path makes it; the first one's is the URL."""
    url = f"https://e.org/x/m-00001-of-{count:05}.gguf?a-00009-of-00009.gguf"
    number = data.draw(st.integers(2, count))
    assert part_url(url, 1) == url
    assert part_url(url, number) == f"https://e.org/x/m-{number:05}-of-{count:05}.gguf?a-00009-of-00009.gguf"
    assert split_error(part_url(url, number))


ENTRIES = [
    pytest.param(
        {"url": "u.gguf", "mirrors": ["v.gguf"], "sha256": A64, "size": 5},
        [("u.gguf", "u.gguf", ("v.gguf",), A64, 5, "", None)],
        id="a URL",
    ),
    pytest.param(
        {"hf": "o/r", "file": "q/m.gguf"},
        [("hf:o/r@main/q/m.gguf", f"{HUB}/o/r/resolve/main/q/m.gguf", (), None, None, "", None)],
        id="main of the Hub, unsaid",
    ),
    pytest.param(
        {"hf": "o/r", "file": "a b.gguf", "revision": "refs/pr/1"},
        [
            (
                *("hf:o/r@refs/pr/1/a b.gguf", f"{HUB}/o/r/resolve/refs%2Fpr%2F1/a%20b.gguf"),
                *((), None, None, "", None),
            )
        ],
        id="a revision",
    ),
    pytest.param(
        {
            "url": "u-00001-of-00002.gguf",
            "mirrors": ["https://e.org/w-00001-of-00002.gguf"],
            "parts": [{"sha256": A64, "size": 1}, {"sha256": B64}],
        },
        [
            ("u-00001-of-00002.gguf",) * 2 + (("https://e.org/w-00001-of-00002.gguf",), A64, 1, "", None),
            ("u-00002-of-00002.gguf",) * 2 + (("https://e.org/w-00002-of-00002.gguf",), B64, None, "", None),
        ],
        id="two parts",
    ),
    pytest.param(
        {"hf": "o/r", "file": "m.gguf", "revision": COMMIT, "mmproj": {"file": "p.gguf", "sha256": A64}},
        [
            (f"hf:o/r@{COMMIT}/m.gguf", f"{HUB}/o/r/resolve/{COMMIT}/m.gguf", (), None, None, "", None),
            (f"hf:o/r@{COMMIT}/p.gguf", f"{HUB}/o/r/resolve/{COMMIT}/p.gguf", (), A64, None, "mmproj", None),
        ],
        id="a projector of the same repository and revision",
    ),
    pytest.param(
        {"hf": "o/r", "file": "m.gguf", "revision": COMMIT, "mmproj": {"hf": "o/eyes", "file": "p.gguf"}},
        [
            (f"hf:o/r@{COMMIT}/m.gguf", f"{HUB}/o/r/resolve/{COMMIT}/m.gguf", (), None, None, "", None),
            ("hf:o/eyes@main/p.gguf", f"{HUB}/o/eyes/resolve/main/p.gguf", (), None, None, "mmproj", None),
        ],
        id="a projector of another repository, whose revision is its own",
    ),
    pytest.param(
        {"url": "m.gguf", "mmproj": {"url": "p.gguf", "mirrors": ["q.gguf"], "size": 3}},
        [
            ("m.gguf", "m.gguf", (), None, None, "", None),
            ("p.gguf", "p.gguf", ("q.gguf",), None, 3, "mmproj", None),
        ],
        id="a projector by its URL",
    ),
    pytest.param(
        {
            "hf": "o/r",
            "file": "m.gguf",
            "template": {"file": "c.jinja"},
            "lora": [{"url": "a.gguf", "scale": 0.5}, {"hf": "o/b", "file": "b.gguf", "sha256": A64}],
            "draft": {"file": "d.gguf", "size": 4},
        },
        [
            ("hf:o/r@main/m.gguf", f"{HUB}/o/r/resolve/main/m.gguf", (), None, None, "", None),
            ("hf:o/r@main/d.gguf", f"{HUB}/o/r/resolve/main/d.gguf", (), None, 4, "draft", None),
            ("a.gguf", "a.gguf", (), None, None, "lora", 0.5),
            ("hf:o/b@main/b.gguf", f"{HUB}/o/b/resolve/main/b.gguf", (), A64, None, "lora", None),
            ("hf:o/r@main/c.jinja", f"{HUB}/o/r/resolve/main/c.jinja", (), None, None, "template", None),
        ],
        id="a draft, adapters and a template",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "files"), ENTRIES)
def test_files_of_an_entry(entry: dict[str, Any], files: list[tuple[Any, ...]]) -> None:
    """Issue 5.3: all its files, the one that is served first."""
    assert [(one.source, *one[:6]) for one in file_specs(entry)] == files


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
    found = engine_file_spec(engine)
    assert found is not None
    assert (found.source, found.url, found.mirrors) == (url, url, mirrors)


def test_a_package_has_no_program() -> None:
    """R16: the embedded engine is none of ours to fetch."""
    assert engine_file_spec({"title": "e", "license": "MIT"}) is None


@pytest.mark.parametrize(
    ("text", "file"),
    [
        pytest.param("hf:o/r/m.gguf", HubFile("o/r", "main", "m.gguf"), id="short"),
        pytest.param("hf:o/r/q4/m.gguf", HubFile("o/r", "main", "q4/m.gguf"), id="short, in a folder"),
        pytest.param(f"hf:o/r@{COMMIT}/m.gguf", HubFile("o/r", COMMIT, "m.gguf"), id="short, of a commit"),
        pytest.param(f"{HUB}/o/r/resolve/main/m.gguf", HubFile("o/r", "main", "m.gguf"), id="the file"),
        pytest.param(f"{HUB}/o/r/blob/v1/a/m.gguf", HubFile("o/r", "v1", "a/m.gguf"), id="the page about it"),
        pytest.param(f"{HUB}/o/r/raw/v1/a/m.gguf", HubFile("o/r", "v1", "a/m.gguf"), id="its pointer"),
        pytest.param(
            f"{HUB}/o/r/resolve/v1/raw/m", HubFile("o/r", "v1", "raw/m"), id="a folder of that name"
        ),
        pytest.param(
            f"{HUB}/o/r/resolve/main/m.gguf?download=true", HubFile("o/r", "main", "m.gguf"), id="the button"
        ),
        pytest.param("https://hf.co/o/r/blob/main/m.gguf", HubFile("o/r", "main", "m.gguf"), id="short host"),
        pytest.param("huggingface.co/o/r/blob/main/m.gguf", HubFile("o/r", "main", "m.gguf"), id="no https"),
        pytest.param("https://example.org/o/r/resolve/main/m.gguf", None, id="another host"),
        pytest.param("https://huggingface.co.example.org/o/r/blob/main/m", None, id="similar"),
        pytest.param("hf:o/m.gguf", None, id="no repository"),
        pytest.param("hf:o/r", None, id="no file"),
        pytest.param("./hf/m.gguf", None, id="a path"),
    ],
)
def test_what_people_paste(text: str, file: HubFile | None) -> None:
    """Issue 5.3: a file of the Hub, as `doit add` takes it."""
    assert parse_hub_reference(text) == file


@pytest.mark.parametrize(
    ("filename", "name", "params", "quant"),
    [
        ("Mistral-7B-Instruct-v0.3.Q4_K_M.llamafile", "mistral-7b-instruct-v0.3", "7B", "Q4_K_M"),
        ("TinyLlama-1.1B-Chat-v1.0.Q5_K_M.llamafile", "tinyllama-1.1b-chat-v1.0", "1.1B", "Q5_K_M"),
        ("Llama-3.2-1B-Instruct-IQ4_XS.gguf", "llama-3.2-1b-instruct", "1B", "IQ4_XS"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "qwen3-30b-a3b", "30B", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.llamafile", "gpt-oss-20b", "20B", "mxfp4"),
        ("mxbai-embed-large-v1-f16.llamafile", "mxbai-embed-large-v1", None, "f16"),
        ("Phi-3-mini-4k-instruct.Q6_K.llamafile", "phi-3-mini-4k-instruct", None, "Q6_K"),
        ("mixtral-8x7b-instruct-v0.1.Q5_K_M.llamafile", "mixtral-8x7b-instruct-v0.1", None, "Q5_K_M"),
        ("gemma-3-270m-it-BF16.gguf", "gemma-3-270m-it", "270M", "BF16"),
        ("Big-70B-Q8_0-00001-of-00003.gguf", "big-70b", "70B", "Q8_0"),
        ("Ü x.gguf", "x", None, None),
        ("模型.gguf", "model", None, None),
    ],
)
def test_what_a_name_says(filename: str, name: str, params: str | None, quant: str | None) -> None:
    """Issue 5.3: by the field's habit."""
    facts = guess_model_info(filename)
    assert (facts["name"], facts.get("params"), facts.get("quant")) == (name, params, quant)
    assert facts["title"]
