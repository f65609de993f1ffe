"""Settings from the options of the command line and their defaults. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from tasks.catalogue.constraints import Constraint
from tasks.catalogue.serve_options import Sampling, ServeOptions
from tasks.errors import UsageError, did_you_mean

ALL_LAYERS = 9999  # for --force-gpu (R10): more layers than any model has


@dataclass(eq=False, repr=False)
class ServeSettings:
    """How a model is served: `ServeOptions` of all levels, with the defaults.

    None: the engine decides. Treat it as frozen, see `types.Strict`.
    """

    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    timeout: int = 600  # seconds until the server must be ready
    ctx_size: int | None = None
    n_predict: int | None = None
    ngl: int | None = None
    gpu: str | None = None
    threads: int | None = None
    cors: str | None = None  # None: pages of this machine
    env: Mapping[str, str] = field(default_factory=dict)
    parallel: int | None = None
    idle: int | None = None  # seconds
    metrics: bool | None = None
    reasoning: bool | int | str | None = None
    pooling: str | None = None
    sampling: Sampling | None = None
    args: tuple[str, ...] = ()


def serve_settings(options: ServeOptions) -> ServeSettings:
    """Return the settings that apply where these options are set."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    return ServeSettings(**given)


def api_key_error(key: str) -> str:
    """Return why an API key is invalid, or an empty text.

    llama.cpp splits keys at commas, an HTTP header is ASCII, and llamafile up to 0.9
    crashes with a shorter key (server.cpp logs its last four characters).
    """
    if re.fullmatch(r"[!-+\--~]{4,}", key):
        return ""
    return "expected at least four visible ASCII characters, without spaces and commas"


def settings_of(options: Mapping[str, Any]) -> ServeOptions:
    """Return the settings of the command line (R10, R17, R23).

    Raises:
        UsageError: a value breaks the rule of its key in models.yaml.
    """
    keys = [field.name for field in fields(ServeOptions) if field.name in options]
    values: dict[str, Any] = {key: _value(key, options[key]) for key in keys}
    if options.get("force_gpu"):
        if "ngl" in values:
            what = "--force-gpu and --ngl both set the number of layers"
            raise UsageError(what, fix="remove one of them")
        values["ngl"] = ALL_LAYERS
    return ServeOptions(**values)


def _value(key: str, text: str) -> int | str:
    """Convert and check one setting, by its type and its rule in `ServeOptions`."""
    kind = get_type_hints(ServeOptions, include_extras=True)[key]
    rule = next(r for r in kind.__metadata__ if isinstance(r, Constraint))
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


def _value_error(key: str, text: str, rule: Constraint) -> UsageError:
    fix = did_you_mean(text, rule.schema.get("enum", ()))
    if key == "host" and "/" in text:
        fix = "remove http:// and any path; set the port with --port"
    option = f"--{key.replace('_', '-')}"
    return UsageError(f"{option}: expected {rule.expected}, got {text!r}", fix=fix)
