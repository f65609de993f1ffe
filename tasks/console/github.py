"""The files by which a step of a GitHub workflow tells the others something."""

from __future__ import annotations

import secrets
from collections.abc import Mapping


def append(path: str, values: Mapping[str, str]) -> None:
    """Add values of any number of lines to $GITHUB_OUTPUT or $GITHUB_ENV. Raises OSError.

    Source: GitHub's "Workflow commands", "Multiline strings": a value may not have the delimiter in it.
    """
    with open(path, "a", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for name, value in values.items():
            end = f"end_{secrets.token_hex(16)}"
            file.write(f"{name}<<{end}\n{value}\n{end}\n")
