"""Write stamps in the recipe's format, as a forger or an older version does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.catalogue.artifact import parse_stamp, stamp_data
from tasks.system.files import stat


def stamp_of(target: Path) -> Path:
    """Return the path of the stamp of a file in the cache."""
    return target.with_name(f"{target.name}.stamp.json")


def restamp(target: Path, **changes: Any) -> None:
    """Rewrite the stamp for the current file, as a forger does, or as if the disk had rotted."""
    path = stamp_of(target)
    found, stamp = stat(target), parse_stamp(json.loads(path.read_text("utf-8")))
    assert found is not None
    assert stamp is not None
    path.write_text(json.dumps(stamp_data(stamp._replace(stat=found, **changes))), "utf-8")


def as_older_version(target: Path) -> None:
    """Rewrite the stamp without device, inode and ctime, as an older version does."""
    path = stamp_of(target)
    data = json.loads(path.read_text("utf-8"))
    for key in ("dev", "ino", "ctime_ns", "checksum"):
        del data[key]
    path.write_text(json.dumps(data), "utf-8")
