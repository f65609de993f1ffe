"""models.yaml: the keys that say which files an entry has (issue 5.3)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tasks.catalogue.schema import compile_catalogue

from tests.catalogue.test_schema import editor, problems
from tests.support.catalogues import A64, B64, BIG_URL, VALID, WHERE, edited

SPLIT = "https://example.org/big-00001-of-00003.gguf"
PLACE = f"    url: {BIG_URL}\n    mirrors: [https://example.net/big.gguf]\n"  # the lines 22 and 23


def row(name: str, place: str, *lines: str) -> Any:
    """An entry whose place is written otherwise, and what is said about it."""
    return pytest.param(place, list(lines), id=name)


# the JSON Schema refuses these as well
SEEN = [
    row(
        "url and hf",
        f"    url: {BIG_URL}\n    hf: o/r\n    file: m.gguf\n",
        "23: models.big.hf: cannot be combined with url: remove one of them",
    ),
    row(
        "hf without file",
        "    hf: o/r\n",
        "20: models.big.file: this key is required: the file in that repository",
    ),
    row("no place", "", "20: models.big.url: this key is required (or hf and file instead)"),
    row(
        "hf without an owner",
        "    hf: r\n    file: m.gguf\n",
        '22: models.big.hf: expected owner/repository, got "r"',
    ),
    row(
        "hf with a URL",
        "    hf: https://huggingface.co/o/r\n    file: m.gguf\n",
        '22: models.big.hf: expected owner/repository, got "https://huggingface.co/o/r"',
    ),
    row(
        "a file of another folder",
        "    hf: o/r\n    file: /m.gguf\n",
        '23: models.big.file: expected a path inside the repository, got "/m.gguf"',
    ),
    row(
        "a revision with a blank",
        "    hf: o/r\n    file: m.gguf\n    revision: my branch\n",
        '24: models.big.revision: expected a commit, tag or branch, got "my branch"',
    ),
    row(
        "a revision that YAML takes for a number",
        "    hf: o/r\n    file: m.gguf\n    revision: 1234567\n",
        "24: models.big.revision: expected text, got 1234567; put it in quotes",
    ),
    row(
        "an unknown key in mmproj",
        f"    url: {BIG_URL}\n    mmproj:\n      uri: p.gguf\n      url: p.gguf\n",
        "24: models.big.mmproj.uri: unknown key; did you mean url?",
    ),
    row(
        "an unknown key in parts",
        f"    url: {SPLIT}\n    parts:\n    - {{sha: {A64}}}\n    - {{}}\n    - {{}}\n",
        "24: models.big.parts.0.sha: unknown key; did you mean sha256?",
    ),
    row(
        "a digest of a part",
        f"    url: {SPLIT}\n    parts: [{{sha256: a}}, {{}}, {{}}]\n",
        '23: models.big.parts.0.sha256: expected 64 lower-case hexadecimal digits, got "a"',
    ),
    row(
        "mmproj as text",
        f"    url: {BIG_URL}\n    mmproj: p.gguf\n",
        '23: models.big.mmproj: expected lines of `key: value`, got "p.gguf"',
    ),
    row(
        "parts as a mapping",
        f"    url: {SPLIT}\n    parts: {{size: 5}}\n",
        '23: models.big.parts: expected a list, got {"size": 5}',
    ),
]  # fmt: skip
UNSEEN = [
    row(
        "a folder above",
        "    hf: o/r\n    file: ../m.gguf\n",
        '23: models.big.file: expected a path inside the repository, got "../m.gguf"',
    ),
    row(
        "a revision of a URL",
        f"    url: {BIG_URL}\n    revision: main\n",
        "23: models.big.revision: requires hf",
    ),
    row(
        "the second part",
        f"    url: {SPLIT.replace('00001', '00002')}\n",
        "22: models.big.url: https://example.org/big-00002-of-00003.gguf is part 2 of 3: "
        "expected the first, https://example.org/big-00001-of-00003.gguf",
    ),
    row(
        "the second part on the Hub",
        "    hf: o/r\n    file: m-00002-of-00003.gguf\n",
        "23: models.big.file: https://huggingface.co/o/r/resolve/main/m-00002-of-00003.gguf is part 2 of 3: "
        "expected the first, https://huggingface.co/o/r/resolve/main/m-00001-of-00003.gguf",
    ),
    row(
        "parts of another number",
        f"    url: {SPLIT}\n    parts: [{{}}, {{}}]\n",
        "23: models.big.parts: expected one for each of the 3 parts, got 2",
    ),
    row(
        "parts of one file",
        f"    url: {BIG_URL}\n    parts: [{{}}, {{}}]\n",
        "23: models.big.parts: only for a split GGUF, whose first file is named NAME-00001-of-00002.gguf",
    ),
    row(
        "one digest for three files",
        f"    url: {SPLIT}\n    sha256: {A64}\n    size: 5\n",
        "23: models.big.sha256: a split GGUF has one for each of its 3 files, under `parts:`",
        "24: models.big.size: a split GGUF has one for each of its 3 files, under `parts:`",
    ),
    row(
        "plain http, and a part that nothing pins",
        f"    url: http://example.org/big-00001-of-00002.gguf\n    parts: [{{sha256: {A64}}}, {{size: 5}}]\n",
        "22: models.big.url: http://example.org/big-00001-of-00002.gguf: "
        "plain http is allowed only with a sha256, or from this machine",
        "23: models.big.parts.1.sha256: this key is required, because other parts have it",
    ),
    row(
        "a digest of one part alone",
        f"    url: {SPLIT}\n    parts: [{{}}, {{sha256: {A64}}}, {{size: 5}}]\n",
        "23: models.big.parts.0.sha256: this key is required, because other parts have it",
        "23: models.big.parts.2.sha256: this key is required, because other parts have it",
    ),
    row(
        "a mirror by plain http",
        "    hf: o/r\n    file: m.gguf\n    mirrors: [http://example.org/m.gguf]\n",
        "24: models.big.mirrors.0: http://example.org/m.gguf: "
        "plain http is allowed only with a sha256, or from this machine",
    ),
    row(
        "a projector of no place",
        f"    url: {BIG_URL}\n    mmproj: {{size: 5}}\n",
        "23: models.big.mmproj.url: this key is required (or hf and file instead)",
    ),
    row(
        "a projector's file without a repository",
        f"    url: {BIG_URL}\n    mmproj: {{file: p.gguf}}\n",
        "23: models.big.mmproj.file: requires hf",
        "23: models.big.mmproj.url: this key is required (or hf and file instead)",
    ),
    row(
        "a projector by plain http",
        f"    url: {BIG_URL}\n    mmproj: {{url: 'http://example.org/p.gguf'}}\n",
        "23: models.big.mmproj.url: http://example.org/p.gguf: "
        "plain http is allowed only with a sha256, or from this machine",
    ),
    row(
        "a projector with two places",
        f"    url: {BIG_URL}\n    mmproj: {{url: p.gguf, hf: o/r, file: p.gguf}}\n",
        "23: models.big.mmproj.hf: cannot be combined with url: remove one of them",
    ),
]


@pytest.mark.parametrize(("place", "lines"), SEEN + UNSEEN)
def test_errors(place: str, lines: list[str]) -> None:
    """Issue 5.3: each with its line, its path and what was expected."""
    assert problems(edited(PLACE, place)) == lines


@pytest.mark.parametrize(("place", "lines"), SEEN)
def test_editors_see_it_too(place: str, lines: list[str]) -> None:
    """Issue 5.3: the JSON Schema refuses what a type, a pattern or a choice of two can say."""
    assert list(editor().iter_errors(yaml.safe_load(edited(PLACE, place)))), lines


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        pytest.param(
            'version: "0.10.5"',
            "version: latest",
            ["7: engines.llamafile.version: latest needs {version} in its url"],
            id="the latest from one address",
        ),
        pytest.param(
            'version: "0.10.5"',
            "version: newest",
            [
                "7: engines.llamafile.version: expected a version in quotes, such as "
                '"0.9.3" or "b11669", or latest, got "newest"'
            ],
            id="another word",
        ),
    ],
)
def test_errors_of_engines(old: str, new: str, lines: list[str]) -> None:
    """R16, issue 5.1: which version it is stands in its URL."""
    assert problems(edited(old, new)) == lines


ACCEPTED = [
    row("a file of the Hub", "    hf: o/r\n    file: q/m.gguf\n"),
    row("with its commit", f"    hf: o/r\n    file: m.gguf\n    revision: {A64[:40]}\n    sha256: {A64}\n"),
    row("of a pull request", "    hf: o/r\n    file: m.gguf\n    revision: refs/pr/1\n"),
    row("a split one", f"    url: {SPLIT}\n"),
    row(
        "a split one, pinned",
        f"    url: {SPLIT}\n"
        f"    parts: [{{sha256: {A64}}}, {{sha256: {B64}, size: 5}}, {{sha256: {A64}}}]\n",
    ),
    row("with a projector", f"    hf: o/r\n    file: m.gguf\n    mmproj: {{file: p.gguf, sha256: {B64}}}\n"),
    row("with one of another repository", f"    url: {BIG_URL}\n    mmproj: {{hf: o/p, file: p.gguf}}\n"),
    row("plain http where every part is pinned", "    url: http://e.org/b-00001-of-00002.gguf\n"
        f"    parts: [{{sha256: {A64}}}, {{sha256: {B64}}}]\n"),
    row("one of one", f"    url: https://e.org/big-00001-of-00001.gguf\n    sha256: {A64}\n"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "lines"), ACCEPTED)
def test_accepted(place: str, lines: list[str]) -> None:
    """Issue 5.3: what is right is right for editors, too."""
    text = edited(PLACE, place)
    assert compile_catalogue(text, WHERE)["models"]["big"]["url"].endswith(".gguf")
    assert not lines
    assert not list(editor().iter_errors(yaml.safe_load(text)))


def test_the_latest_engine() -> None:
    """R16: its version is a word, until the lock file says which it is."""
    text = edited(
        '"0.10.5"\n    url: https://example.org/llamafile-0.10.5',
        "latest\n    url: https://example.org/{version}",
    )
    assert compile_catalogue(text, WHERE)["engines"]["llamafile"]["version"] == "latest"
    assert VALID.count("latest") == 0
