"""How a model is served, from the options of the command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from tasks.catalogue.types import Rule, Settings
from tasks.errors import UsageError, did_you_mean

ALL_LAYERS = 9999  # what --force-gpu means (R10): more layers than any model has

# what holds where neither the command line nor models.yaml says anything
BUILT_IN = Settings(host="127.0.0.1", port=8080, timeout=600)


def key_problem(key: str) -> str:
    """Why a key is none, or nothing.

    llama.cpp splits keys at commas, HTTP sends a line of ASCII, and llamafile up to 0.9 ends with a key of
    less than four characters (server.cpp logs the last four).
    """
    fits = re.fullmatch(r"[!-+\--~]{4,}", key)
    return "" if fits else "expected at least four visible ASCII characters, without blanks and commas"


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The command line's settings, held to the rules of the catalogue's (R10, R17, R23)."""
    values: dict[str, Any] = {
        f.name: _value(f.name, options[f.name]) for f in fields(Settings) if f.name in options
    }
    if options.get("force_gpu"):
        if "ngl" in values:
            raise UsageError("--force-gpu and --ngl both say how many layers", fix="leave one of them away")
        values["ngl"] = ALL_LAYERS
    return Settings(**values)


def _value(key: str, text: str) -> int | str:
    """One setting from its text, by its type and its rule in `Settings`."""
    kind = get_type_hints(Settings, include_extras=True)[key]
    rule = next(r for r in kind.__metadata__ if isinstance(r, Rule))
    value: int | str = text.lower() if key == "gpu" else text
    if int in get_args(kind.__origin__):
        value = int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else ""
    if value == "" or (rule.test is not None and not rule.test(value)):
        fix = did_you_mean(text, rule.schema.get("enum", ()))
        if key == "host" and "/" in text:
            fix = "the port goes into --port, and there is no http:// in front"
        raise UsageError(f"--{key.replace('_', '-')}: expected {rule.expected}, got {text!r}", fix=fix)
    return value
