"""Stamps as the recipe writes them, written by someone else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.catalogue.artifact import parse_stamp, stamp_data
from tasks.system.files import stat


def stamp_of(target: Path) -> Path:
    """The stamp of a file of the cache."""
    return target.with_name(f"{target.name}.stamp.json")


def restamp(target: Path, **changes: Any) -> None:
    """Write its stamp anew for the file that lies there now, as a forger does; or a disk that rots."""
    path = stamp_of(target)
    found, stamp = stat(target), parse_stamp(json.loads(path.read_text("utf-8")))
    assert found is not None
    assert stamp is not None
    path.write_text(json.dumps(stamp_data(stamp._replace(stat=found, **changes))), "utf-8")


def as_older_version(target: Path) -> None:
    """Write its stamp as a version before device, inode and ctime did."""
    path = stamp_of(target)
    data = json.loads(path.read_text("utf-8"))
    for key in ("dev", "ino", "ctime_ns", "checksum"):
        del data[key]
    path.write_text(json.dumps(data), "utf-8")
