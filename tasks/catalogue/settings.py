"""Settings from the options of the command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from tasks.catalogue.types import Rule, Settings
from tasks.errors import UsageError, did_you_mean

ALL_LAYERS = 9999  # for --force-gpu (R10): more layers than any model has

# defaults for what neither the command line nor models.yaml sets
BUILT_IN = Settings(host="127.0.0.1", port=8080, timeout=600)


def key_problem(key: str) -> str:
    """Return why an API key is invalid, or an empty text.

    llama.cpp splits keys at commas, an HTTP header is ASCII, and llamafile up to 0.9
    crashes with a shorter key (server.cpp logs its last four characters).
    """
    if re.fullmatch(r"[!-+\--~]{4,}", key):
        return ""
    return "expected at least four visible ASCII characters, without blanks and commas"


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Return the settings of the command line (R10, R17, R23).

    Raises:
        UsageError: a value breaks the rule of its key in models.yaml.
    """
    keys = [field.name for field in fields(Settings) if field.name in options]
    values: dict[str, Any] = {key: _value(key, options[key]) for key in keys}
    if options.get("force_gpu"):
        if "ngl" in values:
            what = "--force-gpu and --ngl both set the number of layers"
            raise UsageError(what, fix="remove one of them")
        values["ngl"] = ALL_LAYERS
    return Settings(**values)


def _value(key: str, text: str) -> int | str:
    """Convert and check one setting, by its type and its rule in `Settings`."""
    kind = get_type_hints(Settings, include_extras=True)[key]
    rule = next(r for r in kind.__metadata__ if isinstance(r, Rule))
    value: int | str = text
    if key == "gpu":
        value = text.lower()
    if int in get_args(kind.__origin__):
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise _value_error(key, text, rule)
        value = int(text)
    if value == "" or (rule.test is not None and not rule.test(value)):
        raise _value_error(key, text, rule)
    return value


def _value_error(key: str, text: str, rule: Rule) -> UsageError:
    fix = did_you_mean(text, rule.schema.get("enum", ()))
    if key == "host" and "/" in text:
        fix = "remove http:// and any path; set the port with --port"
    option = f"--{key.replace('_', '-')}"
    return UsageError(f"{option}: expected {rule.expected}, got {text!r}", fix=fix)
