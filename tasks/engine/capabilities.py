"""Decide which engine, of which version, can do what a model needs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.settings import ServeSettings

Problem = tuple[str, str]  # what, and its fix
# versions that can: (the first one, the first one that cannot any more)
Spans = tuple[tuple[str, str], ...]

ANY: Spans = (("", ""),)
NEVER: Spans = ()


def since(version: str) -> Spans:
    """Return the spans of a feature that no later version has lost."""
    return ((version, ""),)


class Feature(NamedTuple):
    """A key of models.yaml, and the engines that can do it."""

    key: str
    llamafile: Spans  # also of `self`; the version of llamafile
    llama_server: Spans  # the build of llama.cpp
    embedded: Spans  # the version of xllamacpp
    source: str


_PACKAGE = since("2026.10")  # the oldest xllamacpp that the recipe installs
_V10 = since("0.10")  # since then llamafile's server is llama.cpp's
_CLI = "llamafile docs/cli_arguments.md"

# a build of llama.cpp is the first in which the flag was seen; others may precede it
FEATURES = (
    Feature("mmproj", ANY, since("5400"), _PACKAGE, "ggml-org/llama.cpp#12898"),
    Feature(
        "kind: embedding",
        (("0.8.6", "0.8.14"), ("0.10", "")),
        ANY,
        _PACKAGE,
        "llamafile server.cpp: /v1/embeddings answers 503 from 0.8.14 to 0.9",
    ),
    Feature("kind: rerank", _V10, since("4000"), _PACKAGE, "ggml-org/llama.cpp#9510"),
    Feature("pooling", _V10, ANY, _PACKAGE, _CLI),
    Feature(
        "draft",
        _V10,
        since("11434"),
        _PACKAGE,
        f"{_CLI}; llama.cpp common/arg.cpp: without --spec-type, no draft is used",
    ),
    Feature(
        "lora", _V10, ANY, _PACKAGE, "ggml-org/llama.cpp#8332: adapters are GGUF files"
    ),
    Feature("template", _V10, since("4600"), _PACKAGE, "ggml-org/llama.cpp#9639"),
    Feature(
        "reasoning: off", _V10, since("8783"), _PACKAGE, "ggml-org/llama.cpp#20297"
    ),
    Feature(
        "reasoning: TOKENS",
        since("0.10.5"),
        since("8783"),
        _PACKAGE,
        "ggml-org/llama.cpp#20297: an earlier --reasoning-budget knows 0 and -1",
    ),
    Feature("sampling", _V10, ANY, _PACKAGE, "llamafile 0.9.3: no --temp"),
    Feature("parallel", ANY, ANY, _PACKAGE, "llamafile 0.8.6 server.cpp"),
    Feature("idle", _V10, since("7551"), _PACKAGE, "ggml-org/llama.cpp#18228"),
    Feature("metrics", since("0.8.6"), ANY, _PACKAGE, "llamafile 0.8.6 server.cpp"),
)
# the first build whose preset files were read and tried; earlier ones lack some keys.
# Source: ggml-org/llama.cpp#17859
ROUTER_SINCE = "11434"
# `reasoning` is of chat, too: its key depends on its value
_SETTINGS = {"chat": ("sampling",), "embedding": ("pooling",)}
_BY_KEY = {feature.key: feature for feature in FEATURES}


def features_of(resolved: ResolvedModel) -> list[Feature]:
    """Return the features that a model's server has to have."""
    kind = resolved.model.kind
    keys = needed_features(kind, resolved.companions, resolved.settings)
    return [_BY_KEY[key] for key in keys]


def needed_features(
    kind: str, companions: Sequence[CompanionFile], settings: ServeSettings
) -> list[str]:
    """Return the keys of the features that a server has to have."""
    return list(dict.fromkeys(_needed(kind, companions, settings)))


