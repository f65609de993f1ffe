"""A file that a running server reads again is the one that was verified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tasks.server.watched_files import is_pins, wait_changed
from tasks.system import files

BYTES = b"a" * 99
OTHER = b"b" * 99


def replaced(path: Path, data: bytes) -> None:
    path.with_name("new").write_bytes(data)
    os.replace(path.with_name("new"), path)


ROWS: dict[str, tuple[Callable[[Path], object], bool]] = {
    "nothing": (lambda path: None, False),
    "written": (lambda path: path.write_bytes(OTHER), True),
    "longer": (lambda path: path.write_bytes(BYTES + OTHER), True),
    "replaced": (lambda path: replaced(path, OTHER), True),
    "replaced by the same": (lambda path: replaced(path, BYTES), False),
    "touched": (lambda path: os.utime(path, (1, 1)), False),
    "no access": (lambda path: path.chmod(0o400), False),
    "deleted": (Path.unlink, False),  # it cannot be loaded either
}


@pytest.mark.parametrize(("change", "noticed"), ROWS.values(), ids=ROWS)
def test_which_change_is_noticed(tmp_path: Path, change: Callable[[Path], object], noticed: bool) -> None:
    """Other bytes, however they came there; the same bytes are verified again."""
    path = tmp_path / "m.gguf"
    path.write_bytes(BYTES)
    status = files.stat(path)
    assert status
    pins = {str(path): (hashlib.sha256(BYTES).hexdigest(), list(status))}
    looks = iter([False, False, True])

    def ended(_: float) -> bool:
        if files.stat(path) == status:
            change(path)
        return next(looks)

    assert is_pins(json.loads(json.dumps(pins)))
    assert wait_changed(lambda: pins, ended) == (str(path) if noticed else "")


@pytest.mark.parametrize(
    "data",
    [None, [], {"/m": None}, {"/m": ["a"]}, {"/m": [1, [1] * 5]}, {"/m": ["a", [1]]}, {"/m": ["a", "12345"]}],
)
def test_what_are_no_pins(data: object) -> None:
    """Of a request for new settings that is damaged."""
    assert not is_pins(data)
