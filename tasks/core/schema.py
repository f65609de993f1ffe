"""Reading and validating models.yaml, and the JSON Schema for editors; from text to plain data.

Costs hundreds of milliseconds to import (yaml, pydantic), so only a changed models.yaml gets here.
Reads no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tasks.core.catalogue import ENGINES, AdoptFrom, Engine, Model, Name, Rule, Settings, Strict
from tasks.core.errors import UsageError, did_you_mean
from tasks.core.urls import filename_of, url_problem

Path = tuple[str, ...]
Problem = tuple[Path, str]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class CatalogueFile(Strict):
    """models.yaml as a whole."""

    version: Annotated[int, Rule("format of this file", "1", lambda v: v == 1, {"const": 1})]
    default: Annotated[Name, Rule("the model that is meant when none is named")]
    models: dict[Name, Model]
    engines: dict[Name, Engine]
    defaults: Annotated[Settings, Rule("settings for every model")] = Settings()
    adopt_from: AdoptFrom = ()


_ADAPTER: TypeAdapter[CatalogueFile] = TypeAdapter(CatalogueFile)

_EXPECTED = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "dict_type": "expected lines of `key: value`",
    "dataclass_type": "expected lines of `key: value`",
    "tuple_type": "expected a list",
    "missing": "this key is needed",
    "missing_argument": "this key is needed",
}
# `<<` takes over the keys of another mapping
_TEXT_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def compile_text(text: str, where: str) -> dict[str, Any]:
    """Validate the text of models.yaml and index it.

    Args:
        where: the file's path, for messages.

    Returns:
        Plain data for `catalogue.Catalogue`, fit for JSON.

    Raises:
        UsageError: everything that is wrong, at once, each with line, path and what was expected.
    """
    plain, lines, problems = _read_yaml(text, where)
    problems += _type_problems(plain)
    if isinstance(plain, dict):
        problems += _sense_problems(plain)
    if problems:
        raise UsageError(_report(where, problems, lines), fix=f"edit {where}")
    models = plain["models"]
    names = {alias.lower(): name for name, m in models.items() for alias in m.get("aliases", ())}
    names |= {name.lower(): name for name in models}
    return {
        "default": names[plain["default"].lower()],
        "defaults": plain.get("defaults") or {},
        "adopt_from": plain.get("adopt_from") or [],
        "engines": plain["engines"],
        "models": models,
        "names": names,
        "files": {filename_of(m["url"]): name for name, m in reversed(models.items())},
    }


def json_schema() -> dict[str, Any]:
    """The JSON Schema of models.yaml (draft 2020-12), from the same types."""
    schema = _ADAPTER.json_schema()
    for table in ("models", "engines"):  # pydantic lets a name that breaks the pattern have any value
        schema["properties"][table]["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read_yaml(text: str, where: str) -> tuple[Any, dict[Path, int], list[Problem]]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        problems = list(_duplicates(root, (), lines, set())) if root else []
        return (loader.construct_document(root) if root else None), lines, problems
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{where} is not YAML: {_yaml_text(error)}", fix=f"edit {where}") from None
    finally:
        loader.dispose()


def _yaml_text(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {text}" if mark else text


def _duplicates(node: Any, path: Path, lines: dict[Path, int], seen: set[int]) -> Iterator[Problem]:
    """Duplicate keys below `node`; fills `lines` with the line of every path on the way."""
    if id(node) in seen:  # an alias that contains itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            here = (*path, str(index))
            lines[here] = item.start_mark.line + 1
            yield from _duplicates(item, here, lines, seen)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in lines:
                yield here, f"stands twice: in line {lines[here]} and in {key.start_mark.line + 1}"
                continue
            lines[here] = key.start_mark.line + 1
            if key.tag not in _TEXT_KEYS:
                yield here, "a key must be text; put it in quotes"
            yield from _duplicates(value, here, lines, seen)


def _type_problems(plain: Any) -> list[Problem]:
    if not isinstance(plain, dict):
        return [((), "expected lines of `key: value`, beginning with `version: 1`")]
    try:
        # JSON mode: strict about text against numbers, yet a list may fill a tuple; a date (or whatever else
        # YAML has and JSON has not) becomes a mapping, which no key takes
        text = json.dumps(plain, default=lambda v: {type(v).__name__: str(v)}, skipkeys=True)
    except (ValueError, RecursionError):
        return [((), "an alias (*name) stands inside what it names")]
    try:
        _ADAPTER.validate_json(text)
    except ValidationError as error:
        return [_explain(e) for e in error.errors(include_url=False)]
    return []


def _explain(error: Any) -> Problem:
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    kind, got = error["type"], error["input"]
    if kind in _UNKNOWN:
        return path, f"unknown key; {did_you_mean(path[-1], _keys_at(path)) or _list(_keys_at(path))}"
    if kind == "rule":
        expected = f"expected {error['ctx']['expected']}"
    else:
        expected = _EXPECTED.get(kind, str(error["msg"]))
    if kind.startswith("missing"):
        return path, expected
    quote = "; put it in quotes" if kind == "string_type" and isinstance(got, (int, float, dict)) else ""
    return path, f"{expected}, got {_short(got)}{quote}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _list(keys: Sequence[str]) -> str:
    return f"the keys here are {', '.join(keys)}"


def _keys_at(path: Path) -> list[str]:
    """The keys allowed beside the last part of `path`."""
    owner: Any = CatalogueFile
    if path[0] == "defaults" or len(path) == 4:
        owner = Settings
    elif len(path) == 3:
        owner = Model if path[0] == "models" else Engine
    return [field.name for field in fields(owner)]


def _entries(plain: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """The well-formed entries of one table; the malformed are reported by type."""
    table = plain.get(key)
    if not isinstance(table, dict):
        return {}
    return {str(name): entry for name, entry in table.items() if isinstance(entry, dict)}


def _sense_problems(plain: Mapping[str, Any]) -> list[Problem]:
    """What the types cannot say: names that clash, a default that is not there, URLs."""
    models, engines = _entries(plain, "models"), _entries(plain, "engines")
    taken: dict[str, str] = {}
    problems = [p for name, entry in models.items() for p in _name_problems(name, entry, taken)]
    for table, entries in (("models", models), ("engines", engines)):
        for name, entry in entries.items():
            problems += [((table, name, *at), text) for at, text in _url_problems(entry)]
            url = entry.get("url")
            if isinstance(url, str) and not url_problem(url, pinned=True) and not filename_of(url):
                problems.append(((table, name, "url"), f"{url} names no file"))
    program = engines.get("llamafile", {})
    for name, entry in models.items():
        text = _engine_problem(entry, bool(program.get("url") and program.get("version")))
        if text:
            problems.append((("models", name, "engine"), text))
    for name in engines:
        if name not in ENGINES:
            hint = did_you_mean(name, ENGINES) or f"the engines are {', '.join(ENGINES)}"
            problems.append((("engines", name), f"unknown engine; {hint}"))
    default = plain.get("default")
    if isinstance(default, str) and default.lower() not in taken:
        near = did_you_mean(default, list(taken))
        problems.append((("default",), f"there is no model {default!r}; {near}"))
    return problems


def _name_problems(name: str, entry: Mapping[str, Any], taken: dict[str, str]) -> Iterator[Problem]:
    aliases = entry.get("aliases")
    listed = aliases if isinstance(aliases, list) else []
    for index, word in enumerate((name, *listed)):
        path = ("models", name) if index == 0 else ("models", name, "aliases", str(index - 1))
        if not isinstance(word, str):
            continue
        if word.lower() in taken:
            yield path, f"the name {word!r} is taken by models.{taken[word.lower()]}"
        taken.setdefault(word.lower(), name)


def _engine_problem(entry: Mapping[str, Any], has_program: bool) -> str:
    """Why a model's engine cannot serve its file."""
    gguf = str(entry.get("url")).endswith(".gguf")
    engine = entry.get("engine") or ("llamafile" if gguf else "self")
    if engine == "self" and gguf:
        return "a .gguf is no program: expected llamafile or embedded"
    if engine == "embedded" and str(entry.get("url")).endswith(".llamafile"):
        return "the embedded engine reads .gguf files: expected self or llamafile"
    if engine == "llamafile" and not has_program:
        return "llamafile serves it, so engines.llamafile needs url and version (or: engine: embedded)"
    return ""


def _url_problems(entry: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    pinned = bool(entry.get("sha256"))
    mirrors = entry.get("mirrors")
    listed = list(enumerate(mirrors)) if isinstance(mirrors, list) else []
    places = [(("url",), entry.get("url")), *((("mirrors", str(i)), m) for i, m in listed)]
    for path, url in places:
        problem = url_problem(url, pinned=pinned) if isinstance(url, str) else ""
        if problem:
            yield path, problem


def _report(where: str, problems: Sequence[Problem], lines: Mapping[Path, int]) -> str:
    def line_of(path: Path) -> int:
        while path and path not in lines:
            path = path[:-1]
        return lines.get(path, 1)

    rows = sorted({(line_of(path), ".".join(path), text.rstrip("; ")) for path, text in problems})
    head = f"{where} has {len(rows)} error{'s' * (len(rows) != 1)}:"
    shown = [f"  {where}:{line}: {path or '(top level)'}: {text}" for line, path, text in rows]
    return "\n".join((head, *shown))
