"""Type checks of a compiled catalogue that was read from the cache. Pure.

Each value must have the type that `types.Catalogue` expects. Every run does this, so it
uses no pydantic. Wrong values of the right type are detected by the file's digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.catalogue.auth_options import is_auth
from tasks.catalogue.check_options import Check
from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.serve_options import EndpointOptions, Sampling, ServeOptions
from tasks.catalogue.types import COMPANION_KEYS, Endpoint, Engine, Model, Variant

_Kind = Model | Engine | ServeOptions | EndpointOptions | Sampling | Variant | Check
LISTS = ("aliases", "mirrors", "args")
_DERIVED = ("more", "memory")  # keys that compilation adds
KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("title", "license", "url", "hf", "file", "revision"), str),
    **dict.fromkeys(("sha256", "params", "quant", "host", "gpu", "id", "cors"), str),
    **dict.fromkeys(("engine", "engine_version", "version", "path"), str),
    **dict.fromkeys(("size", "ram", "port", "ctx_size", "n_predict"), int),
    **dict.fromkeys(("ngl", "threads", "timeout"), int),
    **dict.fromkeys(("kind", "pooling", "ask", "contains", "matches", "system"), str),
    **dict.fromkeys(("parallel", "idle", "top_k", "seed"), int),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repeat_penalty"), (int, float)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (int, float)),
    "metrics": bool,
    "max_seconds": (int, float),
    "reasoning": (bool, int, str),
    **dict.fromkeys((*LISTS, "more", "parts", "lora", "checks"), list),
    **dict.fromkeys(("serve", "sampling", "mmproj", "draft", "template", "env"), dict),
    **dict.fromkeys(("memory", "variants", "archives"), dict),
}


def is_catalogue(plain: Any) -> bool:
    """Whether `types.Catalogue` accepts this data, and all its methods work."""
    try:
        models, engines = plain["models"].values(), plain["engines"].values()
        return bool(
            all(_is_entry(entry, Model) for entry in models)
            and all(_is_entry(entry, Engine) for entry in engines)
            and _is_entry(plain["defaults"], ServeOptions)
            and _are_texts(plain["adopt_from"])
            and _has_valid_names(plain)
            and _has_valid_endpoints(plain)
            and is_auth(plain["auth"])
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return False


def _has_valid_names(plain: Mapping[str, Any]) -> bool:
    """Whether each index refers to models, and each model is in the index of names."""
    models, names = plain["models"], plain["names"]
    targets = (plain["default"], *names.values(), *plain["files"].values())
    return all(target in models for target in targets) and all(
        name.lower() in names for name in models
    )


def _has_valid_endpoints(plain: Mapping[str, Any]) -> bool:
    """Whether each endpoint has its keys, and names models."""
    for entry in plain["endpoints"].values():
        names = [*entry["models"], *entry["keep"]]
        known = entry.keys() <= set(Endpoint.__dataclass_fields__)
        if not (known and _are_texts(names) and set(names) <= plain["models"].keys()):
            return False
        if not isinstance(entry.get("memory", 0), (int, float, type(None))):
            return False
        if not isinstance(entry.get("idle", 0), (int, type(None))):
            return False
        if not _has_known_variants(entry["variants"], plain["models"]):
            return False
        if not _is_entry(entry.get("serve", {}), EndpointOptions):
            return False
    return True


def _has_known_variants(chosen: Mapping[str, str], models: Mapping[str, Any]) -> bool:
    return all(one in models[name].get("variants", {}) for name, one in chosen.items())


def _names(kind: type[_Kind]) -> tuple[str, ...]:
    return tuple(kind.__dataclass_fields__)


def _is_entry(plain: Mapping[str, Any], kind: type[_Kind]) -> bool:
    """Whether the data can become an object of that class."""
    allowed, required = _FIELDS[kind]
    if not plain.keys() <= allowed:
        return False
    for key in required:
        if not isinstance(plain[key], str):
            return False
    for key, value in plain.items():
        if value is not None and not isinstance(value, KINDS[key]):
            return False
        if key in _CHECKS and not _CHECKS[key](value):
            return False
    return True


def _is_fact(fact: tuple[str, Any]) -> bool:
    """Whether this is a field of `ModelMetadata`."""
    key, value = fact
    if key == "architecture":
        return isinstance(value, str)
    counts = value if isinstance(value, list) else [value]
    return key in ModelMetadata._fields and all(type(one) is int for one in counts)


def _is_file(plain: Sequence[Any]) -> bool:
    """Whether this is a row of `more`: the fields of `types.FileSpec.as_row`."""
    url, mirrors, sha256, size, role, scale = plain
    return (
        isinstance(url, str)
        and _are_texts(mirrors)
        and isinstance(sha256, (str, type(None)))
        and isinstance(size, (int, type(None)))
        and role in ("", *COMPANION_KEYS)
        and isinstance(scale, (int, float, type(None)))
    )


def _are_texts(plain: Any) -> bool:
    return isinstance(plain, list) and all(isinstance(item, str) for item in plain)


def _are_files(plain: Any) -> bool:
    return all(map(_is_file, plain))


def _are_facts(plain: Any) -> bool:
    return all(map(_is_fact, plain.items()))


def _are_variants(plain: Any) -> bool:
    return all(_is_entry(one, Variant) for one in plain.values())


# the fields of a class that an entry may have, and those that it must have
_FIELDS: Mapping[type[_Kind], tuple[frozenset[str], tuple[str, ...]]] = {
    Model: (frozenset((*_names(Model), *_DERIVED)), ("title", "license")),
    Engine: (frozenset(_names(Engine)), ("title", "license")),
    ServeOptions: (frozenset(_names(ServeOptions)), ()),
    EndpointOptions: (frozenset(_names(EndpointOptions)), ()),
    Sampling: (frozenset(_names(Sampling)), ()),
    Check: (frozenset(_names(Check)), ("ask",)),
    Variant: (frozenset((*_names(Variant), *_DERIVED)), ("url",)),
}
# what is inside a value of the right type
_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(LISTS, _are_texts),
    "env": lambda plain: _are_texts(list(plain.values())),
    "serve": lambda plain: _is_entry(plain, ServeOptions),
    "sampling": lambda plain: not plain or _is_entry(plain, Sampling),
    "more": _are_files,
    "checks": lambda plain: all(_is_entry(one, Check) for one in plain),
    "archives": lambda plain: _are_files(plain.values()),
    "memory": _are_facts,
    "variants": _are_variants,
}
