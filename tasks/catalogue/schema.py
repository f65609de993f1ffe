"""Parse and validate models.yaml and models.lock; write the JSON Schema. Pure.

Imports yaml and pydantic, which takes hundreds of milliseconds, so it is imported only
for a catalogue that is not compiled yet.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from tasks.catalogue.auth_options import AUTH_HOST, HostAuth, auth_errors
from tasks.catalogue.constraints import AdoptFrom, Constraint, Name
from tasks.catalogue.deploy_options import DeployOptions
from tasks.catalogue.endpoint_checks import endpoint_errors
from tasks.catalogue.lockfile import LockFile, apply_lock
from tasks.catalogue.semantic_checks import semantic_errors
from tasks.catalogue.serve_options import ServeOptions, Strict
from tasks.catalogue.types import Endpoint, Engine, Model
from tasks.catalogue.yaml_limits import LimitError, check
from tasks.errors import UsageError, did_you_mean
from tasks.urls import filename_of

Path = tuple[str, ...]
Problem = tuple[Path, str]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class CatalogueFile(Strict):
    """models.yaml as a whole."""

    version: Annotated[
        int, Constraint("format of this file", "1", lambda v: v == 1, {"const": 1})
    ]
    default: Annotated[Name, Constraint("the model that is used if no model is given")]
    models: dict[Name, Model]
    engines: dict[Name, Engine]
    defaults: Annotated[ServeOptions, Constraint("settings for every model")] = (
        ServeOptions()
    )
    adopt_from: AdoptFrom = ()
    endpoints: Annotated[
        dict[Name, Endpoint], Constraint("several models behind one server, by name")
    ] = field(default_factory=dict)
    deploy: Annotated[
        DeployOptions | None, Constraint("where the models are served, for doit deploy")
    ] = None
    auth: Annotated[
        dict[Annotated[str, AUTH_HOST], HostAuth],
        Constraint("environment variables that have the credentials of a host"),
    ] = field(default_factory=dict)


_ADAPTER: TypeAdapter[CatalogueFile] = TypeAdapter(CatalogueFile)
_MAX_ERRORS = 100  # in one message
_LOCK: TypeAdapter[LockFile] = TypeAdapter(LockFile)
_DEPLOY: TypeAdapter[DeployOptions] = TypeAdapter(DeployOptions)

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
# of keys: text, and `<<`, which merges another mapping
_TEXT_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
# what PyYAML raises for a value that does not fit its tag, such as `!!int ""`
_SCALAR_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")


def compile_catalogue(
    text: str, where: str, lock: LockFile | None = None
) -> dict[str, Any]:
    """Validate the text of models.yaml, apply models.lock, and index the names.

    Args:
        where: the file's path, for messages.

    Returns:
        Plain data for `types.Catalogue`, which JSON can store.

    Raises:
        UsageError: with all errors, each with its line and path.
    """
    plain, lines = _read(text, where)
    problems = apply_lock(plain, lock)
    if problems:
        names = dict.fromkeys(f"--model {path[1]}" for path, _ in problems)
        command = f"doit lock --upgrade {' '.join(names)}"
        fix = f"edit {where}, or if it is right: `{command}`"
        raise UsageError(_report(where, problems, lines), fix=fix)
    models = plain["models"]
    names = {
        alias.lower(): name
        for name, model in models.items()
        for alias in model.get("aliases", ())
    }
    names |= {name.lower(): name for name in models}
    # of two models with the same file name, the first one counts
    files = {filename_of(_url(m)): name for name, m in reversed(models.items())}
    return {
        "default": names[plain["default"].lower()],
        "defaults": plain.get("defaults") or {},
        "adopt_from": plain.get("adopt_from") or [],
        "engines": plain["engines"],
        "auth": plain.get("auth") or {},
        "endpoints": _endpoints(plain.get("endpoints") or {}, names, models),
        "models": models,
        "names": names,
        "files": files,
    }


def _endpoints(
    endpoints: Mapping[str, Any], names: Mapping[str, Any], models: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the entries of `endpoints:`, with models and variants by their names."""
    return {
        name: {
            **entry,
            "models": [names[word.lower()] for word in entry["models"]],
            "keep": [names[word.lower()] for word in entry.get("keep", ())],
            "variants": _variants(entry.get("variants") or {}, names, models),
        }
        for name, entry in endpoints.items()
    }


