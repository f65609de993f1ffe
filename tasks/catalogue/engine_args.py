"""Arguments for an engine that the recipe hands through: which of them it has to know itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tasks.errors import UsageError


class Instead(NamedTuple):
    """What takes the place of an engine's flag."""

    option: str  # on the command line
    key: str  # in models.yaml


_FILE = Instead("--llamafile PATH or --llamafile-url URL", "`url:`, or `hf:` and `file:`")
_KEY = Instead("--api-key KEY, or LLAMA_API_KEY", "LLAMA_API_KEY or --api-key: no key belongs here")
_EYES = Instead("`mmproj:` of models.yaml", "`mmproj:` of the model")

# Source: common/arg.cpp of llama.cpp, and llamafile/server/flags.cpp. These say who reaches the server and
# with which key, and what it serves: what status, stop and the warning about an open port rely on
_FLAGS: Mapping[str, Instead] = {
    "--host": Instead("--host", "`host:`"),
    "--port": Instead("--port", "`port:`"),
    "--listen": Instead("--host and --port", "`host:` and `port:`"),
    "-l": Instead("--host and --port", "`host:` and `port:`"),
    "--api-key": _KEY,
    "--api-key-file": _KEY,
    **dict.fromkeys(("-m", "--model", "-mu", "--model-url", "-dr", "--docker-repo"), _FILE),
    **dict.fromkeys(("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"), _FILE),
    **dict.fromkeys(("-hft", "--hf-token"), Instead("HF_TOKEN", "HF_TOKEN: no token belongs here")),
    **dict.fromkeys(("-mm", "--mmproj", "-mmu", "--mmproj-url"), _EYES),
}


def instead_of(word: str) -> tuple[str, Instead] | None:
    """The flag that an argument is, and what to use in its place; None for any other argument.

    Engines read `--api_key` as `--api-key`, and a parser such as Python's takes `--hos` and
    `--host=X` for `--host`: all of these are found.
    """
    flag = word.partition("=")[0]
    if not flag.startswith("--"):
        return (flag, _FLAGS[flag]) if flag in _FLAGS else None
    flag = flag.replace("_", "-").lower()
    if flag in _FLAGS:
        return flag, _FLAGS[flag]
    if flag == "--":
        return None
    meant = next((one for one in _FLAGS if one.startswith(flag)), None)
    return (meant, _FLAGS[meant]) if meant else None


def checked_extra(words: tuple[str, ...]) -> tuple[str, ...]:
    """What follows `--` on the command line. Raises UsageError: the recipe has to know one of them."""
    for word in words:
        if found := instead_of(word):
            flag, instead = found
            what = f"{flag} does not go to the engine: the recipe has to know it"
            raise UsageError(what, [("got", f"{word} after --")], fix=f"before the --: {instead.option}")
    return words
