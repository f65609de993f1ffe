"""Write the preset file of llama.cpp's router: one section for each model. Pure.

A router is a llama-server without a model. It starts one llama-server for each model
that is asked for, with the options of its section. Options on the router's own command
line override those of every section.

Source: common/preset.cpp of llama.cpp, build 11669.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Member(NamedTuple):
    """One model of an endpoint.

    Args:
        options: flags of llama-server for this model alone.
        keep: load it when the router starts.
        idle: seconds without a request until its memory is freed; None: never.
    """

    name: str
    aliases: tuple[str, ...]
    options: tuple[str, ...]
    keep: bool = False
    idle: int | None = None


_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]*")

# Other names of the flags that the recipe writes. In a section, the alphabetically last
# name of an option wins; on a command line, the last one that was given.
_OTHER_NAMES = {
    "model": ("m",),
    "ctx-size": ("c",),
    "n-predict": ("n", "predict"),
    "threads": ("t",),
    "batch-size": ("b",),
    "ubatch-size": ("ub",),
    "parallel": ("np",),
    "n-gpu-layers": ("ngl", "gpu-layers"),
    "device": ("dev",),
    "mmproj": ("mm",),
    "model-draft": ("md", "spec-draft-model"),
    "embedding": ("embeddings",),
    "reranking": ("rerank",),
    "reasoning": ("rea",),
    "temp": ("temperature",),
    "seed": ("s",),
}
_LONG_NAMES = {short: name for name, shorts in _OTHER_NAMES.items() for short in shorts}

# flags that may be repeated: their values are joined by commas
_JOINED = {"lora", "lora-scaled"}
# flags that add to each other, which a section cannot say
_REPEATED = {
    *("override-kv", "override-tensor", "ot", "logit-bias", "l"),
    *("control-vector", "control-vector-scaled"),
}

# options that the router removes from a section, or overwrites
_OF_THE_ENDPOINT = {
    *("host", "port", "a", "alias", "api-key", "api-key-file"),
    *("ssl-key-file", "ssl-cert-file", "models-dir", "models-preset", "models-max"),
    *("models-autoload", "no-models-autoload"),
}


def render(members: Iterable[Member]) -> str:
    """Return the content of the preset file."""
    sections = ["version = 1\n"]
    for member in members:
        lines = [f"{key} = {value}\n" for key, value in _section(member).items()]
        sections.append(f"[{member.name}]\n{''.join(lines)}")
    return "\n".join(sections)


def problem(member: Member) -> str:
    """Return what a preset file cannot say about a model; empty if it can say all."""
    return next(_problems(member), "")


def cannot_say(value: str) -> list[str]:
    """Return the characters of a value that end it: a preset file has no quotes."""
    return [character for character in (";", "#", "\n", "\r") if character in value]


def _section(member: Member) -> dict[str, str]:
    keys: dict[str, str] = {}
    for flag, values in _parse(member.options):
        key = _key(flag)
        value = values[0] if values else "true"
        keys.pop(_negation(key), None)
        if key in _JOINED and key in keys:
            value = f"{keys[key]},{value}"
        keys[key] = value
    if member.aliases:
        keys["alias"] = ",".join(member.aliases)
    if member.keep:
        keys["load-on-startup"] = "true"
        keys.pop("sleep-idle-seconds", None)
    elif member.idle is not None:
        keys.setdefault("sleep-idle-seconds", str(member.idle))
    return keys


def _parse(options: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each flag with its values; what precedes the first flag is one itself."""
    flag = ""
    values: list[str] = []
    for word in options:
        if flag and not _FLAG.fullmatch(word):
            values.append(word)
            continue
        if flag:
            yield flag, values
        flag = word
        values = []
    if flag:
        yield flag, values


def _key(flag: str) -> str:
    name = flag.lstrip("-")
    return _LONG_NAMES.get(name, name)


def _negation(key: str) -> str:
    """Return `no-jinja` for `jinja`, and the reverse."""
    if key.startswith("no-"):
        return key.removeprefix("no-")
    return f"no-{key}"


def _problems(member: Member) -> Iterator[str]:
    for name in (member.name, *member.aliases):
        for character in ":]#;,":
            if character in name:
                yield f"the name {name} contains {character!r}"
    seen: set[str] = set()
    for flag, values in _parse(member.options):
        if not _FLAG.fullmatch(flag):
            yield f"{flag!r} is not a flag"
        key = _key(flag)
        if key in _OF_THE_ENDPOINT:
            yield f"{flag} applies to the whole endpoint"
        if len(values) > 1:
            yield f"{flag} has {len(values)} values"
        if key in seen and key in _REPEATED:
            yield f"{flag} is given twice"
        seen.add(key)
        for value in values:
            yield from _value_problems(flag, value)


def _value_problems(flag: str, value: str) -> Iterator[str]:
    for character in cannot_say(value):
        yield f"the value of {flag} contains {character!r}: {value!r}"
    if value != value.strip(" \t"):
        yield f"the value of {flag} begins or ends with a space: {value!r}"
    if not value:
        yield f"the value of {flag} is empty"