def _variants(
    chosen: Mapping[str, str], names: Mapping[str, Any], models: Mapping[str, Any]
) -> dict[str, str]:
    """Return model → variant, as their entries spell them."""
    found = {}
    for word, variant in chosen.items():
        name = names[word.lower()]
        known = {one.lower(): one for one in models[name]["variants"]}
        found[name] = known[variant.lower()]
    return found


def _url(model: Mapping[str, Any]) -> str:
    """Return the URL of a compiled model's file, or of that of its first variant."""
    first = next(iter(model.get("variants", {}).values()), model)
    return str(first["url"])


def read_catalogue(text: str, where: str) -> dict[str, Any]:
    """Validate the text of models.yaml; models.lock is not applied.

    Raises:
        UsageError: with all errors.
    """
    return _read(text, where)[0]


def _read(text: str, where: str) -> tuple[dict[str, Any], dict[Path, int]]:
    fix = f"edit {where}: keep one side of each conflict, without git's markers"
    _check_conflict(text, where, fix)
    plain, lines, problems = _read_yaml(text, where)
    problems += _type_problems(plain, CatalogueFile)
    if isinstance(plain, dict):
        problems += semantic_errors(plain)
        problems += endpoint_errors(plain)
        problems += auth_errors(plain)
    if problems:
        raise UsageError(_report(where, problems, lines), fix=f"edit {where}")
    return plain, lines


def deploy_options(plain: Mapping[str, Any]) -> DeployOptions | None:
    """Return the section `deploy:` of a valid catalogue; None if it has none.

    Args:
        plain: the result of `read_catalogue`.
    """
    if plain.get("deploy") is None:
        return None
    return _DEPLOY.validate_python(plain["deploy"], strict=False)


def read_lock(text: str, where: str) -> LockFile:
    """Parse the text of models.lock.

    Raises:
        UsageError: it is damaged, or was edited.
    """
    place = shlex.quote(where)
    fix = f"git checkout --theirs {place} && doit lock"
    _check_conflict(text, where, fix)
    plain, lines, problems = _read_yaml(text, where)
    problems += _type_problems(plain, LockFile)
    if problems:
        again = f"rm {place} && doit lock"
        fix = f"`git checkout {place}`, or recreate it: `{again}`"
        raise UsageError(_report(where, problems, lines), fix=fix)
    return _LOCK.validate_python(plain, strict=False)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of models.yaml (draft 2020-12)."""
    schema = _ADAPTER.json_schema()
    # pydantic allows any value under a name that breaks the pattern
    for table in ("models", "engines", "endpoints", "auth"):
        schema["properties"][table]["additionalProperties"] = False
    archives = schema["$defs"]["Engine"]["properties"]["archives"]
    archives["additionalProperties"] = False
    deployed = schema["$defs"]["DeployOptions"]["properties"]["models"]
    deployed["additionalProperties"] = False
    locations: list[Any] = [{"required": ["url"]}, {"required": ["hf", "file"]}]
    schema["$defs"]["Model"]["oneOf"] = [*locations, {"required": ["variants"]}]
    schema["$defs"]["Variant"]["oneOf"] = [locations[0], {"required": ["file"]}]
    schema["$defs"]["Model"]["properties"]["variants"]["minProperties"] = 1
    expected: list[Any] = [{"required": ["contains"]}, {"required": ["matches"]}]
    schema["$defs"]["Check"]["oneOf"] = expected
    logins: list[Any] = [{"required": ["token"]}, {"required": ["user", "password"]}]
    schema["$defs"]["HostAuth"]["oneOf"] = logins
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_conflict(text: str, where: str, fix: str) -> None:
    """Check that git has not left the two sides of a merge in the file.

    Raises:
        UsageError: it has, in the line that the error names.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("<<<<<<< "):
            raise UsageError(
                f"{where}:{number}: a merge conflict is not resolved", fix=fix
            )


def _read_yaml(text: str, where: str) -> tuple[Any, dict[Path, int], list[Problem]]:
    loader: Any = None
    try:
        check(text, _Loader)
        loader = _Loader(text)
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        if not root:
            return None, lines, []
        problems = list(_key_problems(root, (), lines, set()))
        return loader.construct_document(root), lines, problems
    except LimitError as error:
        raise UsageError(
            f"{where}:{error.line}: {error}", fix=f"edit {where}"
        ) from None
    except (yaml.YAMLError, *_SCALAR_ERRORS) as error:
        what = f"{where} is not YAML: {_yaml_text(error)}"
        raise UsageError(what, fix=f"edit {where}") from None
    finally:
        if loader:
            loader.dispose()


