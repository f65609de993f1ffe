"""Checks of `endpoints:` in models.yaml. Pure.

Works on plain data that may be malformed: type errors are reported elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tasks.catalogue.file_specs import file_location, variant_entry
from tasks.catalogue.model_format import has_gguf_name, has_llamafile_name
from tasks.catalogue.semantic_checks import _args_problems, _below, _entries, _list
from tasks.errors import did_you_mean
from tasks.urls import filename_of, url_error

Path = tuple[str, ...]
Problem = tuple[Path, str]
_Entry = Mapping[str, Any]

# Source: common/preset.cpp of llama.cpp, which has no quotes
_ENDS_A_VALUE = (";", "#", "\n", "\r")


def endpoint_errors(plain: Mapping[str, Any]) -> list[Problem]:
    """Return all errors of `endpoints:`, each with the path of its key."""
    models = _entries(plain, "models")
    names = _names(models)
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for name, entry in _entries(plain, "endpoints").items():
        path = ("endpoints", name)
        if name.lower() in names:
            taken = names[name.lower()]
            problems.append((path, f"the name {name!r} is taken by models.{taken}"))
        other = seen.setdefault(name.lower(), name)
        if other != name:
            problems.append((path, f"the name is taken by endpoints.{other}"))
        problems += _below(path, _endpoint_problems(entry, names, models))
        for word in _list(entry, "models"):
            member = _named(word, names)
            settings = models.get(member, {}).get("serve")
            problems += _below(("models", member, "serve"), _preset_problems(settings))
        if _list(entry, "models"):
            problems += _below(("defaults",), _preset_problems(plain.get("defaults")))
    return problems


def _preset_problems(settings: Any) -> Iterator[Problem]:
    """Yield arguments that the preset file of llama-server's router cannot express."""
    if not isinstance(settings, dict):
        return
    for index, word in enumerate(_list(settings, "args")):
        for character in _ENDS_A_VALUE:
            if isinstance(word, str) and character in word:
                text = f"the model is behind an endpoint, and there {character!r} ends"
                yield ("args", str(index)), f"{text} a value: got {word!r}"


def _names(models: Mapping[str, _Entry]) -> dict[str, str]:
    """Return the name of the model for each name and alias in lower case."""
    names: dict[str, str] = {}
    for name, entry in models.items():
        for alias in _list(entry, "aliases"):
            if isinstance(alias, str):
                names.setdefault(alias.lower(), name)
    return {**names, **{name.lower(): name for name in models}}


def _endpoint_problems(
    entry: _Entry, names: Mapping[str, str], models: Mapping[str, _Entry]
) -> Iterator[Problem]:
    yield from _below(("serve",), _args_problems(entry.get("serve")))
    members: dict[str, Path] = {}
    for index, word in enumerate(_list(entry, "models")):
        path = ("models", str(index))
        name = _named(word, names)
        if isinstance(word, str) and not name:
            yield path, _unknown(word, names)
        elif name in members:
            yield path, f"{name} is named twice"
        elif name:
            members[name] = path
            yield from _member_problems(path, models[name])
    yield from _id_problems(members, models)
    for index, word in enumerate(_list(entry, "keep")):
        path = ("keep", str(index))
        name = _named(word, names)
        if isinstance(word, str) and not name:
            yield path, _unknown(word, names)
        elif name and name not in members:
            yield path, f"{name} is not one of this endpoint's models"
    yield from _variant_problems(entry, members, names, models)


def _variant_problems(
    entry: _Entry,
    members: Collection[str],
    names: Mapping[str, str],
    models: Mapping[str, _Entry],
) -> Iterator[Problem]:
    """Yield variants that no model of the endpoint has."""
    chosen = entry.get("variants")
    if not isinstance(chosen, dict):
        return
    seen: set[str] = set()
    for word, variant in chosen.items():
        path = ("variants", str(word))
        name = _named(word, names)
        known = list(_entries(models.get(name, {}), "variants"))
        if not name:
            yield path, _unknown(str(word), names)
        elif name not in members:
            yield path, f"{name} is not one of this endpoint's models"
        elif name in seen:
            yield path, f"{name} is named twice"
        elif not known:
            yield path, f"{name} has no variants"
        elif str(variant).lower() not in [one.lower() for one in known]:
            hint = did_you_mean(str(variant), known) or f"expected {', '.join(known)}"
            yield path, f"{name} has no variant {variant!r}; {hint}"
        seen.add(name)


def _named(word: Any, names: Mapping[str, str]) -> str:
    """Return the name of the model that a word is; empty if it is none."""
    if not isinstance(word, str):
        return ""
    return names.get(word.lower(), "")


def _unknown(word: str, names: Mapping[str, str]) -> str:
    return f"there is no model {word!r}; {did_you_mean(word, list(names))}"


def _member_problems(path: Path, entry: _Entry) -> Iterator[Problem]:
    """Yield why a model cannot be one of several behind llama-server."""
    variants = _entries(entry, "variants").values()
    files: list[_Entry] = [variant_entry(entry, one) for one in variants]
    for own in files or [entry]:
        text = _file_problem(own)
        if text:
            yield path, text
            return
    settings = entry.get("serve")
    if isinstance(settings, dict) and settings.get("env"):
        text = "the model has `serve.env`, and one server has one environment"
        yield path, f"{text}: set it in `serve.env` of the endpoint"


def _file_problem(entry: _Entry) -> str:
    """Return why llama-server cannot read a model's file, or an empty text."""
    values = [entry.get(key) for key in ("url", "hf", "file", "revision")]
    if not all(isinstance(value, (str, type(None))) for value in values):
        return ""
    url = file_location(entry)[1]
    if not url or url_error(url, pinned=True):
        return ""
    filename = filename_of(url)
    is_self = not (has_gguf_name(filename) or entry.get("engine"))
    if has_llamafile_name(filename) or is_self or entry.get("engine") == "self":
        return f"{filename} is a llamafile, and llama-server reads .gguf files"
    return ""


def _id_problems(
    members: Mapping[str, Path], models: Mapping[str, _Entry]
) -> Iterator[Problem]:
    """Yield models whose `id:` is another model's name in the API."""
    owners: dict[str, str] = {}
    for name in members:
        for word in (name, *_list(models[name], "aliases")):
            owners[str(word)] = name
    for name, path in members.items():
        own = models[name].get("id")
        if isinstance(own, str) and owners.setdefault(own, name) != name:
            yield path, f"its `id: {own}` is also a name of {owners[own]}"
