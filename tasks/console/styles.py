"""Style messages for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping

ERROR = "ERROR:"  # the beginning of an error
_RED = "\x1b[1;31m"
_BOLD = "\x1b[1m"
_RESET = "\x1b[0m"


def allows_styles(env: Mapping[str, str], platform: str) -> bool:
    """Return whether a terminal with this environment gets styles (no-color.org).

    Args:
        platform: as in sys.platform; an old console of Windows shows the sequences.
    """
    if env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return False
    return platform != "win32" or bool(env.get("WT_SESSION"))


def style_message(text: str, url: str = "") -> str:
    """Return a message with `ERROR:` in red, and its URL in bold.

    Args:
        text: without control sequences.
    """
    if url:
        text = text.replace(url, f"{_BOLD}{url}{_RESET}", 1)
    if text.startswith(ERROR):
        text = f"{_RED}{ERROR}{_RESET}{text.removeprefix(ERROR)}"
    return text