def _yaml_text(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error)
    if mark:
        return f"line {mark.line + 1}, column {mark.column + 1}: {text}"
    if isinstance(error, (yaml.YAMLError, ValueError)):
        return text
    return "a value does not fit its tag (!!…)"


def _key_problems(
    node: Any, path: Path, lines: dict[Path, int], seen: set[int]
) -> Iterator[Problem]:
    """Yield invalid and duplicate keys below `node`; fills `lines` for all paths."""
    if id(node) in seen:  # an alias that contains itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            here = (*path, str(index))
            lines[here] = item.start_mark.line + 1
            yield from _key_problems(item, here, lines, seen)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key.value, str) else "?"
            here = (*path, name)
            line = key.start_mark.line + 1
            if here in lines:
                yield here, f"duplicate key: lines {lines[here]} and {line}"
                continue
            lines[here] = line
            if key.tag not in _TEXT_KEYS:
                yield here, "a key must be text; put it in quotes"
            yield from _key_problems(value, here, lines, seen)


def _type_problems(plain: Any, root: type) -> list[Problem]:
    if not isinstance(plain, dict):
        return [((), "expected lines of `key: value`, beginning with `version: 1`")]
    try:
        # In JSON mode pydantic does not convert text and numbers, but accepts a list
        # for a tuple. Types that JSON lacks, such as a date, become a mapping, which
        # no key accepts.
        text = json.dumps(plain, default=_type_and_text, skipkeys=True)
    except (ValueError, RecursionError):
        return [((), "an alias (*name) is inside the value that it names")]
    adapter: TypeAdapter[Any] = _LOCK if root is LockFile else _ADAPTER
    try:
        adapter.validate_json(text)
    except ValidationError as error:
        return [_explain(e, root) for e in error.errors(include_url=False)]
    return []


def _type_and_text(value: Any) -> dict[str, str]:
    return {type(value).__name__: str(value)}


def _explain(error: Any, root: type) -> Problem:
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    kind, got = error["type"], error["input"]
    if kind in _UNKNOWN_KEY:
        keys = _keys_at(path, root)
        return path, f"unknown key; {did_you_mean(path[-1], keys) or _list(keys)}"
    if kind == "rule":
        expected = f"expected {error['ctx']['expected']}"
    else:
        expected = _EXPECTED.get(kind, str(error["msg"]))
    if kind.startswith("missing"):
        return path, expected
    if path[:1] == ("auth",):  # it may be a secret, in the place of a variable's name
        return path, expected
    text = f"{expected}, got {_short(got)}"
    if kind == "string_type" and isinstance(got, (int, float, dict)):
        text += "; put it in quotes"
    return path, text


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _list(keys: Sequence[str]) -> str:
    return f"the keys here are {', '.join(keys)}"


def _keys_at(path: Path, root: type) -> list[str]:
    """Return the keys that are allowed where the last part of `path` is."""
    kind: Any = root
    for part in path[:-1]:
        kind = get_type_hints(kind)[part] if is_dataclass(kind) else _held(kind)
        if get_origin(kind) is UnionType:
            kind = _held(kind)
    return [field.name for field in fields(kind)]


def _held(kind: Any) -> Any:
    """Return the type of a mapping's or list's values, or of an optional value."""
    return next(arg for arg in get_args(kind) if is_dataclass(arg) or get_args(arg))


def _report(where: str, problems: Sequence[Problem], lines: Mapping[Path, int]) -> str:
    rows = sorted(
        {
            (_line_of(path, lines), ".".join(path) or "(top level)", text.rstrip("; "))
            for path, text in problems
        }
    )
    count = len(rows)
    report = [f"{where} has {count} error{'s' * (count != 1)}:"]
    for line, key, text in rows[:_MAX_ERRORS]:
        report.append(f"  {where}:{line}: {key}: {text}")
    if count > _MAX_ERRORS:
        report.append(f"  and {count - _MAX_ERRORS} more")
    return "\n".join(report)


def _line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """Return the line of a path, or of the nearest mapping that contains it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
