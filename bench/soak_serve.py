"""Send signals at random times: no engine, supervisor or server record may be left.

    python bench/soak_serve.py [--runs 200] [--seed N] [--longest 1.5] [--endpoint]

`doit serve`, `doit with -- sleep` and `doit start` alternate, with the demo model. Each
gets SIGTERM, SIGINT, SIGHUP or SIGKILL at a random time of its run. A few seconds later
nothing may be left except the server of a `doit start` that succeeded, which
`doit stop` then stops. Exits with 1 on the first violation. Linux only.

With --endpoint, they serve an endpoint of two models that are kept. In every second run
the router or its supervisor gets SIGKILL instead of doit. Needs llama-server on PATH.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import office  # noqa: E402

from tasks.server import server_registry  # noqa: E402
from tasks.server.server_record import Liveness, Mode, ServerRecord, ServerState  # noqa: E402

DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")
COMMAND = ("sleep", "30.0625")  # of `doit with`; it survives a SIGKILL of doit
VERBS = {"serve": ("--port", "0"), "with": ("--", *COMMAND), "start": ("--port", "0")}
PARTS = ("engine", "keeper")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
GONE_S = 30.0  # time limit for everything to end; an idle machine needs a second
SETTLE_S = 3.0  # a `doit start` killed after it succeeded leaves a server, rightly
LIMIT_S = 60.0  # for doit, and for `doit stop`
POLL_S = 0.05


class ViolationError(Exception):
    """A guarantee that does not hold."""


class Shot(NamedTuple):
    """A command, its signal and the time of the signal."""

    verb: str
    number: signal.Signals
    after_s: float
    part: str = ""  # engine or keeper, which gets SIGKILL instead

    def __str__(self) -> str:
        if self.part:
            return f"doit {self.verb}, {self.part} killed after {self.after_s:.3f} s"
        return f"doit {self.verb}, {self.number.name} after {self.after_s:.3f} s"


class Place:
    """A cache, and the processes that run for it."""

    def __init__(self, folder: Path, *, endpoint: bool = False) -> None:
        self.name = "demo"
        self._cache, self._home = folder / "cache", folder / "home"
        self._home.mkdir()
        names = ("PATH", "LANG", "TMPDIR")
        self._env = {name: os.environ[name] for name in names if name in os.environ}
        self._env |= {"HOME": str(self._home), "LLAMAFILE_CACHE": str(self._cache)}
        if endpoint:
            self.name = "office"
            contexts = {"chat": 512, "embedder": 512}
            path = office.write(folder / "models.yaml", contexts, tuple(contexts), 1)
            self._env["LLAMAFILE_CATALOGUE"] = str(path)

    def doit(self, *words: str) -> subprocess.Popen[str]:
        """Start doit in its own session, as a service manager does."""
        return subprocess.Popen(
            [DOIT, *words], cwd=ROOT, env=self._env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def check_doit(self, *words: str) -> None:
        """Run doit; raise ViolationError if it fails."""
        if status := self.doit(*words).wait(LIMIT_S):
            raise ViolationError(f"doit {' '.join(words)}: status {status}")

    def processes(self) -> list[psutil.Process]:
        """Return doit, the supervisors, the engines and their children."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                # of the variables, engines get few (ADR 17)
                ours = process.environ().get("HOME") == str(self._home)
                if (
                    ours
                    and process.status() != psutil.STATUS_ZOMBIE
                    and process.cmdline() != [*COMMAND]
                ):
                    found.append(process)
        return found

    def records(self) -> list[tuple[ServerRecord, Liveness]]:
        """Return what `doit status` would show."""
        return server_registry.list_servers(str(self._cache))

    def pid_of(self, part: str) -> int | None:
        """Return the pid of a part of the server that is recorded, if it is."""
        for record, _ in self.records():
            if found := getattr(record, part):
                return int(found.pid)
        return None

    def forget_records(self) -> None:
        """Delete the records of servers that have ended by themselves."""
        for path in self._cache.glob("run/*/*.json"):
            path.unlink()

    def engines(self) -> int:
        """Return how many engines have a log: each port has one, and some are kept."""
        return len(list(self._cache.glob("run/*/*.log")))

    def forget_logs(self) -> None:
        """Delete the logs, so that the count starts at 0."""
        for path in self._cache.glob("run/*/*.log*"):
            path.unlink()

    def end_commands(self) -> None:
        """Kill the commands that a killed `doit with` has left."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.cmdline() == [*COMMAND] and process.environ().get(
                    "HOME"
                ) == str(self._home):
                    process.kill()

    def clear(self) -> None:
        """Kill everything, also after a violation."""
        self.end_commands()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


def stays(place: Place) -> bool:
    """Whether one server of `doit start` runs and nothing else has a record."""
    found = place.records()
    return [(run.mode, run.state, what) for run, what in found] == [
        (Mode.START, ServerState.READY, Liveness.RUNNING)
    ]


def kill_part(place: Place, shot: Shot) -> str:
    """Run one command and kill a part of its server; return `killed` or `none`.

    Raises:
        ViolationError: a process was left.
    """
    doit = place.doit(shot.verb, "--model", place.name, *VERBS[shot.verb])
    deadline = time.monotonic() + LIMIT_S
    while (pid := place.pid_of(shot.part)) is None and doit.poll() is None:
        if time.monotonic() > deadline:
            raise ViolationError("no server was started")
        time.sleep(POLL_S / 5)
    time.sleep(shot.after_s)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    place.end_commands()
    try:
        doit.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ViolationError("doit does not end") from None
    ended = time.monotonic()
    while left := place.processes():
        if time.monotonic() - ended > GONE_S:
            raise ViolationError(f"left: {left}, on record {place.records()}")
        time.sleep(POLL_S)
    place.forget_records()
    return "killed" if pid else "none"


def fire(place: Place, shot: Shot) -> str:
    """Run one command and signal it; return what was left, `started` or `ended`.

    Raises:
        ViolationError: something else was left.
    """
    words = VERBS[shot.verb]
    doit = place.doit(shot.verb, "--model", place.name, *words)
    with suppress(subprocess.TimeoutExpired):
        doit.wait(shot.after_s)
    early = doit.poll() is not None
    doit.send_signal(shot.number)
    try:
        status = doit.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ViolationError("doit does not end") from None
    ended = time.monotonic()
    while (left := place.processes()) or place.records():
        waited = time.monotonic() - ended
        if shot.verb == "start" and (status == 0 or waited > SETTLE_S) and stays(place):
            place.check_doit("stop", "--all")
            if found := place.processes():
                raise ViolationError(f"left after `doit stop`: {found}")
            return "started"
        if waited > GONE_S:
            raise ViolationError(
                f"left after status {status}: {left}, on record {place.records()}"
            )
        time.sleep(POLL_S)
    if early:
        raise ViolationError(f"doit ended by itself, status {status}")
    place.end_commands()
    return "ended"


def main() -> int:
    """Send the signals; print the result in one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--longest",
        type=float,
        default=1.5,
        help="seconds after which a signal comes at most",
    )
    parser.add_argument("--endpoint", action="store_true")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    chance, came, start = random.Random(seed), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), endpoint=options.endpoint)
        try:
            # so that the signals hit servers, not a download
            place.check_doit("verify", "--model", place.name)
            for count in range(options.runs):
                number = SIGNALS[count // len(VERBS) % len(SIGNALS)]
                shot = Shot(
                    [*VERBS][count % len(VERBS)],
                    number,
                    chance.uniform(0, options.longest),
                )
                act = fire
                if options.endpoint and count % 2:
                    shot = shot._replace(part=PARTS[count // 2 % len(PARTS)])
                    act = kill_part
                try:
                    came[act(place, shot)] += 1
                    came["engines"] += place.engines()
                    place.forget_logs()
                except ViolationError as violation:
                    print(f"seed {seed}, run {count}, {shot}: {violation}")
                    return 1
        finally:
            place.clear()
    took = time.monotonic() - start
    text = f"{options.runs} signals in {took:.0f} s (seed {seed})"
    text += f": nothing left of {came['engines']} engines"
    print(f"{text}; {came['started']} servers of `doit start` stayed and were stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
