"""Read the server records in a cache.

They are `run/<machine>-<uid>/<model>-<port>.json`, each beside its log. A cache may be
shared: each user of each machine has their own folder, which only they can read.
Earlier versions wrote to `run/<machine>`, which is only read.
"""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.engine.server_record import RECORD_BYTES, ServerRecord
from tasks.system import own_files
from tasks.system.paths import short_name


def machine_folder(cache: str) -> str:
    """Return where this user's records of this machine are, or would be."""
    name = short_name(_node())
    if hasattr(os, "geteuid"):
        name = f"{name}-{os.geteuid()}"
    return os.path.join(cache, "run", name)


def machine_folders(cache: str) -> tuple[str, ...]:
    """Return the folders to read records of this machine from; they may not exist."""
    own = machine_folder(cache)
    earlier = os.path.join(cache, "run", _node())
    return tuple(dict.fromkeys((own, earlier)))


def _node() -> str:
    return re.sub(r"[^\w.-]", "-", platform.node()) or "here"


def is_behind_link(cache: str) -> bool:
    """Return whether a part of the records' path is a symbolic link.

    Engines would write their logs, and records would be written, elsewhere.
    """
    return bool(own_files.link_inside(cache, machine_folder(cache)))


def is_mine(status: os.stat_result) -> bool:
    """Return whether a file belongs to this user; Windows does not tell."""
    return sys.platform == "win32" or status.st_uid == os.geteuid()


def load_json(path: Path, *, of_all: bool = False) -> Any:
    """Read a record; None unless it is valid JSON in a small regular file.

    Args:
        of_all: also read another user's, which must not be trusted.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            if not of_all and not is_mine(status):
                return None
            data = file.read(RECORD_BYTES + 1)
        if len(data) > RECORD_BYTES:
            return None
        return json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None


def read_records(cache: str, *, of_all: bool = False) -> Iterator[ServerRecord]:
    """Yield every valid record in the cache, of all machines."""
    # glob omits the folders of other users, which cannot be listed
    for path in Path(cache, "run").glob("*/*.json"):
        record = ServerRecord.parse(load_json(path, of_all=of_all), str(path))
        if record is not None:
            yield record
