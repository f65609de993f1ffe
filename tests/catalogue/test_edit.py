"""Writing an entry into models.yaml (issue 5.3): every other byte stays; what is read is what was meant."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue import edit
from tasks.errors import UsageError

ENTRY = {
    "title": "New 1B",
    "hf": "o/r",
    "file": "new.gguf",
    "revision": "9f2d7a4",
    "license": "MIT",
    "size": 7,
}
TWO = """\
version: 1
default: a
models:
  a:
    title: A
    url: https://example.org/a.gguf
  b:
    title: B  # the last line has a comment
"""
FOUR = """\
version: 1
models:
    a:
        title: A
        sizes: [1, 2]
"""
SPACED = """\
models:

  a:
    title: A

  b:
    title: B

# ---- a comment behind the last entry

default: a
version: 1
"""
FLOW = """\
models:
  a: {title: A, serve: {ctx_size: 0},
      license: MIT}
default: a
"""
BLOCK = """\
models:
  a:
    title: |
      several
      lines

default: a
"""
MERGED = """\
base: &base {license: MIT}
models:
  a: &first
    <<: *base
    title: A
  b:
    <<: *first
    aliases:
      - x
      - y
"""
QUOTED = """\
models:
  "a":
    'title': "A: #1"
    serve:
      args:
      - --x
      -
        - deep
"""
NO_END = "models:\n  a:\n    title: A"
FORMS = {
    "two columns": TWO,
    "four columns": FOUR,
    "blank lines and keys behind": SPACED,
    "the last one in braces": FLOW,
    "a block of text": BLOCK,
    "aliases and merges": MERGED,
    "quotes and deep lists": QUOTED,
    "no newline at the end": NO_END,
    "CRLF": TWO.replace("\n", "\r\n"),
    "CRLF, no newline at the end": NO_END.replace("\n", "\r\n"),
    "an empty value": "models:\n  a:\n    mirrors:\n    title: A\n    aliases:\n",
}


def is_kept(old: str, new: str) -> bool:
    """Whether the new text is the old one with lines put in at one place."""
    newline = "\r\n" if "\r\n" in old else "\n"
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    if not before[-1].endswith(newline):
        before[-1] += newline
    added = len(after) - len(before)
    return any(after[:at] + after[at + added :] == before for at in range(len(before) + 1))


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_form_takes_an_entry(text: str) -> None:
    """Issue 5.3: comments, order, columns and line ends are kept."""
    old = yaml.safe_load(text)
    new = edit.insert_entry(text, "new", ENTRY, "models.yaml")
    assert yaml.safe_load(new) == {**old, "models": {**old["models"], "new": ENTRY}}
    assert list(yaml.safe_load(new)["models"])[-1] == "new"
    assert is_kept(text, new)
    assert ("\r\n" in new) == ("\r\n" in text)
    assert not [line for line in new.split("\r\n" if "\r\n" in text else "\n") if "\r" in line]


def test_it_looks_like_its_neighbours() -> None:
    """Issue 5.3: their columns, and a blank line where they have one; a comment behind them stays behind."""
    shown = edit.insert_entry(SPACED, "new", {"title": "New"}, "models.yaml")
    behind = "\n\n# ---- a comment behind the last entry\n\ndefault: a\nversion: 1\n"
    assert shown.endswith(f"  b:\n    title: B\n\n  new:\n    title: New{behind}")
    assert edit.insert_entry(FOUR, "new", {"title": "New"}, "m").endswith("    new:\n        title: New\n")
    assert edit.insert_entry(TWO, "new", {"title": "New"}, "m").endswith(
        "a comment\n  new:\n    title: New\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"version": 1, "models": {"a": {"title": "A"}}}', id="JSON"),
        pytest.param("models: {a: {title: A}}\n", id="models in braces"),
        pytest.param("models: {}\n", id="no model"),
    ],
)
def test_braces_leave_no_place(text: str) -> None:
    """Issue 5.3: the message has the entry to paste."""
    with pytest.raises(UsageError, match=r"m\.yaml is written with braces") as caught:
        edit.insert_entry(text, "new", {"title": "New", "size": 7}, "m.yaml")
    assert "\n        new:\n          title: New\n          size: 7\n" in caught.value.render()
    assert "put this entry under `models:` in m.yaml" in caught.value.fix


STRANGE = [
    *("yes", "No", "null", "~", "1e5", "0x10", "1_000", "12:30", "2026-11-25", "- a", "a: b", "a #b", "#"),
    *(
        "",
        " a",
        "a ",
        "'",
        '"',
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`x`",
        "{x}",
        "[x]",
        "x,y",
        "é",
        "日本",
        "\\",
        "=",
        "<<",
    ),
    *(
        "0" * 64,
        "1" * 40,
        "12e" + "3" * 61,
        "a" * 64,
        "https://h/a?b=c#d",
        "C:\\x",
        "a\nb",
        "\ttab",
        "\u2028",
    ),
]


@pytest.mark.parametrize("text", STRANGE, ids=repr)
def test_a_strange_text_comes_back(text: str) -> None:
    """Issue 5.3: YAML takes nothing of it for something else."""
    new = edit.insert_entry(TWO, "new", {"title": text, "parts": [{"sha256": text, "size": 1}]}, "m")
    assert yaml.safe_load(new)["models"]["new"] == {"title": text, "parts": [{"sha256": text, "size": 1}]}


_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**15)
)


@given(
    st.sampled_from(sorted(FORMS.values())),
    st.dictionaries(st.from_regex("[a-z][a-z0-9_]{0,9}", fullmatch=True), _VALUES, min_size=1, max_size=5),
)
def test_any_entry_comes_back(text: str, entry: dict[str, Any]) -> None:
    """Issue 5.3: and nothing else changes."""
    old = yaml.safe_load(text)
    new = edit.insert_entry(text, "new.one-2", entry, "m")
    assert yaml.safe_load(new) == {**old, "models": {**old["models"], "new.one-2": entry}}
    assert is_kept(text, new)


def test_a_digest_is_plain() -> None:
    """Issue 5.3: as people write it, unless YAML would read a number."""
    lines = edit.render_entry(
        "m", {"sha256": "a" * 64, "revision": "9" * 40, "license": "Apache-2.0", "params": "7.2B"}, 2, 2
    )
    assert lines == [
        "  m:",
        f"    sha256: {'a' * 64}",
        f'    revision: "{"9" * 40}"',
        "    license: Apache-2.0",
        "    params: 7.2B",
    ]