def _needed(
    kind: str, companions: Sequence[CompanionFile], settings: ServeSettings
) -> Iterator[str]:
    if kind != "chat":
        yield f"kind: {kind}"
    for companion in companions:
        yield companion.role
    if kind == "chat" and is_off(settings.reasoning):
        yield "reasoning: off"
    elif kind == "chat" and isinstance(settings.reasoning, int):
        yield "reasoning: TOKENS"
    for key in (*settings_of_kind(kind), "parallel", "idle", "metrics"):
        if getattr(settings, key):
            yield key


def settings_of_kind(kind: str) -> tuple[str, ...]:
    """Return the settings that only a model of this kind uses; `defaults:` has all."""
    return _SETTINGS.get(kind, ())


def is_off(reasoning: bool | int | str | None) -> bool:
    """Whether `reasoning:` is off; YAML reads an unquoted `off` as false."""
    return reasoning is False or reasoning == "off"


def spans_of(feature: Feature, engine: str) -> Spans:
    """Return the versions of an engine that have a feature."""
    if engine == "llama-server":
        return feature.llama_server
    if engine == "embedded":
        return feature.embedded
    return feature.llamafile


def has_feature(feature: Feature, engine: str, version: str) -> bool:
    """Whether an engine has a feature; of an unknown version, if any version has."""
    spans = spans_of(feature, engine)
    if not version:
        return bool(spans)
    return any(_is_between(version, *span) for span in spans)


def _is_between(version: str, first: str, end: str) -> bool:
    known = _numbers(version)
    if first and known < _numbers(first):
        return False
    return not end or known < _numbers(end)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def describe(spans: Spans) -> str:
    """Return the versions in words: `from 0.10`, `0.8.6 to before 0.8.14`."""
    words = []
    for first, end in spans:
        if not end:
            words.append(f"from {first}" if first else "every version")
        elif first:
            words.append(f"{first} to before {end}")
        else:
            words.append(f"before {end}")
    return " and ".join(words) or "no version"


def feature_problems(resolved: ResolvedModel, version: str) -> list[Problem]:
    """Return a problem for each feature that a model's engine does not have.

    Args:
        version: of the engine; empty if it is not known.
    """
    return [
        _problem(resolved, feature, version)
        for feature in features_of(resolved)
        if not has_feature(feature, resolved.engine, version)
    ]


def router_problems(name: str, version: str) -> list[Problem]:
    """Return the problem of a llama-server that cannot serve several models.

    Args:
        name: of the endpoint.
        version: the build; empty if it is not known.
    """
    if not version or _is_between(version, ROUTER_SINCE, ""):
        return []
    what = f"{name} needs a llama-server that serves several models: expected build "
    what += f"{ROUTER_SINCE} or newer, got {version}"
    return [(what, f"update llama.cpp to build {ROUTER_SINCE} or newer")]


def _problem(resolved: ResolvedModel, feature: Feature, version: str) -> Problem:
    program = resolved.engine
    if program == "self":
        program = "llamafile"
    needed = describe(spans_of(feature, resolved.engine))
    what = f"{resolved.name} needs `{feature.key}`, which {program} {version} does not"
    return f"{what.strip()} have: expected {needed}", _fix(resolved, feature)


def _fix(resolved: ResolvedModel, feature: Feature) -> str:
    """Return what can be done: another engine, or a newer version of this one."""
    newest = spans_of(feature, resolved.engine)[-1:]
    version = ""
    if newest and not newest[0][1]:
        version = newest[0][0]
    if resolved.engine == "self":
        return f"use --engine llamafile (engines.llamafile, {version} or newer)"
    if resolved.engine == "embedded":
        return "pip install --upgrade '.[embedded]'"
    if resolved.engine == "llama-server":
        return f"update llama.cpp to build {version} or newer, or use --engine embedded"
    fix = f"set the version of engines.llamafile to {version} or newer"
    if resolved.is_gguf:
        fix += ", or use --engine embedded or llama-server"
    return fix
