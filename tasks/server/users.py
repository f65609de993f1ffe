"""Note who needs a server, in a file beside its record: `doit start --for NAME`.

`doit stop --for NAME` stops such a server once it is not needed by another NAME. One
that was started without a name is needed until it is stopped without one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import ServerError, UsageError
from tasks.server.record_files import load_json
from tasks.system import files

_MAX_NAME = 200  # characters


def check_name(name: str) -> None:
    """Check a value of `--for`.

    Raises:
        UsageError: it is empty, too long, or cannot be printed.
    """
    if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        what = f"--for: expected a name of 1 to {_MAX_NAME} characters, got {name!r}"
        raise UsageError(what, fix="--for PROJECT")


def read(path: str) -> list[str]:
    """Return who needs a server; empty for one that was started without a name.

    Args:
        path: of the record.
    """
    data = load_json(Path(_file(path)))
    if not isinstance(data, list):
        return []
    return [name for name in data if isinstance(name, str) and name.isprintable()]


def write(path: str, names: Sequence[str]) -> None:
    """Write who needs a server.

    Args:
        path: of the record.

    Raises:
        ServerError: the file cannot be written.
    """
    text = json.dumps(list(dict.fromkeys(names)), indent=1)
    try:
        files.write_atomic(_file(path), text, private=True)
    except OSError as error:
        what = f"cannot write {_file(path)}: {error.strerror or error}"
        fix = "free some space; `doit stop` ends the server"
        raise ServerError(what, fix=fix) from None


def forget(path: str) -> None:
    """Delete what is noted of a server that has ended.

    Args:
        path: of the record.
    """
    with contextlib.suppress(OSError):
        os.unlink(_file(path))


def _file(path: str) -> str:
    return f"{path.removesuffix('.json')}.users"
