"""What a hostile name or URL becomes in each format, and that the format reads it back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tasks.deploy import escape
from tasks.deploy.fleet import dns_labels
from tasks.errors import UsageError

pytestmark = pytest.mark.once

HOSTILE = (
    "plain",
    'a "quoted" \\ name',
    "two\nlines\r\nof\x00text",
    "${HOME} $(id) `id` $$ $1",
    "50 % of %i, %%",
    "# no comment; no = key [section]",
    "'single' * & | > @ ! ~ - {a: b}",
    "ünï 漢字 \u2028 \x85 \x1b[31m",
    "---\n...\n- yes: 0x10",
    "",
)

COMMENTS = [  # text, the rest of a comment line
    ("Demo", "Demo"),
    ("two\nExecStart=/bin/sh", "two ExecStart=/bin/sh"),
    ("ends in \\", "ends in"),  # systemd would join the next line
    ("\x1b[31mred\x00\u2028line", "[31mred line"),
]
UNITS = [  # text, value of a unit in quotes
    ("plain", '"plain"'),
    ("50 % of %i", '"50 %% of %%i"'),
    ('a "b" \\ c', '"a \\"b\\" \\\\ c"'),
    ("one\ntwo=", '"onetwo="'),
]
ENVIRONMENTS = [  # text, value of an environment file of systemd
    ("plain", '"plain"'),
    ("http://h:1/%41?a=$b", '"http://h:1/%41?a=\\$b"'),
    ('"\\`', '"\\"\\\\\\`"'),
    ("one\nPORT=1", '"onePORT=1"'),
]


@pytest.mark.parametrize(("text", "line"), COMMENTS)
def test_comment(text: str, line: str) -> None:
    assert escape.comment(text) == line


@pytest.mark.parametrize(("text", "value"), UNITS)
def test_systemd(text: str, value: str) -> None:
    assert escape.systemd(text) == value


@pytest.mark.parametrize(("text", "value"), ENVIRONMENTS)
def test_environment(text: str, value: str) -> None:
    assert escape.environment(text) == value


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_adds_a_line(text: str) -> None:
    """Whatever a title has, it stays on its line."""
    for written in (escape.comment(text), escape.systemd(text), escape.environment(text)):
        assert len(f"-{written}-".splitlines()) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_is_read_back(text: str) -> None:
    """As key and as value, in two documents below a comment."""
    documents: list[Any] = [{"a": {text or "empty": text}}, [text, 1, None]]
    written = escape.yaml_text(*documents, header="Written")
    assert written.startswith("# Written\n")
    assert list(yaml.safe_load_all(written)) == documents


def test_yaml_repeats_what_occurs_twice() -> None:
    """No anchors."""
    labels = {"a": "b"}
    assert escape.yaml_text([labels, labels], header="h") == "# h\n- a: b\n- a: b\n"


def test_compose_replaces_no_variable() -> None:
    """Keys stay: Compose replaces variables in values only."""
    data = {"a": ["$HOME", {"b": "${X}"}], "c": None, "d": 1}
    assert escape.compose(data) == {"a": ["$$HOME", {"b": "$${X}"}], "c": None, "d": 1}


LABELS = [  # names of models, their names in Kubernetes and Compose
    (["demo"], ["demo"]),
    (["qwen3-0.6b", "Phi_3"], ["qwen3-0-6b", "phi-3"]),
    (["7b.q4_"], ["m-7b-q4"]),
    (["a" * 100], ["a" * 40]),
    (["a" * 39 + "-b"], ["a" * 39]),
]
CONFLICTS = [  # names of models, what both would be
    (["a.b", "a-b"], "a-b"),
    (["A", "a"], "a"),
    (["x" * 41, "x" * 42], "x" * 40),
    (["demo", "demo-verify"], "demo-verify"),
    (["demo.pods", "demo"], "demo-pods"),
]


@pytest.mark.parametrize(("names", "labels"), LABELS)
def test_dns_labels(names: list[str], labels: list[str]) -> None:
    assert list(dns_labels(names).values()) == labels


@pytest.mark.parametrize(("names", "label"), CONFLICTS)
def test_two_models_of_one_label(names: list[str], label: str) -> None:
    with pytest.raises(UsageError, match=f"are both {label} in the files\n  fix: rename one of them: "):
        dns_labels(names)
