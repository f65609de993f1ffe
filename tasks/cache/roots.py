"""Which catalogues have used the cache: `doit prune` keeps what they name."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from tasks.console.text import digest
from tasks.system import own_files
from tasks.system.files import read_json, write_atomic
from tasks.system.paths import is_path


class Root(NamedTuple):
    """A catalogue file that has used the cache."""

    path: str  # of the catalogue
    machine: str
    record: str  # the file that says so, from the cache


def gc_roots(cache: str) -> list[Root]:
    """Every catalogue file that has used the cache, as far as it is known."""
    found = []
    for record in sorted(Path(cache, "roots").glob("*.json")):
        data = read_json(record)
        if isinstance(data, dict) and is_path(data.get("path")) and os.path.isabs(data["path"]):
            found.append(Root(data["path"], str(data.get("machine")), f"roots/{record.name}"))
    return found


def remember(path: str, cache: str) -> None:
    """Note that this file uses the cache: `doit prune` leaves what it names. One look in a warm run."""
    record = f"{cache}/roots/{digest(path)[:16]}.json"
    if not os.path.exists(record) and not own_files.link_inside(cache, record):
        import platform

        with contextlib.suppress(OSError):  # a read-only cache: nothing is pruned there
            write_atomic(record, json.dumps({"path": path, "machine": platform.node()}) + "\n")
