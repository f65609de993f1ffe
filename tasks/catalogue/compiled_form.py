"""Whether plain data is a catalogue as `schema.compile_text` makes it. Pure.

For what was read from a cache: every value must have the type that `catalogue.Catalogue` expects. Every
run asks, so this is cheap: no pydantic. Wrong values of the right type are found by the file's digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.catalogue.types import Engine, Model, Settings

LISTS = ("aliases", "mirrors", "args")
KINDS: Mapping[str, type] = {
    **dict.fromkeys(("title", "license", "url", "hf", "file", "revision", "sha256"), str),
    **dict.fromkeys(("params", "quant", "engine", "engine_version", "version"), str),
    **dict.fromkeys(("host", "gpu"), str),
    **dict.fromkeys(("size", "ram", "port", "ctx_size", "n_predict"), int),
    **dict.fromkeys(("ngl", "threads", "timeout"), int),
    **dict.fromkeys((*LISTS, "more", "parts"), list),
    **dict.fromkeys(("serve", "mmproj"), dict),
}


def is_catalogue(plain: Any) -> bool:
    """Whether `catalogue.Catalogue` can be made of it, and all that it is asked for."""
    try:
        models, names = plain["models"], plain["names"]
        return bool(
            all(_is_entry(one, Model) for one in models.values())
            and all(_is_entry(one, Engine) for one in plain["engines"].values())
            and _is_entry(plain["defaults"], Settings)
            and _are_texts(plain["adopt_from"])
            and plain["default"] in models
            and all(name in models for name in (*names.values(), *plain["files"].values()))
            and all(name.lower() in names for name in models)
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return False


def _is_entry(plain: Mapping[str, Any], kind: type[Model | Engine | Settings]) -> bool:
    """Whether an object of that class can be made of it."""
    known = {*kind.__dataclass_fields__, *(("more",) if kind is Model else ())}
    needed = () if kind is Settings else ("title", "license")
    return (
        plain.keys() <= known
        and all(isinstance(plain[key], str) for key in needed)
        and all(one is None or isinstance(one, KINDS[key]) for key, one in plain.items())
        and all(_are_texts(plain[key]) for key in LISTS if key in plain)
        and ("serve" not in plain or _is_entry(plain["serve"], Settings))
        and all(map(_is_file, plain.get("more", ())))
    )


def _is_file(plain: Sequence[Any]) -> bool:
    """Whether this is a row of `more`: the fields of `catalogue.File`."""
    url, mirrors, sha256, size, mmproj = plain
    return (
        isinstance(url, str)
        and _are_texts(mirrors)
        and isinstance(sha256, (str, type(None)))
        and isinstance(size, (int, type(None)))
        and isinstance(mmproj, bool)
    )


def _are_texts(plain: Any) -> bool:
    return isinstance(plain, list) and all(isinstance(one, str) for one in plain)
