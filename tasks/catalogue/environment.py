"""Where the recipe runs: platform, cache, folders. Pure."""

from __future__ import annotations

import ntpath
import posixpath
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where we are."""

    platform: str  # as sys.platform says it
    cache: str  # absolute directory of everything downloaded
    root: str  # absolute directory of models.yaml
    cwd: str  # absolute directory the user typed the command in

    def absolute(self, path: str, base: str) -> str:
        """`path` seen from `base`, normalised."""
        flavour: Any = ntpath if self.platform == "win32" else posixpath
        return str(flavour.normpath(flavour.join(base, path)))
