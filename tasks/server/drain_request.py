"""Tell a supervisor, in a file beside its record, how long a stop may take."""

from __future__ import annotations

import contextlib
import os

from tasks.system import files


def write(path: str, limit_s: int) -> None:
    """Ask for another limit than that of the server's start.

    Args:
        path: of the record.
        limit_s: most seconds for answers in progress.

    Raises:
        OSError: the file beside the record cannot be written.
    """
    files.write_atomic(_file(path), f"{limit_s}\n", private=True)


def read(path: str) -> int | None:
    """Return the limit that was asked for; None without one.

    Args:
        path: of the record.
    """
    try:
        with open(_file(path), encoding="ascii") as file:
            return max(0, int(file.read(16)))
    except (OSError, ValueError):
        return None


def forget(path: str) -> None:
    """Delete the limit of an earlier stop.

    Args:
        path: of the record.
    """
    with contextlib.suppress(OSError):
        os.unlink(_file(path))


def _file(path: str) -> str:
    return f"{path.removesuffix('.json')}.drain"
