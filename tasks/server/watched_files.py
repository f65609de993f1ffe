"""Notice that a file of a running server is not the one that was verified.

llama-server reads a model again when it loads it: of an endpoint, or after `idle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tasks.errors import IntegrityError
from tasks.system import files
from tasks.system.file_stat import FileStat

if TYPE_CHECKING:
    from tasks.engine.launch_spec import LaunchSpec

POLL_S = 5.0
Pins = Mapping[str, tuple[str, list[int]]]  # path → digest and stat of its file


def pins_of(spec: LaunchSpec) -> Pins:
    """Return the pinned files that a server reads later than at its start; as JSON."""
    found: dict[str, tuple[str, list[int]]] = {}
    if spec.router is None and spec.settings.idle is None:
        return found
    for artifact in spec.files:
        status = files.stat(artifact.target)
        if artifact.sha256 and status:
            found[artifact.target] = (artifact.sha256, list(status))
    return found


def is_pins(data: Any) -> bool:
    """Whether data is of `pins_of`, after its way through JSON."""
    if not isinstance(data, dict):
        return False
    try:
        return all(
            isinstance(digest, str)
            and len(values) == len(FileStat._fields)
            and all(type(value) is int for value in values)
            for digest, values in data.values()
        )
    except (TypeError, ValueError):
        return False


def wait_changed(pins: Callable[[], Pins], ended: Callable[[float], bool]) -> str:
    """Wait until a file has other bytes; one that is missing cannot be loaded.

    A file with another stat is read.

    Args:
        pins: returns those of now.
        ended: waits for that many seconds; returns whether the server has ended.

    Returns:
        The path of the file; empty if the server has ended.
    """
    right: dict[str, FileStat] = {}  # files with another stat, and the pinned bytes
    while not ended(POLL_S):
        for path, (pin, values) in pins().items():
            now = files.stat(path)
            known = right.get(path, FileStat(*values))
            if now is None or now.is_same_but_renamed(known):
                continue
            digest = _digest(path)
            if digest == pin:
                right[path] = now
            elif digest:
                return path
    return ""


def _digest(path: str) -> str:
    """Return the digest of a file; empty if it cannot be read, or is being written."""
    try:
        return files.sha256_file(path).sha256
    except (OSError, IntegrityError):
        return ""
