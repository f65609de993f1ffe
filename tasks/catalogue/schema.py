"""Reading and validating models.yaml and models.lock, and the JSON Schema for editors; text to plain data.

Costs hundreds of milliseconds to import (yaml, pydantic), so only a changed models.yaml gets here.
Reads no file.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from tasks.catalogue.lockfile import LockFile, join
from tasks.catalogue.semantic_checks import sense_problems
from tasks.catalogue.types import AdoptFrom, Engine, Model, Name, Rule, Settings, Strict
from tasks.catalogue.yaml_limits import LimitError, check
from tasks.errors import UsageError, did_you_mean
from tasks.urls import filename_of

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
_SHOWN = 100  # errors in one message
_LOCK: TypeAdapter[LockFile] = TypeAdapter(LockFile)

_EXPECTED = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "dict_type": "expected lines of `key: value`",
    "dataclass_type": "expected lines of `key: value`",
    "tuple_type": "expected a list",
    "missing": "this key is required",
    "missing_argument": "this key is required",
}
# `<<` takes over the keys of another mapping
_TEXT_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
# what PyYAML raises for a value that is not of its type, such as `!!int ""`
_ODD_SCALARS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def compile_text(text: str, where: str, lock: LockFile | None = None) -> dict[str, Any]:
    """Validate the text of models.yaml, join models.lock to it, and index it.

    Args:
        where: the file's path, for messages.

    Returns:
        Plain data for `catalogue.Catalogue`, fit for JSON.

    Raises:
        UsageError: everything that is wrong, at once, each with line, path and what was expected.
    """
    plain, lines = _read(text, where)
    if problems := join(plain, lock):
        names = dict.fromkeys(f"--model {path[1]}" for path, _ in problems)
        fix = f"edit {where}, or if it is right: doit lock --upgrade {' '.join(names)}"
        raise UsageError(_report(where, problems, lines), fix=fix)
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


def read_catalogue(text: str, where: str) -> dict[str, Any]:
    """models.yaml as it stands, validated. Raises UsageError like `compile_text`."""
    return _read(text, where)[0]


def _read(text: str, where: str) -> tuple[dict[str, Any], dict[Path, int]]:
    plain, lines, problems = _read_yaml(text, where)
    problems += _type_problems(plain, CatalogueFile)
    if isinstance(plain, dict):
        problems += sense_problems(plain)
    if problems:
        raise UsageError(_report(where, problems, lines), fix=f"edit {where}")
    return plain, lines


def read_lock(text: str, where: str) -> LockFile:
    """models.lock. Raises UsageError: it is damaged, or was edited."""
    plain, lines, problems = _read_yaml(text, where)
    problems += _type_problems(plain, LockFile)
    if problems:
        fix = f"git checkout {where}, or delete it and make it again: doit lock"
        raise UsageError(_report(where, problems, lines), fix=fix)
    return _LOCK.validate_python(plain, strict=False)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of models.yaml (draft 2020-12), from the same types."""
    schema = _ADAPTER.json_schema()
    for table in ("models", "engines"):  # pydantic lets a name that breaks the pattern have any value
        schema["properties"][table]["additionalProperties"] = False
    places: list[Any] = [{"required": ["url"]}, {"required": ["hf", "file"]}]
    schema["$defs"]["Model"]["oneOf"] = places
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read_yaml(text: str, where: str) -> tuple[Any, dict[Path, int], list[Problem]]:
    loader: Any = None
    try:
        check(text, _Loader)
        loader = _Loader(text)
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        problems = list(_duplicates(root, (), lines, set())) if root else []
        return (loader.construct_document(root) if root else None), lines, problems
    except LimitError as error:
        raise UsageError(f"{where}:{error.line}: {error}", fix=f"edit {where}") from None
    except (yaml.YAMLError, *_ODD_SCALARS) as error:
        raise UsageError(f"{where} is not YAML: {_yaml_text(error)}", fix=f"edit {where}") from None
    finally:
        if loader:
            loader.dispose()


def _yaml_text(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error)
    if mark:
        return f"line {mark.line + 1}, column {mark.column + 1}: {text}"
    return text if isinstance(error, (yaml.YAMLError, ValueError)) else "a value does not fit its tag (!!…)"


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
            name = key.value if isinstance(key.value, str) else "?"
            here = (*path, name)
            if here in lines:
                yield here, f"stands twice: in line {lines[here]} and in {key.start_mark.line + 1}"
                continue
            lines[here] = key.start_mark.line + 1
            if key.tag not in _TEXT_KEYS:
                yield here, "a key must be text; put it in quotes"
            yield from _duplicates(value, here, lines, seen)


def _type_problems(plain: Any, root: type) -> list[Problem]:
    if not isinstance(plain, dict):
        return [((), "expected lines of `key: value`, beginning with `version: 1`")]
    try:
        # JSON mode: strict about text against numbers, yet a list may fill a tuple; a date (or whatever else
        # YAML has and JSON has not) becomes a mapping, which no key takes
        text = json.dumps(plain, default=lambda v: {type(v).__name__: str(v)}, skipkeys=True)
    except (ValueError, RecursionError):
        return [((), "an alias (*name) stands inside what it names")]
    try:
        (_LOCK if root is LockFile else _ADAPTER).validate_json(text)
    except ValidationError as error:
        return [_explain(e, root) for e in error.errors(include_url=False)]
    return []


def _explain(error: Any, root: type) -> Problem:
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    kind, got = error["type"], error["input"]
    if kind in _UNKNOWN:
        keys = _keys_at(path, root)
        return path, f"unknown key; {did_you_mean(path[-1], keys) or _list(keys)}"
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


def _keys_at(path: Path, root: type) -> list[str]:
    """The keys allowed beside the last part of `path`."""
    kind: Any = root
    for part in path[:-1]:
        kind = get_type_hints(kind)[part] if is_dataclass(kind) else _held(kind)
        if get_origin(kind) is UnionType:
            kind = _held(kind)
    return [field.name for field in fields(kind)]


def _held(kind: Any) -> Any:
    """What a mapping or a list is of, or what an optional value is."""
    return next(one for one in get_args(kind) if is_dataclass(one) or get_args(one))


def _report(where: str, problems: Sequence[Problem], lines: Mapping[Path, int]) -> str:
    def line_of(path: Path) -> int:
        while path and path not in lines:
            path = path[:-1]
        return lines.get(path, 1)

    rows = sorted({(line_of(path), ".".join(path), text.rstrip("; ")) for path, text in problems})
    further = len(rows) - _SHOWN
    head = f"{where} has {len(rows)} error{'s' * (len(rows) != 1)}:"
    shown = [f"  {where}:{line}: {path or '(top level)'}: {text}" for line, path, text in rows[:_SHOWN]]
    if further > 0:
        shown.append(f"  and {further} more")
    return "\n".join((head, *shown))
