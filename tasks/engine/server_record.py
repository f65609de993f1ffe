"""A running server as a record: what is written down of it, and what follows from it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from tasks import urls
from tasks.system.process_id import Process, is_mark

if TYPE_CHECKING:
    from tasks.catalogue.resolve import Job

KEY_VARIABLE = "LLAMA_API_KEY"  # llama.cpp's server reads it, too
EARLIER_KEEPER_WORDS = ("-m", "tasks.keeper")  # of the version that wrote no mark
KEEPER_WORDS = ("-m", "tasks.engine.supervisor")  # on a keeper's command line, followed by the mark
RECORD_BYTES = 1024 * 1024  # of a record; more is not read


class Mode(str, Enum):
    """What started a server."""

    SERVE = "serve"
    START = "start"
    WITH = "with"
    CHAT = "chat"


class State(str, Enum):
    """A server's state, as `doit status` shows it."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"  # it was ready, and does not answer now
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Run:
    """One server. Its file belongs to its owner alone: the key is in it."""

    name: str  # of the model
    mode: Mode
    host: str
    port: int
    spec: Mapping[str, str]  # what it serves and how; see `spec_of`
    command: Sequence[str]
    log: str
    mark: str  # value of MARK_VARIABLE in the engine's environment
    key: str = field(default="", repr=False)
    state: State = State.STARTING
    ready_s: float | None = None  # from the start until it was ready
    ended: int | None = None  # exit status of an engine that ended by itself, negative for a signal
    ended_at: float | None = None
    engine: Process | None = None
    keeper: Process | None = None
    owner: int = 0  # pid of the doit that started it
    path: str = ""  # of this record

    @property
    def since(self) -> float:
        """Start of the engine, seconds since 1970; 0 where it is not known yet."""
        return self.engine.started if self.engine else 0.0

    @property
    def url(self) -> str:
        """Where a client on this machine reaches it."""
        return urls.base_url(self.host, self.port)

    @staticmethod
    def parse(data: Any, path: str) -> Run | None:
        """Read a record from its JSON; None unless every field is what a keeper writes.

        Processes are ended because of it, so nothing in it is taken on trust. `log` is the file
        beside the record: a cache can have another path than when the record was written.
        """
        stem = _stem(path, ".json")
        if not isinstance(data, dict):
            return None
        values = {f.name: data[f.name] for f in fields(Run) if f.name in data and f.name != "path"}
        missing = _FIELDS.keys() - values.keys()
        if missing - _MAY_MISS or not all(_FIELDS[name](value) for name, value in values.items()):
            return None
        if stem != record_name(values["name"], values["port"]) or stem != _stem(values["log"], ".log"):
            return None
        values |= {"mode": Mode(values["mode"]), "state": State(values["state"])}
        for name in ("engine", "keeper"):
            values[name] = Process(**values[name]) if values.get(name) else None
        return Run(**{**values, "log": f"{path.removesuffix('.json')}.log", "path": path})


class Liveness(Enum):
    """What is left of a run on this machine."""

    RUNNING = "running"  # keeper and engine, or a keeper that has just begun
    LEFT_OVER = "left over"  # an engine whose keeper was killed
    GONE = "gone"
    ELSEWHERE = "elsewhere"  # another machine or container with the same cache: not ours to judge


def judge_run(run: Run, boot: str, space: str, keeper_lives: bool, engine_lives: bool) -> Liveness:
    """Whose server that is, and whether it runs.

    Args:
        boot, space: of this process.
        keeper_lives, engine_lives: whether such a pid exists with that start; only looked at if it is ours.
    """
    known = run.keeper or run.engine
    if known is None:
        return Liveness.GONE
    if known.boot == boot and known.space != space:
        return Liveness.ELSEWHERE
    if known.boot != boot:
        return Liveness.GONE
    if keeper_lives:
        return Liveness.RUNNING
    return Liveness.LEFT_OVER if engine_lives else Liveness.GONE


