"""Describe a running server: its record on disk, and what follows from it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tasks import urls
from tasks.system.process_id import ProcessId, is_mark

# on a supervisor's command line: of the version that wrote no marker, and of this
# one, which appends the marker
EARLIEST_SUPERVISOR_COMMAND = ("-m", "tasks.keeper")
SUPERVISOR_COMMAND = ("-m", "tasks.server.supervisor")
# a server may have been started by an earlier version
SUPERVISOR_COMMANDS = (SUPERVISOR_COMMAND, ("-m", "tasks.engine.supervisor"))
RECORD_BYTES = 1024 * 1024  # the maximum that is read of a record


class Mode(str, Enum):
    """The verb that started a server."""

    SERVE = "serve"
    START = "start"
    WITH = "with"
    CHAT = "chat"


class ServerState(str, Enum):
    """A server's state, as `doit status` shows it."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"  # it was ready, and does not answer now
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServerRecord:
    """One server. Its file is private to its owner, because it contains the key."""

    name: str  # of the model
    mode: Mode
    host: str
    port: int
    spec: Mapping[str, str]  # see `LaunchSpec.record_spec`
    command: Sequence[str]
    log: str
    mark: str  # value of MARK_VARIABLE in the engine's environment
    key: str = field(default="", repr=False)
    state: ServerState = ServerState.STARTING
    ready_s: float | None = None  # from the start until it was ready
    ended: int | None = None  # status of an engine that ended by itself; -N: signal N
    ended_at: float | None = None  # seconds since 1970
    engine: ProcessId | None = None
    keeper: ProcessId | None = None  # the supervisor
    owner: int = 0  # pid of the doit that started it
    path: str = ""  # of this record
    drain: int = 0  # most seconds for answers in progress at a stop

    @property
    def since(self) -> float:
        """Return the engine's start in seconds since 1970; 0 where it is unknown."""
        return self.engine.started if self.engine else 0.0

    @property
    def url(self) -> str:
        """Return the URL for clients on this machine."""
        return urls.base_url(self.host, self.port)

    @staticmethod
    def parse(data: Any, path: str) -> ServerRecord | None:
        """Read a record from its JSON; None where a field is missing or invalid.

        Processes are ended because of a record, so every field is validated. `log`
        becomes the file beside the record, because a cache may have been moved.
        """
        stem = _stem(path, ".json")
        if not isinstance(data, dict) or not _is_valid(data):
            return None
        if stem != record_name(data["name"], data["port"]):
            return None
        if stem != _stem(data["log"], ".log"):
            return None
        values = {name: data[name] for name in _FIELDS if name in data}
        values["mode"] = Mode(values["mode"])
        values["state"] = ServerState(values["state"])
        for name in ("engine", "keeper"):
            process = values.get(name)
            values[name] = ProcessId(**process) if process else None
        values["log"] = f"{path.removesuffix('.json')}.log"
        return ServerRecord(**values, path=path)


class Liveness(Enum):
    """What still runs of a recorded server."""

    RUNNING = "running"  # supervisor and engine, or a supervisor that just started
    ORPHANED = "left over"  # an engine whose supervisor was killed
    GONE = "gone"
    OTHER_HOST = "elsewhere"  # of another machine or container with the same cache


def liveness_of(
    record: ServerRecord, boot: str, space: str, keeper_lives: bool, engine_lives: bool
) -> Liveness:
    """Decide whether a recorded server runs, and whether on this machine.

    Args:
        boot: boot ID of this machine.
        space: PID namespace of this process.
        keeper_lives: a process with the supervisor's pid and start time exists.
        engine_lives: the same for the engine.
    """
    process = record.keeper or record.engine
    if process is None or process.boot != boot:
        return Liveness.GONE
    if process.space != space:
        return Liveness.OTHER_HOST
    if keeper_lives:
        return Liveness.RUNNING
    return Liveness.ORPHANED if engine_lives else Liveness.GONE


