"""Which variant of a model a machine gets (issue 15.6): the rules, as rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tasks.catalogue import schema
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import resolve_entry, resolve_variants
from tasks.catalogue.types import Catalogue
from tasks.catalogue.variants import VariantNeed, budget, choose
from tasks.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
GB = 10**9
Q4, Q8, F16 = VariantNeed("Q4", 5, 6), VariantNeed("Q8", 8, 9), VariantNeed("F16", 15, 16)
UNKNOWN = VariantNeed("BIG", None, None)
LARGEST, SMALLEST = "the largest that fits", "none fits: the smallest"
FIRST = "the first (`doit lock` records what each needs)"


@pytest.mark.parametrize(
    ("needs", "here", "expected"),
    [
        ((Q4, Q8, F16), 99, ("F16", LARGEST)),
        ((F16, Q8, Q4), 16, ("F16", LARGEST)),
        ((F16, Q8, Q4), 15, ("Q8", LARGEST)),
        ((Q4, Q8), 9, ("Q8", LARGEST)),
        ((Q4, Q8), 8, ("Q4", LARGEST)),
        ((Q8, Q4), 5, ("Q4", SMALLEST)),
        ((Q8, Q4), 0, ("Q4", SMALLEST)),
        ((Q4, Q4._replace(name="same")), 9, ("Q4", LARGEST)),
        ((UNKNOWN, Q4), 99, ("Q4", LARGEST)),
        ((UNKNOWN, Q4), 1, ("Q4", SMALLEST)),
        ((UNKNOWN, UNKNOWN._replace(name="B")), 99, ("BIG", FIRST)),
    ],
)  # fmt: skip
def test_the_choice(needs: tuple[VariantNeed, ...], here: int, expected: tuple[str, str]) -> None:
    """Issue 15.6: the largest that fits; what is on the machine does not matter."""
    assert choose(needs, here) == expected


def test_an_eighth_stays_for_others() -> None:
    """Issue 15.6: a machine's memory is not the model's alone."""
    assert budget(16 * GB) == 14 * GB


URL = "https://example.org/{}.gguf"


def variant(name: str, size: int = GB, **more: Any) -> dict[str, Any]:
    return {"url": URL.format(name), "sha256": name[-1] * 64, "size": size, **more}


def compiled(entry: dict[str, Any], **top: Any) -> Catalogue:
    data = {
        "version": 1,
        "default": "m",
        "engines": {"embedded": {"title": "e", "license": "MIT"}},
        "models": {"m": {"title": "M", "license": "MIT", "engine": "embedded", **entry}},
        **top,
    }
    return Catalogue(schema.compile_catalogue(json.dumps(data), "models.yaml"), "models.yaml")


THREE = {
    "params": "1B",
    "serve": {"ctx_size": 1024},
    "variants": {"q4": variant("a", GB), "q8": variant("b", 2 * GB), "f16": variant("c", 4 * GB)},
}


@pytest.mark.parametrize(
    ("memory", "more", "expected"),
    [
        (16 * GB, {}, "f16"),
        (4_900_000_000, {}, "q8"),  # 7/8 of it: 4.29 GB
        (2 * GB, {}, "q4"),
        (0, {}, "q4"),
        (5 * GB, {"serve": {"ctx_size": 65536}}, "q4"),  # 3.7 GB of KV cache
        (16 * GB, {"serve": {"ctx_size": 1024, "ngl": 99}}, "q4"),  # the GPU has 2 GB
        (16 * GB, {"serve": {"ctx_size": 1024, "ngl": 99, "gpu": "disable"}}, "f16"),
    ],
)  # fmt: skip
def test_the_memory_decides(memory: int, more: dict[str, Any], expected: str) -> None:
    """Issue 15.6: with the context; the GPU's where layers go there."""
    here = Environment("linux", "/c", "/p", "/p", memory=lambda: memory, gpu_memory=lambda: 2 * GB)
    resolved = resolve_entry("m", compiled({**THREE, **more}), here)
    assert resolved.variant == expected
    letter = {"q4": "a", "q8": "b", "f16": "c"}[expected]
    assert (resolved.name, resolved.artifact.sha256) == ("m", letter * 64)


def test_the_example_of_the_page() -> None:
    """Issue 15.6: as in docs/variants.md; nothing is known of the sizes, so the first is used."""
    page = (ROOT / "docs" / "variants.md").read_text("utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [entry] = yaml.safe_load(block)["models"].values()
    resolved = resolve_entry("m", compiled(entry), Environment("linux", "/c", "/p", "/p"))
    assert (resolved.variant, resolved.model.quant) == ("q8", "Q8_0")


def test_all_variants_and_their_projector() -> None:
    """Issue 15.6: each has its own parts, and that of the model; repository and revision default to its."""
    entry = {
        "hf": "o/r",
        "revision": "f" * 40,
        "mmproj": {"file": "eyes.gguf"},
        "variants": {
            "q4": {"file": "q4-00001-of-00002.gguf", "ram": 3},
            "q8": {"file": "q8.gguf", "quant": "Q8_0"},
        },
    }
    first, second = resolve_variants("m", compiled(entry), Environment("linux", "/c", "/p", "/p"))
    names = [[file.sources[0].rpartition("/")[2] for file in one.files] for one in (first, second)]
    assert names == [
        ["q4-00001-of-00002.gguf", "q4-00002-of-00002.gguf", "eyes.gguf"],
        ["q8.gguf", "eyes.gguf"],
    ]
    assert {file.sources[0].split("/")[6] for one in (first, second) for file in one.files} == {"f" * 40}
    assert (first.model.ram, second.model.ram, second.model.quant) == (3, None, "Q8_0")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"variants": {}}, "variants: expected at least one variant"),
        ({"variants": {"a": {}}}, "variants.a.url: this key is required"),
        ({"variants": {"a": {"file": "x.gguf"}}}, "variants.a.url: this key is required"),
        ({"variants": {"a": variant("a")}, "url": "b.gguf"}, "m.url: cannot be combined with variants"),
        ({"variants": {"a": variant("a")}, "sha256": "a" * 64}, "m.sha256: cannot be combined with variants"),
        ({"variants": {"a": variant("a"), "b": variant("a")}}, "variants.b: has the file of variants.a"),
        ({"variants": {"a": variant("a"), "A": variant("b")}}, "variants.A: the name is taken by variants.a"),
        ({"variants": {"a": {"url": "x.llamafile"}}}, "variants.a: the embedded engine reads .gguf files"),
        ({"variants": {"a": {**variant("a"), "licence": "x"}}}, "variants.a.licence: unknown key"),
    ],
)  # fmt: skip
def test_what_an_entry_cannot_be(entry: dict[str, Any], problem: str) -> None:
    """Issue 15.6: with its line, as every other error of models.yaml."""
    with pytest.raises(UsageError) as caught:
        compiled(entry)
    assert problem in caught.value.what
