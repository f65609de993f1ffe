"""Which form the log has. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def is_json(env: Mapping[str, str]) -> bool:
    """Return whether the environment asks for a JSON log."""
    return env.get("LLAMAFILE_LOG", "").strip().lower() == "json"
