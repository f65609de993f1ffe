"""A running server as a record: what is written down of it, and what follows from it. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from tasks.core import report

if TYPE_CHECKING:
    from tasks.core.jobs import Job

KEY_VARIABLE = "LLAMA_API_KEY"  # llama.cpp's server reads it, too
MARK_VARIABLE = "LLAMAFILE_RECIPE_RUN"  # in an engine's environment: whose process it is


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
class Process:
    """A process, unmistakably: pids are used again, and containers have pids of their own."""

    pid: int
    started: float  # seconds since 1970
    boot: str  # this boot of the machine
    space: str  # the namespace of its pid, where the system has such


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
        return report.base_url(self.host, self.port)

    @staticmethod
    def parse(data: Any, path: str) -> Run | None:
        """A record from its JSON; None where it is none of ours."""
        try:
            known = {f.name for f in fields(Run)}
            values = {k: v for k, v in data.items() if k in known} | {"path": path}
            values |= {"mode": Mode(data["mode"]), "state": State(data["state"])}
            for name in ("engine", "keeper"):
                values[name] = Process(**data[name]) if data.get(name) else None
            run = Run(**values)
            return run if isinstance(run.port, int) and isinstance(run.spec, dict) else None
        except (TypeError, ValueError, KeyError, AttributeError):
            return None


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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on `host`."""
    from ipaddress import ip_address  # 3 ms

    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.", "ip6-localhost")


def record_name(name: str, port: int) -> str:
    """The name of a run's files, without the ending."""
    return f"{name}-{port}"


def log_of(name: str, files: Sequence[str]) -> list[str]:
    """Those of a folder's file names which are logs of a model."""
    return [file for file in files if re.fullmatch(re.escape(name) + r"-\d+\.log", file)]
