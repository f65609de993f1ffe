"""Compute the key under which a CI system caches a model's files. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.catalogue.artifact import DIGEST_CHARS, Artifact
from tasks.console.text import digest
from tasks.errors import RecipeError

# bytes of caches that GitHub keeps for a repository; it deletes the least recently used
CACHE_LIMIT = 10 * 1024**3
_LAYOUT = "1"  # of the cache directory; a new layout needs new keys


def cache_key(name: str, files: Iterable[Artifact]) -> str:
    """Return a key that depends only on the bytes and the names of the files.

    Raises:
        RecipeError: a file has no digest.
    """
    lines = []
    for file in files:
        if file.sha256 is None:
            what = f"{file.label} has no digest: its bytes may change, so it has no key"
            model = file.label.split()[0]
            fix = f"`doit lock --model {model}`, and commit models.lock"
            raise RecipeError(what, fix=fix)
        lines.append(f"{file.sha256} {_filename(file)}\n")
    key = digest("".join([_LAYOUT, *sorted(lines)]))
    return f"llamafile-recipe-{name}-{key[:DIGEST_CHARS]}"


def _filename(file: Artifact) -> str:
    return re.split(r"[\\/]", file.target)[-1]
