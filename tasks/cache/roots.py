"""Record which catalogues use the cache: `doit prune` keeps the files they name."""

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
    record: str  # path of the record, relative to the cache


def gc_roots(cache: str) -> list[Root]:
    """Return every catalogue file that is recorded in the cache."""
    roots = []
    for record in sorted(Path(cache, "roots").glob("*.json")):
        data = read_json(record)
        if not isinstance(data, dict) or not is_path(data.get("path")):
            continue
        path = str(data["path"])
        if os.path.isabs(path):
            roots.append(Root(path, str(data.get("machine")), f"roots/{record.name}"))
    return roots


def remember(path: str, cache: str) -> None:
    """Record that a catalogue file uses the cache; one stat call if it is recorded."""
    record = f"{cache}/roots/{digest(path)[:16]}.json"
    if os.path.exists(record) or own_files.link_inside(cache, record):
        return
    import platform

    text = json.dumps({"path": path, "machine": platform.node()}) + "\n"
    with contextlib.suppress(OSError):  # a read-only cache: nothing is pruned there
        write_atomic(record, text)
