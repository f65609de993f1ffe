"""Delete what servers of earlier machine names have left in a cache.

Each container has a host name of its own, so each would leave a folder for ever.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable

from tasks.server import record_files

KEPT = 10
_QUIET_S = 3600.0  # a server that starts has its record long before


def drop_old_folders(root: str) -> None:
    """Delete this user's oldest folders that contain only logs, but for the last ten.

    One with a record stays: its server may run on another machine.

    Args:
        root: the cache, or the state directory.
    """
    run = os.path.join(root, "run")
    own = record_files.machine_folder(root)
    dated = []
    with contextlib.suppress(OSError):
        for name in os.listdir(run):
            path = os.path.join(run, name)
            changed = _last_change(path)
            if path != own and changed is not None:
                dated.append((changed, path))
    for changed, path in sorted(dated)[:-KEPT]:
        if time.time() - changed > _QUIET_S:
            _delete(path)


def _last_change(path: str) -> float | None:
    """Return when a folder of logs has changed; None for any other.

    It is a folder of this user's, and not a link.
    """
    try:
        status = os.lstat(path)
        if not record_files.is_mine(status) or os.path.islink(path):
            return None
        names = os.listdir(path)
        if not _are_logs(names):
            return None
        times = [os.lstat(os.path.join(path, name)).st_mtime for name in names]
    except OSError:
        return None
    return max([status.st_mtime, *times])


def _are_logs(names: Iterable[str]) -> bool:
    """Return whether all files are logs: `NAME-PORT.log`, or `.log` and a suffix."""
    return all(".log" in name and not name.endswith(".json") for name in names)


def _delete(path: str) -> None:
    """Delete a folder and its logs, unless it has a record by now."""
    with contextlib.suppress(OSError):
        names = os.listdir(path)
        if _are_logs(names):
            for name in names:
                os.unlink(os.path.join(path, name))
            os.rmdir(path)