def spec_of(job: Job, version: str, key: str, port: int | None) -> dict[str, str]:
    """What a server serves and how, in the words of the command line; equal for equal servers.

    Args:
        port: the one that was asked for; None where any will do.
    """
    settings = job.settings
    spec = {
        "model": ",".join(one.sha256 or one.target for one in job.files if one.target != job.mmproj),
        "--engine": f"{job.engine} {version}".strip(),
        "--mmproj": job.mmproj,
        "--host": settings.host,
        "--port": port,
        "--ctx-size": settings.ctx_size,
        "--n-predict": settings.n_predict,
        "--ngl": settings.ngl,
        "--gpu": settings.gpu,
        "--threads": settings.threads,
        "--": shlex.join((*settings.args, *job.extra)),
        "--api-key": "given" if key else "",
    }
    return {name: str(value) for name, value in spec.items() if value not in (None, "")}


def differences(run: Run, spec: Mapping[str, str], key: str) -> list[tuple[str, str]]:
    """(setting, `running X, asked Y`) for each in which a running server is not the one that is asked for."""
    names = [n for n in {**run.spec, **spec} if n != "--port" or n in spec]
    found = [(n, run.spec.get(n, "-"), spec.get(n, "-")) for n in names if run.spec.get(n) != spec.get(n)]
    if run.key != key and run.spec.get("--api-key") == spec.get("--api-key"):
        found.append(("--api-key", "one", "another one"))
    return [(name, f"running {had}, asked {asked}") for name, had, asked in found]


def record_name(name: str, port: int) -> str:
    """The name of a run's files, without the ending."""
    return f"{name}-{port}"


def log_of(name: str, files: Sequence[str]) -> list[str]:
    """Those of a folder's file names which are logs of a model."""
    return [file for file in files if re.fullmatch(re.escape(name) + r"-\d+\.log", file)]


def without_key(data: Any) -> dict[str, Any] | None:
    """The JSON of a record without its API key; None where there is none in it."""
    if not isinstance(data, dict) or not data.get("key"):
        return None
    return {**data, "key": ""}


def _stem(path: str, ending: str) -> str:
    """The last part of a path without its ending; nothing where it has another one."""
    name = re.split(r"[\\/]", path)[-1]
    return name.removesuffix(ending) if name.endswith(ending) else ""


def _is_text(value: object) -> bool:
    """Text that can be shown and be part of a path: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _matches(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LATEST


def _optional(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


def _is_process(value: object) -> bool:
    if (
        not isinstance(value, dict)
        or not {"pid", "started", "boot", "space"} <= value.keys() <= _PROCESS.keys()
    ):
        return False
    return all(_PROCESS[name](one) for name, one in value.items())


def _is_spec(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(one) for pair in value.items() for one in pair)


_LATEST = 1e11  # seconds since 1970: the year 5138
_PROCESS: Mapping[str, Callable[[object], bool]] = {
    "pid": _whole(1, 2**32),
    "started": _is_seconds,
    "boot": _is_text,
    "space": _is_text,
    "start_ticks": _whole(0, 2**63),
}
_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "name": _matches(r"\w[\w.-]*"),
    "mode": lambda value: value in [mode.value for mode in Mode],
    "host": _matches(r"[A-Za-z0-9.:_%-]{1,253}"),
    "port": _whole(1, 65535),
    "spec": _is_spec,
    "command": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "log": _is_text,
    "mark": is_mark,
    "key": _matches("[!-~]*"),
    "state": lambda value: value in [state.value for state in State],
    "ready_s": _optional(_is_seconds),
    "ended": _optional(_whole(-(2**31), 2**32)),
    "ended_at": _optional(_is_seconds),
    "engine": _optional(_is_process),
    "keeper": _optional(_is_process),
    "owner": _whole(0, 2**32),
}
_MAY_MISS = {"key", "ready_s", "ended", "ended_at", "engine", "keeper", "owner"}
