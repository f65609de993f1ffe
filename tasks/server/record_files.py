"""Read the server records in a cache, and in the state directory.

They are `run/<machine>-<uid>/<model>-<port>.json`, each beside its log. A cache may be
shared: each user of each machine has their own folder, which only they can read.
Earlier versions wrote to `run/<machine>`, which is only read. The state directory is
used where the cache cannot be written, or where LLAMAFILE_STATE is set (ADR 16).
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

from tasks.server.server_record import RECORD_BYTES, ServerRecord
from tasks.system import files, own_files
from tasks.system.paths import short_name

STATE_VARIABLE = "LLAMAFILE_STATE"


def state_root() -> str:
    """Return LLAMAFILE_STATE, else the platform's state directory; "" without one.

    Raises:
        UsageError: the variable names a home directory that does not exist.
    """
    import doit

    cwd = doit.get_initial_workdir() or os.getcwd()
    if given := files.setting_path(os.environ, STATE_VARIABLE, cwd):
        return given
    from platformdirs import user_state_dir

    try:
        found = user_state_dir("llamafile-recipe", appauthor=False)
    except (RuntimeError, OSError):  # no home directory is known
        return ""
    if not os.path.isabs(found):
        return ""
    return found


def write_roots(cache: str) -> tuple[str, ...]:
    """Return the directories in which servers may be recorded, the preferred first."""
    state = state_root()
    if not state:
        return (cache,)
    if os.environ.get(STATE_VARIABLE):
        return (state,)
    return (cache, state)


def read_roots(cache: str) -> tuple[str, ...]:
    """Return the directories in which servers may have been recorded."""
    return tuple(dict.fromkeys((*write_roots(cache), cache)))


def machine_folder(root: str) -> str:
    """Return this user's folder of this machine in a cache or state directory."""
    name = short_name(_node())
    if hasattr(os, "geteuid"):
        name = f"{name}-{os.geteuid()}"
    return os.path.join(root, "run", name)


def machine_folders(cache: str) -> tuple[str, ...]:
    """Return the folders to read records of this machine from; they may not exist."""
    found = []
    for root in read_roots(cache):
        found += [machine_folder(root), os.path.join(root, "run", _node())]
    return tuple(dict.fromkeys(found))


def _node() -> str:
    return re.sub(r"[^\w.-]", "-", platform.node()) or "here"


def is_behind_link(root: str) -> bool:
    """Return whether a part of the records' path is a symbolic link.

    Engines would write their logs, and records would be written, elsewhere.
    """
    return bool(own_files.link_inside(root, machine_folder(root)))


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
    """Yield every valid record, of all machines that share the cache."""
    for root in read_roots(cache):
        # glob omits the folders of other users, which cannot be listed
        for path in Path(root, "run").glob("*/*.json"):
            record = ServerRecord.parse(load_json(path, of_all=of_all), str(path))
            if record is not None:
                yield record
