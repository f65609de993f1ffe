"""The key under which a CI system keeps a model's files. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.catalogue.artifact import DIGEST_CHARS, Artifact
from tasks.console.text import digest
from tasks.errors import RecipeError

CACHE_LIMIT = 10 * 1024**3  # bytes that GitHub keeps of a repository's caches, the last used ones
_LAYOUT = "1"  # of the cache's folders: another one is another key


def cache_key(name: str, files: Iterable[Artifact]) -> str:
    """A key that changes with the bytes or the names of the files, and with nothing else.

    Raises RecipeError: nothing pins one of them.
    """
    lines = []
    for file in files:
        if file.sha256 is None:
            what = f"{file.label} has no digest, so that its bytes may change: it has no key"
            raise RecipeError(what, fix=f"doit lock --model {file.label.split()[0]}, and commit models.lock")
        lines.append(f"{file.sha256} {_filename(file)}\n")
    key = digest("".join([_LAYOUT, *sorted(lines)]))
    return f"llamafile-recipe-{name}-{key[:DIGEST_CHARS]}"


def _filename(file: Artifact) -> str:
    return re.split(r"[\\/]", file.target)[-1]
