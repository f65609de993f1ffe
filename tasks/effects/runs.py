"""The servers of this machine as the cache's `run` folder records them.

`run/<machine>/<model>-<port>.json` beside the log: a folder for each machine, for a cache may be shared. A
record is written by its keeper alone, and removed by it or, when that was killed, by whoever finds it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.core.errors import ServerError
from tasks.core.lifecycle import INTERRUPT_S, KILL_S
from tasks.core.run import Liveness, Run, State, judge_run, log_of
from tasks.effects import files, own, owner
from tasks.effects.logfile import BEFORE

KEPT_LOGS = 10
_ANY = "+"  # the claim of whoever picks a port; no model has that name
_POLL_S = 0.05
_WAIT_S = 1.0  # between two looks for the lock

_log = logging.getLogger("recipe")


def folder(cache: str) -> str:
    """Where engines run and log, for this user alone; a temporary one if the cache is read-only."""
    path = _folder(cache)
    with contextlib.suppress(OSError):
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, 0o700)
    fits = os.path.isdir(path) and os.access(path, os.W_OK)
    return path if fits else tempfile.mkdtemp(prefix="llamafile-recipe-")


def _folder(cache: str) -> str:
    node = re.sub(r"[^\w.-]", "-", platform.node()) or "here"
    return os.path.join(cache, "run", node)


def found(cache: str) -> list[tuple[Run, Liveness]]:
    """Every record that is not another machine's, oldest first. One that no process stands behind stays."""
    runs = []
    for path in Path(cache, "run").glob("*/*.json"):
        run = Run.parse(files.read_json(path), str(path))
        if run is None:
            continue
        what = judge_run(
            run, owner.boot_id(), owner.this_space(), owner.lives(run.keeper), owner.lives(run.engine)
        )
        ours = what is not Liveness.ELSEWHERE
        if ours and (what is not Liveness.GONE or str(path.parent) == _folder(cache)):
            runs.append((run, what))
    return sorted(runs, key=lambda one: one[0].since)


def not_known_gone(cache: str) -> list[Run]:
    """Servers whose files must stay: those that run here, and those that nobody here can judge.

    What another machine or container has on record may run there, for all that can be seen.
    """
    gone = {run.path for run, what in found(cache) if what is Liveness.GONE}
    every = (Run.parse(files.read_json(path), str(path)) for path in Path(cache, "run").glob("*/*.json"))
    return [run for run in every if run is not None and run.path not in gone]


def running(cache: str) -> list[Run]:
    """The servers that run."""
    return [run for run, what in found(cache) if what is Liveness.RUNNING]


def ended(cache: str, name: str) -> list[Run]:
    """Records of a model's servers that ended by themselves."""
    return [run for run, what in found(cache) if what is Liveness.GONE and run.name == name]


def clean(cache: str) -> None:
    """End engines whose keeper was killed, and forget what has gone without a word.

    What ended by itself stays on record, for `doit status` and `doit logs`, until it is started again.
    """
    for run, what in found(cache):
        if what is Liveness.LEFT_OVER:
            _log.warning(
                "%s was left over by a recipe that was killed; ending it (pid %s)", run.name, _pid(run)
            )
        if what is Liveness.LEFT_OVER or (what is Liveness.GONE and run.state is not State.STOPPED):
            end_marked(run.mark)
            forget(run.path)


def forget(path: str) -> None:
    """Remove a record, and the key that was laid out for its engine."""
    forget_key(path)
    with contextlib.suppress(OSError):
        os.unlink(path)


def forget_key(path: str) -> None:
    """Remove the file beside a record in which its engine found the key."""
    with contextlib.suppress(OSError):
        os.unlink(f"{path.removesuffix('.json')}.key")


def stop(run: Run) -> bool:
    """End a server through its keeper, or without it; whether everything of it is gone."""
    import psutil

    with contextlib.suppress(psutil.Error):
        if run.keeper and owner.lives(run.keeper):
            psutil.Process(run.keeper.pid).terminate()
    deadline = time.monotonic() + 2 * INTERRUPT_S + KILL_S + 2.0
    while owner.lives(run.keeper) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if owner.lives(run.keeper) and run.keeper:
        with contextlib.suppress(psutil.Error):
            psutil.Process(run.keeper.pid).kill()
    gone = end_marked(run.mark)
    if gone:
        forget(run.path)
    return gone


def end_marked(mark: str) -> bool:
    """Kill whatever still has the mark of a run that is over; whether nothing is left."""
    import psutil

    left = owner.marked(mark)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return not psutil.wait_procs(left, timeout=KILL_S)[1]


def logs(cache: str, name: str) -> list[str]:
    """Paths of a model's logs on this machine, the newest last."""
    path = _folder(cache)
    names = os.listdir(path) if os.path.isdir(path) else []
    paths = [os.path.join(path, one) for one in log_of(name, names)]
    return sorted(paths, key=lambda one: os.stat(one).st_mtime)


def drop_old_logs(cache: str, name: str) -> None:
    """Keep a model's newest logs: every free port that was taken has left one."""
    for path in logs(cache, name)[:-KEPT_LOGS]:
        if not os.path.exists(f"{path.removesuffix('.log')}.json"):
            for one in (path, f"{path}.1", f"{path}{BEFORE}"):
                with contextlib.suppress(OSError):
                    os.unlink(one)


@contextlib.contextmanager
def claim(cache: str, name: str) -> Iterator[None]:
    """Hold the right to start a model in the background: of two that want to, the second waits.

    Raises ServerError: the cache cannot be written, and then nothing could find the server again.
    """
    from filelock import FileLock, Timeout

    node = os.path.basename(_folder(cache))
    lock = FileLock(own.lock_file(cache, f"start-{node}-{name}.lock"))
    said = False
    try:
        os.makedirs(os.path.dirname(lock.lock_file), exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_WAIT_S)
            except Timeout:
                if not said:
                    what = "a server" if name == _ANY else name
                    _log.info("another doit is starting %s; waiting for it", what)
                said = True
    except OSError as error:
        raise files.cannot_write(cache, error) from None
    try:
        yield
    finally:
        lock.release()


def claim_port(cache: str) -> contextlib.AbstractContextManager[None]:
    """Hold the right to pick a port, until what takes it is on record."""
    return claim(cache, _ANY)


def _pid(run: Run) -> int | None:
    return run.engine.pid if run.engine else None


def no_stranger(cache: str, port: int) -> None:
    """Raise ServerError where one of our own servers has the port: the error can name it."""
    for run in running(cache):
        if run.port == port:
            by = f"`doit {run.mode.value}` runs"
            raise ServerError(
                f"port {port} is in use by {run.name}, which {by} (pid {_pid(run)})",
                fix=f"doit stop --model {run.name}, or --port 0 for a free one",
            )
