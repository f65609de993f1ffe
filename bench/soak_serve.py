"""Hundreds of signals at random moments: whatever they hit, no engine, keeper or record is left.

    python bench/soak_serve.py [--runs 200] [--seed N] [--longest 1.5]

By turns `doit serve`, `doit with -- sleep` and `doit start` with the demo model; each gets SIGTERM, SIGINT,
SIGHUP or SIGKILL at a random moment from its first to about its end. Some seconds later nothing may be left
but the server of a `doit start` that has come to its end, which `doit stop` then ends. Exits with 1 on the
first violation. Linux only.
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

from tasks.engine import server_registry  # noqa: E402
from tasks.engine.server_record import Liveness, Mode, ServerRecord, ServerState  # noqa: E402

DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")
COMMAND = (
    "sleep",
    "30.0625",
)  # of `doit with`; outlives a doit that SIGKILL ended, and is not ours to end
VERBS = {"serve": ("--port", "0"), "with": ("--", *COMMAND), "start": ("--port", "0")}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
GONE_S = 30.0  # then everything has to be gone; a second does where the machine is idle
SETTLE_S = 3.0  # a start that was killed as it came to its end leaves a server that is meant to stay
LIMIT_S = 60.0  # for doit itself, and for `doit stop`
POLL_S = 0.05


class Violation(Exception):
    """What must never be."""


class Shot(NamedTuple):
    """One repetition: which command got which signal when."""

    verb: str
    number: signal.Signals
    after_s: float

    def __str__(self) -> str:
        return f"doit {self.verb}, {self.number.name} after {self.after_s:.3f} s"


class Place:
    """A cache, and what runs for it."""

    def __init__(self, folder: Path) -> None:
        self._cache, self._home = folder / "cache", folder / "home"
        self._home.mkdir()
        names = ("PATH", "LANG", "TMPDIR")
        self._env = {name: os.environ[name] for name in names if name in os.environ}
        self._env |= {"HOME": str(self._home), "LLAMAFILE_CACHE": str(self._cache)}

    def doit(self, *words: str) -> subprocess.Popen[str]:
        """Start doit, in a session of its own, as a service manager does."""
        return subprocess.Popen(
            [DOIT, *words], cwd=ROOT, env=self._env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def check_doit(self, *words: str) -> None:
        """Run doit to its end. Raises Violation: it failed."""
        if status := self.doit(*words).wait(LIMIT_S):
            raise Violation(f"doit {' '.join(words)}: status {status}")

    def processes(self) -> list[psutil.Process]:
        """Keepers, engines and what they have started, and doit itself."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                ours = process.environ().get("LLAMAFILE_CACHE") == str(self._cache)
                if (
                    ours
                    and process.status() != psutil.STATUS_ZOMBIE
                    and process.cmdline() != [*COMMAND]
                ):
                    found.append(process)
        return found

    def records(self) -> list[tuple[ServerRecord, Liveness]]:
        """What `doit status` would show."""
        return server_registry.list_servers(str(self._cache))

    def engines(self) -> int:
        """How many have been started, of late: each port has a log, and some are kept."""
        return len(list(self._cache.glob("run/*/*.log")))

    def forget_logs(self) -> None:
        """Start counting anew."""
        for path in self._cache.glob("run/*/*.log*"):
            path.unlink()

    def end_commands(self) -> None:
        """End the commands that a killed `doit with` has left."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.cmdline() == [*COMMAND] and process.environ().get(
                    "HOME"
                ) == str(self._home):
                    process.kill()

    def clear(self) -> None:
        """Leave nothing, not even after a violation."""
        self.end_commands()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


def stays(place: Place) -> bool:
    """Whether a server runs that `doit start` has started, and nothing else is on record."""
    found = place.records()
    return [(run.mode, run.state, what) for run, what in found] == [
        (Mode.START, ServerState.READY, Liveness.RUNNING)
    ]


def fire(place: Place, shot: Shot) -> str:
    """One repetition; what came of it. Raises Violation."""
    words = VERBS[shot.verb]
    doit = place.doit(shot.verb, "--model", "demo", *words)
    with suppress(subprocess.TimeoutExpired):
        doit.wait(shot.after_s)
    early = doit.poll() is not None
    doit.send_signal(shot.number)
    try:
        status = doit.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Violation("doit does not end") from None
    ended = time.monotonic()
    while (left := place.processes()) or place.records():
        waited = time.monotonic() - ended
        if shot.verb == "start" and (status == 0 or waited > SETTLE_S) and stays(place):
            place.check_doit("stop", "--all")
            if found := place.processes():
                raise Violation(f"left after `doit stop`: {found}")
            return "started"
        if waited > GONE_S:
            raise Violation(
                f"left after status {status}: {left}, on record {place.records()}"
            )
        time.sleep(POLL_S)
    if early:
        raise Violation(f"doit ended by itself, status {status}")
    place.end_commands()
    return "ended"


def main() -> int:
    """Shoot, and say what came of it in one line."""
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
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    chance, came, start = random.Random(seed), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        try:
            place.check_doit(
                "verify", "--model", "demo"
            )  # so that the shots hit servers, not a download
            for count in range(options.runs):
                number = SIGNALS[count // len(VERBS) % len(SIGNALS)]
                shot = Shot(
                    [*VERBS][count % len(VERBS)],
                    number,
                    chance.uniform(0, options.longest),
                )
                try:
                    came[fire(place, shot)] += 1
                    came["engines"] += place.engines()
                    place.forget_logs()
                except Violation as violation:
                    print(f"seed {seed}, run {count}, {shot}: {violation}")
                    return 1
        finally:
            place.clear()
    took = time.monotonic() - start
    text = f"{options.runs} signals in {took:.0f} s (seed {seed}): nothing left of {came['engines']} engines"
    print(f"{text}; {came['started']} servers of `doit start` stayed and were stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
