"""Which form the log has. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.errors import UsageError

_FORMATS = ("", "text", "json")


def check_format(env: Mapping[str, str]) -> None:
    """Check that LLAMAFILE_LOG names a format.

    Raises:
        UsageError: it does not.
    """
    given = env.get("LLAMAFILE_LOG", "")
    if given.strip().lower() not in _FORMATS:
        what = f"LLAMAFILE_LOG: expected json or text, got {given!r}"
        raise UsageError(what, fix="LLAMAFILE_LOG=json, or unset it")


def is_json(env: Mapping[str, str]) -> bool:
    """Return whether the environment asks for a JSON log."""
    return env.get("LLAMAFILE_LOG", "").strip().lower() == "json"
