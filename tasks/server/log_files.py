"""Find and delete the logs of servers, of this user and on this machine."""

from __future__ import annotations

import contextlib
import os

from tasks.server import record_files
from tasks.server.rotating_log import BEFORE, ROTATED
from tasks.server.server_record import filter_logs

KEPT_LOGS = 10


def logs(cache: str, name: str) -> list[str]:
    """Return the paths of a model's logs on this machine, the newest last."""
    dated = []
    for path in record_files.machine_folders(cache):
        # the folder may be missing, or belong to another user
        with contextlib.suppress(OSError):
            for file in filter_logs(name, os.listdir(path)):
                log = os.path.join(path, file)
                with contextlib.suppress(OSError):
                    dated.append((os.stat(log).st_mtime, log))
    return [log for _, log in sorted(dated)]


def drop_old_logs(cache: str, name: str) -> None:
    """Delete a model's oldest logs: there is one for each port that was used."""
    for path in logs(cache, name)[:-KEPT_LOGS]:
        if os.path.exists(f"{path.removesuffix('.log')}.json"):
            continue
        for file in _log_files(path):
            with contextlib.suppress(OSError):
                os.unlink(file)


def _log_files(path: str) -> tuple[str, ...]:
    """Return all files of a log; `.before` is of an earlier version."""
    return tuple(f"{path}{suffix}" for suffix in ("", ROTATED, BEFORE, ".before"))
