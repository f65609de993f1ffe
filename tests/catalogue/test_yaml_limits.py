"""YAML that is small and stands for something huge, and values that do not fit their tag (finding 19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tasks.catalogue import schema
from tasks.errors import UsageError

from tests.support.catalogues import VALID, WHERE

NINES = "9" * 4000


def aliases(first: str, item: str, count: int, times: int) -> str:
    """Anchors of which each one but the first stands `times` times for the one before."""
    lines = [f"a0: &a0 {first}\n"]
    for index in range(1, count):
        several = ",".join([f"*a{index - 1}"] * times)
        lines.append(f"a{index}: &a{index} {item.format(several)}\n")
    return "".join(lines)


BEYOND = [
    pytest.param(aliases("[x]", "[{}]", 9, 10), 7, "more than 500,000 values", id="aliases of aliases"),
    pytest.param(aliases("{k: 1}", "{{<<: [{}]}}", 9, 10), 7, "500,000 values", id="merged aliases"),
    pytest.param(
        f"x: &x {'y' * 100_000}\nz: [{','.join(['*x'] * 3000)}]\n", 2, "characters", id="a long text, often"
    ),
    pytest.param(aliases("[x]", "[{}]", 500, 1), 32, "more than 32 deep", id="a chain of aliases"),
    pytest.param("a:\n  " + "[" * 40 + "]" * 40, 2, "more than 32 deep", id="deep"),
    pytest.param("[" + "a," * 600_000 + "]", 1, "500,000 values", id="wide", marks=pytest.mark.once),
    pytest.param(f"a: 1\nsize: {NINES}\n", 2, "more than 100 digits", id="digits"),
    pytest.param(f"a: 1\nsize: -{NINES}\n", 2, "more than 100 digits", id="a negative number"),
    pytest.param(f"a: 1\nsize: 1.{NINES}\n", 2, "more than 100 digits", id="a fraction"),
    pytest.param(f"a: 1\nsize: 0x{'f' * 4000}\n", 2, "more than 100 digits", id="hexadecimal"),
    pytest.param(f"a: 1\nsize: {'1:' * 2000}1\n", 2, "more than 100 digits", id="base 60"),
    pytest.param(f"a: 1\nsize: !!int '{NINES}'\n", 2, "more than 100 digits", id="a tag"),
    pytest.param(f"a: 1\n{'9' * 900}: x\n", 2, "more than 100 digits", id="a key"),
]
READERS = [pytest.param(schema.read_catalogue, id="catalogue"), pytest.param(schema.read_lock, id="lock")]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("text", "line", "said"), BEYOND)
def test_beyond_a_limit(read: Callable[[str, str], Any], text: str, line: int, said: str) -> None:
    """Finding 19, F39: an error with the file and the line."""
    with pytest.raises(UsageError) as caught:
        read(text, WHERE)
    assert caught.value.what.startswith(f"{WHERE}:{line}: ")
    assert said in caught.value.what
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "value",
    [
        *("!!int ''", "!!int 1:x", "!!bool x", "!!timestamp x", "!!float x", "!!binary é", "2026-99-99"),
        *(
            "!!omap [a]",
            "!!python/object:os.system x",
            "*nothing",
            "{? [a] : b}",
            "&a {? *a : x}",
            '"\\ud800"',
        ),
    ],
)
def test_a_value_that_cannot_be_read(read: Callable[[str, str], Any], value: str) -> None:
    """Finding 19: whatever PyYAML raises for it, the file is named."""
    with pytest.raises(UsageError, match=f"^{WHERE} is not YAML: "):
        read(f"version: {value}\n", WHERE)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "value", ["&a [*a]", ".inf", "1.0e+999", ".nan", "9" * 99, "!!set {a}", "2026-01-01"]
)
def test_a_value_of_another_type(read: Callable[[str, str], Any], value: str) -> None:
    """Finding 19: an error with its line."""
    with pytest.raises(UsageError, match=f"{WHERE}:1: "):
        read(f"version: {value}\n", WHERE)


def test_aliases_that_are_meant() -> None:
    """F39: an anchor may be used, and a long text is no number."""
    text = VALID.replace("    license: MIT\n", "    license: &mit MIT\n", 1)
    assert text != VALID
    long = f"    title: {'1' * 150} or more\n    aliases: [some]\n"
    entry = f"  more:\n{long}    license: *mit\n    url: https://example.org/more.gguf\n"
    assert schema.read_catalogue(text, WHERE)
    more = schema.read_catalogue(text + entry, WHERE)
    assert more["models"]["more"]["license"] == "MIT"


@pytest.mark.once
def test_ten_thousand_entries() -> None:
    """F39: a catalogue of 10,000 entries is far from the limits."""
    entry = (
        "    title: Model {0}\n    hf: owner/repository-{0}\n    file: model-{0}.Q4_K_M.gguf\n"
        "    revision: " + "a1" * 20 + "\n    sha256: " + "b2" * 32 + "\n    size: 1234567890\n"
        "    license: Apache-2.0\n    params: 1B\n    quant: Q4_K_M\n    ram: 4\n    aliases: [n{0}, o{0}]\n"
        "    serve: {{context: 4096}}\n"
    )
    rows = "".join(f"  m{n}:\n{entry.format(n)}" for n in range(10_000))
    from tasks.catalogue.yaml_limits import check

    check(f"version: 1\nmodels:\n{rows}", schema._Loader)


def test_a_message_has_an_end() -> None:
    """Finding 19: a file in which everything is wrong does not fill the terminal."""
    rows = "".join(f"  x{n}: 1\n" for n in range(300))
    with pytest.raises(UsageError, match=r"has \d+ errors:\n(.*\n){100}  and \d+ more\n"):
        schema.read_catalogue(f"version: 1\nmodels:\n{rows}", WHERE)
