"""Decide what the words behind a verb mean: a model, a file or a URL. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from tasks.errors import UsageError, did_you_mean
from tasks.options import Option

_SUFFIXES = (".gguf", ".llamafile")
_SINGLE = {"model": "model", "llamafile": "file", "llamafile_url": "URL"}


def quoted(word: str) -> str:
    """Return a word as it is typed in a shell."""
    import shlex  # only for errors

    return shlex.quote(word)


def check_name(verb: str, name: str, names: Sequence[str]) -> None:
    """Check what follows the colon of a verb that names no model there.

    Raises:
        UsageError: the verb has no such name.
    """
    if name not in names:
        near = did_you_mean(name, names)
        fix = near or f"doit {verb}:NAME; NAME is one of {', '.join(names)}"
        raise UsageError(f"`doit {verb}` has no {name!r}", fix=fix)


def option_of(word: str, table: Sequence[Option]) -> str:
    """Return the name of the option that a word stands for; "" if it is none.

    Raises:
        UsageError: it is an address that only `doit add` understands.
    """
    names = {option["name"] for option in table}
    if "word" in names and word.strip():
        return "word"
    if "model" not in names or not word.strip():
        return ""
    if "llamafile" not in names:
        return "model"
    if word.startswith("hf:"):
        what = f"{word!r} is not a model of models.yaml"
        raise UsageError(what, fix=f"doit add {quoted(word)}")
    if "://" in word:
        return "llamafile_url"
    if is_path(word):
        return "llamafile"
    return "model"


def chat_options(
    words: Sequence[str], names: Container[str], is_file: Callable[[str], bool]
) -> dict[str, str]:
    """Return the model or the file that the first word behind `chat` is.

    Args:
        words: those before `--`: a model, then a question, or only a question.
        names: of the models, and their aliases.

    Returns:
        The option that means the same; empty if all words are the question.
    """
    if not words:
        return {}
    first = words[0]
    if first in names:
        return {"model": first}
    if _has_suffix(first) and is_file(first):
        return {"llamafile": first}
    return {}


def is_path(word: str) -> bool:
    """Whether a word is a path, not a model's name."""
    return "/" in word or "\\" in word or word[:1] == "~" or _has_suffix(word)


def _has_suffix(word: str) -> bool:
    return word.lower().endswith(_SUFFIXES)


def add_words(
    task: str, words: Sequence[str], values: dict[str, Any], table: Sequence[Option]
) -> None:
    """Add the words behind a verb to the values of its options.

    Args:
        task: the verb as typed, for messages.

    Raises:
        UsageError: there are several words where one is meant.
    """
    _check_blanks(task, words, values)
    kinds = {option["name"]: option["type"] for option in table}
    if "all" in kinds and "all" in words:
        fix = f"doit {task} --all, or --model all for a model of that name"
        raise UsageError(f"doit {task} all: `all` is not a model", fix=fix)
    for word in words:
        name = option_of(word, table)
        if kinds[name] is list:
            values.setdefault(name, []).append(word)
            continue
        if name in values:
            raise several_error(task, name, [values[name], word])
        values[name] = word


def _check_blanks(task: str, words: Sequence[str], values: Mapping[str, Any]) -> None:
    """Refuse a path that the shell has split at its blanks."""
    parts = list(words)
    option = ""
    if words and "llamafile" in values:
        parts.insert(0, values["llamafile"])
        option = "--llamafile "
    if len(parts) < 2 or not _has_suffix(parts[-1]) or _has_suffix(parts[0]):
        return
    what = f"doit {task}: expected one file, got {len(parts)} words"
    path = quoted(" ".join(parts))
    raise UsageError(what, fix=f"quote a path with blanks: doit {task} {option}{path}")


def several_error(task: str, name: str, words: Sequence[str]) -> UsageError:
    """Return the error for several values of an option that takes one."""
    what = f"doit {task}: expected one {_SINGLE[name]}, got {', '.join(words)}"
    option = name.replace("_", "-")
    return UsageError(what, fix=f"doit {task} --{option} {quoted(words[0])}")


def check_single(task: str, name: str, value: str, values: Mapping[str, Any]) -> None:
    """Refuse a second model, file or URL where one is meant.

    Raises:
        UsageError: `values` has another one.
    """
    if name in _SINGLE and name in values:
        raise several_error(task, name, [values[name], value])