def differences(
    record: ServerRecord, spec: Mapping[str, str], key: str
) -> list[tuple[str, str]]:
    """Compare a running server with a requested one.

    Returns:
        (setting, `running X, requested Y`) for each setting that differs.
    """
    changes = []
    for name in {**record.spec, **spec}:
        if name == "--port" and name not in spec:
            continue
        running = record.spec.get(name, "-")
        requested = spec.get(name, "-")
        if record.spec.get(name) != spec.get(name):
            changes.append((name, f"running {running}, requested {requested}"))
    if record.key != key and record.spec.get("--api-key") == spec.get("--api-key"):
        changes.append(("--api-key", "running one key, requested another"))
    return changes


def record_name(name: str, port: int) -> str:
    """Return the name of a server's files, without the suffix."""
    return f"{name}-{port}"


def filter_logs(name: str, files: Sequence[str]) -> list[str]:
    """Return the file names that are logs of a model."""
    pattern = re.compile(re.escape(name) + r"-\d+\.log")
    return [file for file in files if pattern.fullmatch(file)]


def without_key(data: Any) -> dict[str, Any] | None:
    """Return a record's JSON without its API key; None where it has none."""
    if not isinstance(data, dict) or not data.get("key"):
        return None
    return {**data, "key": ""}


def _stem(path: str, suffix: str) -> str:
    """Return a path's last part without its suffix; empty for another suffix."""
    name = re.split(r"[\\/]", path)[-1]
    return name.removesuffix(suffix) if name.endswith(suffix) else ""


def _is_valid(data: Mapping[str, Any]) -> bool:
    present = _FIELDS.keys() & data.keys()
    if _FIELDS.keys() - present - _OPTIONAL_FIELDS:
        return False
    return all(_FIELDS[name](data[name]) for name in present)


def _is_text(value: object) -> bool:
    """Return whether a text can be printed, and be part of a path.

    It has no NUL, and no lone surrogate.
    """
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, str) and re.fullmatch(pattern, value) is not None
    )


def _is_one_of(enum: type[Enum]) -> Callable[[object], bool]:
    values = [member.value for member in enum]
    return lambda value: value in values


def _whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _is_seconds(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value < _MAX_SECONDS


def _optional(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


def _is_process(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    if not {"pid", "started", "boot", "space"} <= value.keys() <= _PROCESS.keys():
        return False
    return all(_PROCESS[name](item) for name, item in value.items())


def is_spec(value: object) -> bool:
    """Return whether a value is a server's settings: texts by name."""
    if not isinstance(value, dict):
        return False
    return all(_is_text(name) and _is_text(text) for name, text in value.items())


def _is_command(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_MAX_SECONDS = 1e11  # since 1970: the year 5138
_PROCESS: Mapping[str, Callable[[object], bool]] = {
    "pid": _whole(1, 2**32),
    "started": _is_seconds,
    "boot": _is_text,
    "space": _is_text,
    "start_ticks": _whole(0, 2**63),
}
_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "name": _matches(r"\w[\w.-]*"),
    "mode": _is_one_of(Mode),
    "host": _matches(r"[A-Za-z0-9.:_%-]{1,253}"),
    "port": _whole(1, 65535),
    "spec": is_spec,
    "command": _is_command,
    "log": _is_text,
    "mark": is_mark,
    "key": _matches("[!-~]*"),
    "state": _is_one_of(ServerState),
    "ready_s": _optional(_is_seconds),
    "ended": _optional(_whole(-(2**31), 2**32)),
    "ended_at": _optional(_is_seconds),
    "engine": _optional(_is_process),
    "keeper": _optional(_is_process),
    "owner": _whole(0, 2**32),
    "drain": _whole(0, 10**6),
}
_OPTIONAL_FIELDS = {
    *("key", "ready_s", "ended", "ended_at", "engine", "keeper", "owner", "drain")
}
