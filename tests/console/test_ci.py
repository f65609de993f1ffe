"""The cache key, GitHub's commands, and log groups."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.cache.key import cache_key
from tasks.catalogue.artifact import Artifact
from tasks.console import ci
from tasks.errors import RecipeError

GITHUB = {"GITHUB_ACTIONS": "true"}
digests = st.integers(0, 2**256 - 1).map("{:064x}".format)
names = st.from_regex(r"[A-Za-z0-9][\w.-]{0,12}\.gguf", fullmatch=True)
pins = st.lists(st.tuples(names, digests), min_size=1, max_size=4, unique_by=lambda pin: pin[0])


def files(pins: list[tuple[str, str]], cache: str = "/c", **more: object) -> list[Artifact]:
    return [Artifact("m", (), f"{cache}/models/x/{name}", digest, **more) for name, digest in pins]  # type: ignore[arg-type]


@given(pins, st.permutations(range(4)))
def test_a_key_is_of_bytes_and_names_alone(found: list[tuple[str, str]], order: list[int]) -> None:
    """Issue 5.9: not of the cache's path, of sizes, sources or the order."""
    key = cache_key("m", files(found))
    shuffled = [found[i] for i in order if i < len(found)]
    assert re.fullmatch(r"llamafile-recipe-m-[0-9a-f]{16}", key)
    assert cache_key("m", files(shuffled, r"C:\Users\me\cache", size=1, in_cache=False)) == key


@given(pins, st.data())
def test_another_byte_or_name_is_another_key(found: list[tuple[str, str]], data: st.DataObject) -> None:
    """Issue 5.9: one file with another digest or another name, one file more or less."""
    at = data.draw(st.integers(0, len(found) - 1))
    name, digest = found[at]
    flipped = f"{int(digest, 16) ^ (1 << data.draw(st.integers(0, 255))):064x}"
    others = (
        [*found[:at], (name, flipped), *found[at + 1 :]],
        [*found[:at], (f"{name}.exe", digest), *found[at + 1 :]],
        [*found[:at], *found[at + 1 :]],
    )
    keys = {cache_key("m", files(other)) for other in (found, *others)}
    assert len(keys) == 4


def test_what_nothing_pins_has_no_key() -> None:
    """Issue 5.9: the error names the command that pins it."""
    with pytest.raises(RecipeError, match=r"fix: `doit lock --model big`, and commit models.lock"):
        cache_key("big", [Artifact("big", (), "/c/models/x/big.gguf")])


def runner_sees(text: str) -> list[str]:
    """The lines that GitHub's runner takes for commands.

    Source: actions/runner ActionCommand.cs, TryParseV2 and TryParse; every registered name is a word.
    """
    found = []
    for line in re.split(r"\r\n|\r|\n", text):
        new = re.match(r"\s*::(?=\w)[^ ]*?.*?::", line)
        old = re.search(r"##\[[^\]]+\]", line)
        found += [line] if new or old else []
    return found


blanks = st.text(" \t\x85\xa0\u2003", max_size=2)
line = st.one_of(
    st.sampled_from(
        ["::stop-commands::x", "::set-output name=a::b", "##[error]x", "a ##[debug]b", "::error::"]
    ),
    st.text("a:#[]", max_size=8),
)
said = st.lists(st.tuples(st.sampled_from(["", "\n", "\r", "\r\n"]), blanks, line)).map(
    lambda lines: "".join("".join(one) for one in lines)
)


@given(said)
def test_nothing_that_was_said_is_a_command(text: str) -> None:
    """Issue 5.9: what an engine says is none for the runner, and is all there; elsewhere nothing changes."""
    safe = ci.escape_workflow_commands(text, GITHUB)
    assert not runner_sees(safe)
    assert safe.replace("|", "") == text
    assert ci.escape_workflow_commands(text, {}) == text
    assert ci.escape_workflow_commands("a::b\n## c [d]\n", GITHUB) == "a::b\n## c [d]\n"


def unescape(text: str) -> str:
    """As the runner reads a command's text (UnescapeData)."""
    for token, escape in (("\r", "%0D"), ("\n", "%0A"), ("%", "%25")):
        text = text.replace(escape, token)
    return text


@given(st.text("a:%,\r\n 0AD5", max_size=30), st.sampled_from(["", "serve:m", "download:a-b.c"]))
def test_an_annotation_is_one_line(text: str, title: str) -> None:
    """Issue 5.9: the runner reads back the text and the title."""
    line = ci.workflow_command("error", text, title)
    found = re.fullmatch(r"::error(?: title=([^:,\r\n]*))?::([^\r\n]*)\n", line)
    assert found
    assert unescape(found[2]) == text
    assert (found[1] or "").replace("%3A", ":") == title


@pytest.mark.parametrize(
    ("env", "begin", "end"),
    [
        pytest.param(GITHUB, "::group::download:m\n", "::endgroup::\n", id="GitHub"),
        pytest.param(
            {"GITLAB_CI": "true"},
            "\x1b[0Ksection_start:12:download-m\r\x1b[0Kdownload:m\n",
            "\x1b[0Ksection_end:12:download-m\r\x1b[0K\n",
            id="GitLab",
        ),
    ],
)
def test_folds(env: dict[str, str], begin: str, end: str) -> None:
    """Issue 5.9: the lines as each system documents them."""
    assert ci.supports_groups(env)
    assert ci.group_marker("download:m", 12.7, env) == begin
    assert ci.group_marker("download:m", 12.7, env, end=True) == end


def test_without_a_ci_system_nothing_is_folded() -> None:
    """Issue 5.9: CI=true alone says nothing of how its log is shown."""
    assert not ci.supports_groups({"CI": "true"})
    assert not ci.supports_groups({"GITHUB_ACTIONS": ""})
