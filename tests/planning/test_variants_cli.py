"""A model with variants: locked as a whole, one of them used (issue 15.6)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.support.project import ENGINES, Project, Result

EMBEDDED = {"embedded": ENGINES["embedded"]}
HUGE = 10**12  # bytes, that no machine has


@pytest.fixture
def small(project: Project) -> bytes:
    """The demo model, as a file of the catalogue's folder."""
    data = (project.path / "demo" / "demo.gguf").read_bytes()
    (project.path / "small.gguf").write_bytes(data)
    return data


def with_variants(project: Project, small: bytes, **more: Any) -> None:
    """A model whose largest variant fits nowhere."""
    large = {"url": "https://example.org/large.gguf", "sha256": "a" * 64, "size": HUGE}
    mini = {**project.entry("small.gguf", small), "quant": "Q8_0"}
    mini = {key: mini[key] for key in ("url", "sha256", "size", "quant")}
    variants = {"large": large, "small": mini}
    model = {
        "title": "M",
        "license": "MIT",
        "engine": "embedded",
        "params": "1B",
        "variants": variants,
        **more,
    }
    project.catalogue({"m": {"serve": {"ctx_size": 512}, **model}}, EMBEDDED)


def refusal(result: Result, status: int) -> str:
    assert result.status == status, result
    return result.err[result.err.index("ERROR: ") :]


def test_the_one_that_fits_is_planned_downloaded_and_verified(project: Project, small: bytes) -> None:
    """Issue 15.6: plan says what each needs, and why one is used; --variant decides otherwise."""
    with_variants(project, small)
    said = project.doit("plan")
    assert said.status == 0, said
    assert re.search(r"variant  m large needs \S+ .B of memory, does not fit in ", said.out)
    assert re.search(
        r"variant  m small needs .* MB of memory, fits in .*: used, the largest that fits", said.out
    )
    found = json.loads(project.doit("plan", "--json").out)["variants"]["m"]
    assert (found["used"], [row["fits"] for row in found["all"]]) == ("small", [False, True])
    assert "variants  large, small; used here: small\n" in project.doit("help", "m").out
    result = project.doit("download", "m")
    assert result.status == 0, result.err
    assert project.target(small, "small.gguf").read_bytes() == small
    assert project.doit("download", "m", "--variant", "SMALL").status == 0
    assert project.doit("chmod", "m", "--variant", "small", env={"CI": "true"}).status == 0
    forced = project.doit("plan", "--variant", "large")
    assert (forced.status, ": used, named\n" in forced.out) == (1, True), forced.out


def test_local_variants_of_unknown_memory(project: Project, small: bytes) -> None:
    """Issue 15.6: models.lock decides; only the memory of the used one is read from its file."""
    (project.path / "other.gguf").write_bytes(small)
    variants = {"big": {"url": "small.gguf"}, "mini": {"url": "other.gguf"}}
    model = {"title": "M", "license": "MIT", "engine": "embedded", "variants": variants}
    project.catalogue({"m": model}, EMBEDDED)
    said = project.doit("plan").out
    assert re.search(r"memory   m needs \S+ .B \(weights 2.25 MB", said)
    unstated = "has no memory stated in models.yaml or models.lock"
    used = "used, the first (`doit lock` records what each needs)"
    assert f"variant  m big {unstated}: {used}\nvariant  m mini {unstated}\n" in said
    assert project.doit("lock").status == 0
    said = project.doit("plan").out
    assert re.search(r"variant  m big needs .* fits in .*: used, the largest that fits", said)


@pytest.mark.parametrize(
    ("words", "env", "what", "fix"),
    [
        (["download", "m"], {"CI": "true"}, "large, small; in CI, one has to be named", "--variant large"),
        (["plan", "--variant", "smal"], {}, "m has no variant 'smal'", "did you mean small?"),
        (["plan", "--variant", "q"], {}, "m has no variant 'q'", "the variants are large, small"),
        (["plan", "x.gguf", "--variant", "q"], {}, "--variant is for a model of the cat", "remove --variant"),
        (["plan", "demo", "--variant", "q"], {}, "demo has no variants", "remove --variant"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen(
    project: Project, small: bytes, words: list[str], env: dict[str, str], what: str, fix: str
) -> None:
    """Issue 15.6: in CI the machine does not decide."""
    if "demo" not in words:
        with_variants(project, small)
    said = refusal(project.doit(*words, env=env), 3)
    assert what in said
    assert fix in said


def test_git_and_ci_do_not_depend_on_the_machine(project: Project, small: bytes) -> None:
    """Issue 15.6: lock, cache-key, audit and bom are about all variants."""
    with_variants(project, small)
    assert project.doit("lock", env={"HF_HUB_OFFLINE": "1"}).status == 0
    lock = yaml.safe_load((project.path / "models.lock").read_text("utf-8"))
    large, mini = lock["models"]["m"]
    assert (large["sha256"], "memory" in large, mini["memory"]["block_count"]) == ("a" * 64, False, 4)
    assert project.doit("lock", "--check", env={"CI": "true"}).status == 0
    key = project.doit("cache-key", env={"CI": "true"})
    [row] = json.loads(project.doit("cache-key", "--json").out)
    assert (key.status, key.out.strip(), row["size"]) == (0, row["key"], HUGE + len(small))
    [of_small] = json.loads(project.doit("cache-key", "m", "--variant", "small", "--json").out)
    assert (of_small["size"], of_small["key"] != row["key"]) == (len(small), True)
    assert project.doit("download", "m", "--variant", "small", env={"CI": "true"}).status == 0
    audit = project.doit("audit", env={"CI": "true"})
    assert (audit.status, "1 file of the catalogue not downloaded" in audit.out) == (0, True), audit.out
    assert "small.gguf" in project.doit("bom", env={"CI": "true"}).out
    pruned = project.doit("prune", "--yes")
    assert pruned.status == 0, pruned.err
    assert project.target(small, "small.gguf").exists()
    listed = project.doit(env={"CI": "true"})
    assert (listed.status, "\nm * " in listed.out) == (0, True), listed


def test_status_names_the_variant(project: Project, small: bytes) -> None:
    """Issue 15.6: and a restart keeps it."""
    pytest.importorskip("xllamacpp")
    with_variants(project, small)
    started = project.background("start", "m", "--variant", "small", "--port", "0")
    try:
        assert started.status == 0, started
        [row] = json.loads(project.doit("status", "--json").out)
        assert (row["model"], row["variant"], row["state"]) == ("m", "small", "ready")
        assert "m small " in project.doit("status").out
        again = project.background("restart", "m")
        assert again.status == 0, again
        assert json.loads(project.doit("status", "--json").out)[0]["variant"] == "small"
    finally:
        assert project.doit("stop", "--all").status == 0
