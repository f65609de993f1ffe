"""Search a text with a regular expression that may take too long.

Some expressions take exponential time, and Python cannot interrupt a search in its own
process on every system. A child process searches, and is ended after a time.
"""

from __future__ import annotations

import json
import subprocess
import sys

MOST_TEXT = 65_536  # characters of a text that are searched
LIMIT_S = 5.0
_CODE = (
    "import json, re, sys; pattern, text = json.load(sys.stdin); "
    "sys.exit(not re.search(pattern, text))"
)


class SearchError(Exception):
    """The search has no result; the text says why."""


def is_found(pattern: str, text: str, limit_s: float = LIMIT_S) -> bool:
    """Whether a valid expression is found in the first MOST_TEXT characters.

    Raises:
        SearchError: it took longer than `limit_s` seconds, or failed.
    """
    command = [sys.executable, "-I", "-S", "-c", _CODE]
    given = json.dumps([pattern, text[:MOST_TEXT]])
    try:
        done = subprocess.run(
            command, input=given.encode(), capture_output=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise SearchError(f"the search took longer than {limit_s:g} s") from None
    except OSError as error:
        raise SearchError(f"cannot start Python: {error.strerror}") from None
    if done.returncode not in (0, 1) or done.stderr:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SearchError(f"the search failed: {''.join(lines[-1:])}")
    return done.returncode == 0
