"""Give a supervisor the new settings of its router, in a file beside the record.

A record has one writer: its supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ServerError
from tasks.server.record_files import load_json
from tasks.server.server_record import ServerRecord, is_spec
from tasks.server.watched_files import Pins, is_pins
from tasks.system import files

POLL_S = 0.2
_TAKEN_S = 30.0  # a supervisor looks often, but a machine may be busy


def write(record: ServerRecord, spec: Mapping[str, str], pins: Pins) -> None:
    """Let the supervisor of a running server record other settings; wait for that.

    Args:
        pins: of the files that it watches from now on.

    Raises:
        ServerError: the file cannot be written, or the supervisor does not read it.
    """
    path = _file(record.path)
    what = f"{record.name} has the new settings, but they are not recorded"
    fix = f"doit restart --model {record.name}"
    data = {"mark": record.mark, "spec": dict(spec), "pins": dict(pins)}
    text = json.dumps(data, indent=1)
    try:
        files.write_atomic(path, text, private=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ServerError(f"{what}: {reason}", [("file", path)], fix=fix) from None
    deadline = time.monotonic() + _TAKEN_S
    while os.path.exists(path):
        if time.monotonic() >= deadline:
            forget(record.path)
            facts = [("supervisor", f"it does not read {path}")]
            raise ServerError(what, facts, fix=fix)
        time.sleep(POLL_S)


def read(path: str, mark: str) -> tuple[dict[str, str], Pins] | None:
    """Return settings and pins for the server of this marker; None without valid ones.

    Args:
        path: of the record.
    """
    data = load_json(Path(_file(path)))
    if not isinstance(data, dict) or data.get("mark") != mark:
        return None
    spec: Any = data.get("spec")
    pins: Any = data.get("pins")
    if not isinstance(spec, dict) or not is_spec(spec) or not is_pins(pins):
        return None
    return spec, pins


def watch(path: str, ended: Callable[[float], bool], tell: Callable[[], None]) -> None:
    """Call `tell` whenever there is a request, until the engine has ended.

    Args:
        path: of the record.
        ended: waits for that many seconds; returns whether the engine has ended.
    """
    while not ended(POLL_S):
        if os.path.exists(_file(path)):
            tell()


def forget(path: str) -> None:
    """Delete the request.

    Args:
        path: of the record.
    """
    with contextlib.suppress(OSError):
        os.unlink(_file(path))


def _file(path: str) -> str:
    return f"{path.removesuffix('.json')}.settings"
