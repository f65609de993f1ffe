"""Which engine, of which version, can do what a model needs (issue 15.5)."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.resolve import resolve_entry
from tasks.catalogue.serve_options import Sampling
from tasks.catalogue.settings import ServeSettings
from tasks.engine.capabilities import (
    FEATURES,
    describe,
    feature_problems,
    has_feature,
    needed_features,
    router_problems,
    spans_of,
)
from tasks.engine.command import Launch, serve_command

from tests.catalogue.test_kinds import entry
from tests.catalogue.test_resolve import POSIX
from tests.support.catalogues import A64, catalogue
from tests.support.project import REPO

BY_KEY = {feature.key: feature for feature in FEATURES}


@pytest.mark.parametrize(
    ("key", "engine", "version", "can"),
    [
        ("kind: embedding", "self", "0.8.6", True),
        ("kind: embedding", "self", "0.8.13", True),
        ("kind: embedding", "self", "0.8.14", False),
        ("kind: embedding", "llamafile", "0.9.3", False),
        ("kind: embedding", "llamafile", "0.10.5", True),
        ("kind: embedding", "llama-server", "4000", True),
        ("kind: rerank", "llamafile", "0.9.3", False),
        ("kind: rerank", "llama-server", "3000", False),
        ("kind: rerank", "llama-server", "11669", True),
        ("draft", "llama-server", "10000", False),
        ("draft", "embedded", "2026.10.11549", True),
        ("draft", "embedded", "2026.4.9000", False),
        ("lora", "self", "0.8.6", False),
        ("lora", "self", "", True),  # unknown: the engine itself will say
        ("template", "self", "0.10.0", True),
        ("reasoning: off", "llamafile", "0.10", True),
        ("reasoning: TOKENS", "llamafile", "0.10.3", False),
        ("idle", "llama-server", "7551", True),
        ("idle", "llama-server", "7550", False),
        ("metrics", "self", "0.6.2", False),
        ("metrics", "self", "0.8.6", True),
        ("parallel", "self", "0.6.2", True),
        ("mmproj", "self", "0.6.2", True),
    ],
)
def test_what_a_version_can(key: str, engine: str, version: str, can: bool) -> None:
    """A row of the table for each engine."""
    assert has_feature(BY_KEY[key], engine, version) is can


LORA = CompanionFile("lora", "/a.gguf", 0.5)


@pytest.mark.parametrize(
    ("kind", "companions", "settings", "needed"),
    [
        ("chat", [], {}, []),
        ("chat", [], {"reasoning": "auto", "metrics": False}, []),
        ("embedding", [], {"pooling": "mean"}, ["kind: embedding", "pooling"]),
        ("rerank", [], {"parallel": 2, "idle": 60}, ["kind: rerank", "parallel", "idle"]),
        ("chat", [LORA, LORA], {"metrics": True}, ["lora", "metrics"]),
        ("chat", [], {"reasoning": False}, ["reasoning: off"]),
        ("chat", [], {"reasoning": "off"}, ["reasoning: off"]),
        ("chat", [], {"reasoning": 0}, ["reasoning: TOKENS"]),
        ("chat", [], {"sampling": Sampling(seed=1)}, ["sampling"]),
        ("chat", [], {"pooling": "mean"}, []),  # `defaults:` are of every kind
        (
            "rerank",
            [],
            {"sampling": Sampling(seed=1), "reasoning": "off", "pooling": "cls"},
            ["kind: rerank"],
        ),
    ],
)
def test_what_a_model_needs(
    kind: str, companions: list[CompanionFile], settings: dict[str, Any], needed: list[str]
) -> None:
    """Nothing for what every engine does anyhow."""
    assert needed_features(kind, companions, ServeSettings(**settings)) == needed


PIN = {"url": "f.gguf", "sha256": A64}


@pytest.mark.parametrize(
    ("keys", "version", "what", "fix"),
    [
        (
            {"kind": "embedding"}, "0.9.3",
            "big needs `kind: embedding`, which llamafile 0.9.3 does not have: "
            "expected 0.8.6 to before 0.8.14 and from 0.10",
            "set the version of engines.llamafile to 0.10 or newer, or use --engine embedded or llama-server",
        ),
        (
            {"draft": PIN, "engine": "embedded"}, "2026.4",
            "big needs `draft`, which embedded 2026.4 does not have: expected from 2026.10",
            "pip install --upgrade '.[embedded]'",
        ),
    ],
)  # fmt: skip
def test_the_problem(keys: dict[str, Any], version: str, what: str, fix: str) -> None:
    """It names the key, the engine and its version, what can do it, and what to change."""
    resolved = resolve_entry("big", catalogue(entry(**keys)), POSIX)
    assert feature_problems(resolved, version) == [(what, fix)]
    assert feature_problems(resolved, "9999") == []


def options(
    engine: str, version: str, kind: str = "chat", *companions: CompanionFile, **settings: Any
) -> str:
    """The command line without what every server gets."""
    launch = Launch(engine, "linux", "/m.gguf", "/exe", "/py", companions, kind)
    words = serve_command(launch, ServeSettings(**settings), version=version)[len(launch.program()) :]
    for usual in ("--server", "--nobrowser --log-disable", "-m /m.gguf", "--host 127.0.0.1 --port 8080"):
        if usual.split()[0] in words:
            at = words.index(usual.split()[0])
            del words[at : at + len(usual.split())]
    return " ".join(words)


@pytest.mark.parametrize(
    ("engine", "version", "kind", "companions", "settings", "expected"),
    [
        ("embedded", "", "embedding", [], {"pooling": "mean"}, "--embedding --pooling mean"),
        ("embedded", "", "rerank", [], {"ctx_size": 512},
         "--ctx-size 512 --reranking --batch-size 512 --ubatch-size 512"),
        ("embedded", "", "rerank", [], {"sampling": Sampling(seed=1), "reasoning": 5, "pooling": "cls"},
         "--reranking"),
        ("embedded", "", "chat", [], {"pooling": "mean"}, ""),
        ("self", "0.8.6", "embedding", [], {"ctx_size": 512}, "--ctx-size 512 --embedding"),
        ("embedded", "", "chat", [CompanionFile("draft", "/d")], {},
         "--model-draft /d --spec-type draft-simple"),
        ("llamafile", "0.10.5", "chat", [CompanionFile("draft", "/d")], {}, "--model-draft /d"),
        ("embedded", "", "chat", [LORA], {}, "--lora-scaled /a.gguf:0.5"),
        ("llamafile", "0.10.5", "chat", [LORA], {}, "--lora-scaled /a.gguf:0.5"),
        ("embedded", "", "chat", [LORA._replace(scale=None)], {}, "--lora /a.gguf"),
        ("embedded", "", "chat", [CompanionFile("lora", "/a,b", 1)], {}, '--lora "/a,b"'),
        ("embedded", "", "chat", [CompanionFile("template", "/t")], {}, "--jinja --chat-template-file /t"),
        ("embedded", "", "chat", [], {"reasoning": False}, "--reasoning off"),
        ("llamafile", "0.10.5", "chat", [], {"reasoning": "off"}, "--reasoning-budget 0"),
        ("embedded", "", "chat", [], {"reasoning": 512}, "--reasoning-budget 512"),
        ("embedded", "", "chat", [], {"reasoning": "auto", "metrics": False}, ""),
        ("embedded", "", "chat", [], {"parallel": 2, "idle": 60, "metrics": True},
         "--parallel 2 --sleep-idle-seconds 60 --metrics"),
        ("embedded", "", "chat", [], {"sampling": Sampling(temperature=0, top_p=0.9, seed=123456789)},
         "--temp 0 --top-p 0.9 --seed 123456789"),
    ],
)  # fmt: skip
def test_options(
    engine: str,
    version: str,
    kind: str,
    companions: list[CompanionFile],
    settings: dict[str, Any],
    expected: str,
) -> None:
    """llama.cpp's flags, as that version knows them."""
    assert options(engine, version, kind, *companions, **settings) == expected


def test_the_table_of_the_docs() -> None:
    """docs/kinds.md has a row for each feature, with the versions of the table."""
    page = (REPO / "docs" / "kinds.md").read_text("utf-8")
    for feature in FEATURES:
        spans = [describe(spans_of(feature, one)) for one in ("llamafile", "llama-server", "embedded")]
        assert f"| `{feature.key}` | {' | '.join(spans)} |" in page


@pytest.mark.parametrize(
    ("version", "problems"),
    [
        ("", []),  # not known before it has run
        ("11434", []),
        ("12000", []),
        (
            "11433",
            [
                (
                    "e needs a llama-server that serves several models: "
                    "expected build 11434 or newer, got 11433",
                    "update llama.cpp to build 11434 or newer",
                )
            ],
        ),
    ],
)
def test_a_router(version: str, problems: list[tuple[str, str]]) -> None:
    """Issue 16: a build that reads every key of a preset file."""
    assert router_problems("e", version) == problems
