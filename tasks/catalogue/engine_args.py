"""Flags of the engine that the user must set through the recipe instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tasks.errors import UsageError


class Instead(NamedTuple):
    """What to use instead of an engine's flag."""

    option: str  # on the command line
    key: str  # in models.yaml


_HOST_AND_PORT = Instead("--host and --port", "`host:` and `port:`")
_MODEL = Instead(
    "--llamafile PATH or --llamafile-url URL", "`url:`, or `hf:` and `file:`"
)
_API_KEY = Instead(
    "--api-key KEY, or LLAMA_API_KEY", "LLAMA_API_KEY or --api-key: no key belongs here"
)
_HF_TOKEN = Instead("HF_TOKEN", "HF_TOKEN: no token belongs here")
_PROJECTOR = Instead("`mmproj:` of models.yaml", "`mmproj:` of the model")

# Flags that set the address, the API key and the model. status, stop and the warning
# about an open port depend on these values.
# Source: common/arg.cpp of llama.cpp, and llamafile/server/flags.cpp
_FLAGS: Mapping[str, Instead] = {
    "--host": Instead("--host", "`host:`"),
    "--port": Instead("--port", "`port:`"),
    **dict.fromkeys(("--listen", "-l"), _HOST_AND_PORT),
    **dict.fromkeys(("--api-key", "--api-key-file"), _API_KEY),
    **dict.fromkeys(("-m", "--model", "-mu", "--model-url"), _MODEL),
    **dict.fromkeys(("-dr", "--docker-repo", "-hf", "-hfr", "--hf-repo"), _MODEL),
    **dict.fromkeys(("-hff", "--hf-file"), _MODEL),
    **dict.fromkeys(("-hft", "--hf-token"), _HF_TOKEN),
    **dict.fromkeys(("-mm", "--mmproj", "-mmu", "--mmproj-url"), _PROJECTOR),
}


def instead_of(word: str) -> tuple[str, Instead] | None:
    """Return the managed flag that an argument is, and what to use instead.

    None for any other argument. Engines read `--api_key` as `--api-key`, and a parser
    such as Python's accepts `--hos` and `--host=X` for `--host`: all these are matched.
    """
    flag = word.partition("=")[0]
    if flag.startswith("--"):
        flag = _long_flag(flag.replace("_", "-").lower())
    if flag not in _FLAGS:
        return None
    return flag, _FLAGS[flag]


# variables that set what the recipe sets, beside LLAMA_ARG_* of the flags above
_VARIABLES: Mapping[str, Instead] = {
    "LLAMA_API_KEY": _API_KEY,
    "HF_TOKEN": _HF_TOKEN,
    "LLAMAFILE_RECIPE_RUN": Instead("", "another name: the recipe sets it"),
}


def instead_of_variable(name: str) -> Instead | None:
    """Return what to use instead of a variable of an engine's environment.

    llama.cpp's server reads an option from LLAMA_ARG_ and its name.
    """
    upper = name.upper()
    if upper in _VARIABLES:
        return _VARIABLES[upper]
    if not upper.startswith("LLAMA_ARG_"):
        return None
    match = instead_of(f"--{upper.removeprefix('LLAMA_ARG_')}")
    if match is None:
        return None
    return match[1]


def _long_flag(flag: str) -> str:
    """Return the managed flag that an abbreviation means, or an empty text."""
    if flag in _FLAGS:
        return flag
    if flag == "--":
        return ""
    return next((known for known in _FLAGS if known.startswith(flag)), "")


def check_engine_args(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments after `--` on the command line, if all are allowed.

    Raises:
        UsageError: one of them must be set by an option of the recipe.
    """
    for word in words:
        match = instead_of(word)
        if match:
            flag, instead = match
            raise UsageError(
                f"{flag} cannot be passed to the engine directly",
                [("got", f"{word} after --")],
                fix=f"set it before the --: {instead.option}",
            )
    return words
