"""The servers of this machine as the cache's `run` folder records them.

`run/<machine>/<model>-<port>.json` beside the log: a folder for each machine, for a cache may be shared. A
record is written by its keeper alone, and removed by it or, when that was killed, by whoever finds it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.cache import stamps
from tasks.engine.logfile import BEFORE
from tasks.engine.server_record import (
    EARLIER_KEEPER_WORDS,
    KEEPER_WORDS,
    RECORD_BYTES,
    Liveness,
    Run,
    State,
    judge_run,
    log_of,
    without_key,
)
from tasks.errors import ServerError
from tasks.system import files, own_files, process_identity
from tasks.system.process_identity import _never, lives
from tasks.system.processes import INTERRUPT_S, KILL_S

KEPT_LOGS = 10
_ANY = "+"  # the claim of whoever picks a port; no model has that name
_POLL_S = 0.05
_WAIT_S = 1.0  # between two looks for the lock
_KEY_S = 600.0  # a key that no record belongs to for so long was left by a doit that was killed

_log = logging.getLogger("recipe")


def folder(cache: str) -> str | None:
    """Make the folder where engines run and log; for this user alone.

    Returns:
        None where it cannot be written, or is behind a link or another user's, who could put records there.
    """
    path = _folder(cache)
    if _is_behind_link(cache):
        return None
    with contextlib.suppress(OSError):
        os.makedirs(path, mode=0o700, exist_ok=True)
        if _is_mine(os.lstat(path)):
            os.chmod(path, 0o700)
    try:
        found = os.lstat(path)
    except OSError:
        return None
    fits = stat.S_ISDIR(found.st_mode) and _is_mine(found) and os.access(path, os.W_OK)
    return path if fits else None


def can_record(cache: str) -> bool:
    """Whether `folder` will be there, as far as can be told without making it."""
    path = _folder(cache)
    near = files.existing(path)
    mine = near != path or _is_mine(os.stat(near))
    return mine and os.access(near, os.W_OK) and not _is_behind_link(cache)


def _is_behind_link(cache: str) -> bool:
    """Whether `run` is a link: engines would log, and records be written, elsewhere."""
    return bool(own_files.link_inside(cache, _folder(cache)))


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for as long as an engine runs, where the cache has none for it."""
    path = tempfile.mkdtemp(prefix="llamafile-recipe-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def cannot_record(cache: str) -> ServerError:
    """The error for a server that has to be found again, and could not be."""
    path = _folder(cache)
    facts = [("folder", path)]
    with contextlib.suppress(OSError):
        if not _is_mine(os.stat(files.existing(path))):
            facts.append(("belongs to", "another user"))
    return ServerError(
        "`doit start` cannot note its server in the cache, so that nothing could find and stop it",
        facts,
        fix="set LLAMAFILE_CACHE to a directory you can write to, or run doit serve in the foreground",
    )


def _folder(cache: str) -> str:
    node = re.sub(r"[^\w.-]", "-", platform.node()) or "here"
    return os.path.join(cache, "run", node)


def _is_mine(found: os.stat_result) -> bool:
    """Whether a file belongs to this user; Windows does not say."""
    return sys.platform == "win32" or found.st_uid == os.geteuid()


def _load(path: Path, *, of_all: bool = False) -> Any:
    """The JSON of a record; None unless it is a small regular file.

    Args:
        of_all: another user's as well; such a record is not to be trusted.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or not (of_all or _is_mine(found)):
                return None
            data = file.read(RECORD_BYTES + 1)
        return json.loads(data) if len(data) <= RECORD_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _records(cache: str, *, of_all: bool = False) -> Iterator[Run]:
    """Every record in the cache that can be read as one."""
    for path in Path(cache, "run").glob("*/*.json"):
        run = Run.parse(_load(path, of_all=of_all), str(path))
        if run is not None:
            yield run


def found(cache: str) -> list[tuple[Run, Liveness]]:
    """Every record of this user and this machine, oldest first. One that no process stands behind stays."""
    runs = []
    for run in _records(cache):
        what = judge_run(
            run,
            process_identity.boot_id(),
            process_identity.this_space(),
            process_identity.lives(run.keeper),
            process_identity.lives(run.engine),
        )
        ours = what is not Liveness.ELSEWHERE
        if ours and (what is not Liveness.GONE or os.path.dirname(run.path) == _folder(cache)):
            runs.append((run, what))
    return sorted(runs, key=lambda one: one[0].since)


def not_known_gone(cache: str) -> list[Run]:
    """Servers whose files must stay: those that run here, and those that nobody here can judge.

    What another machine, container or user has on record may run there, for all that can be seen.
    """
    gone = {run.path for run, what in found(cache) if what is Liveness.GONE}
    return [run for run in _records(cache, of_all=True) if run.path not in gone]


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
            _end_left_over(run)
        elif what is Liveness.GONE and run.state is not State.STOPPED:
            if _of_this_boot(run):
                end_marked(run.mark)  # what the engine has started may live on
            forget(run.path)
    drop_keys(cache)


def _end_left_over(run: Run) -> None:
    """End an engine whose keeper was killed, if it is proven to be that engine."""
    pid = _pid(run)
    if pid not in {process.pid for process in process_identity.marked(run.mark)}:
        _log.warning("warning: %s", not_proven(run, pid or 0))
        return
    _log.warning("%s was left over by a recipe that was killed; ending it (pid %s)", run.name, pid)
    if end_marked(run.mark):
        forget(run.path)


def _of_this_boot(run: Run) -> bool:
    known = run.keeper or run.engine
    return known is not None and known.boot == process_identity.boot_id()


def not_proven(run: Run, pid: int) -> ServerError:
    """The error for a process that a record names, and that may be another program's."""
    return ServerError(
        f"process {pid} is on record as {run.name}, and nothing proves that it is; it was not ended",
        fix=f"look at it: ps -fp {pid}; if it is {run.name}: kill {pid}; if not: delete {run.path}",
    )


def drop_keys(cache: str) -> None:
    """Remove the API keys of servers that do not run: from their records, and the files beside them."""
    for run, what in found(cache):
        if what is not Liveness.RUNNING:
            _drop_key(run)
    for path in Path(_folder(cache)).glob("*.key"):
        with contextlib.suppress(OSError):
            lone = not os.path.exists(path.with_suffix(".json"))  # a moment ago: it is being started
            if lone and time.time() - os.lstat(path).st_mtime > _KEY_S:
                os.unlink(path)


def _drop_key(run: Run) -> None:
    """Write a record again without the key in it. Where that fails the record goes: the key must."""
    data = _load(Path(run.path))
    if not isinstance(data, dict) or data.get("mark") != run.mark:  # a new server's record by now
        return
    forget_key(run.path)
    keyless = without_key(data)
    if keyless is None:
        return
    try:
        files.write_atomic(run.path, json.dumps(keyless, indent=1), private=True)
    except OSError:
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
    """End a server through its keeper, or without it; whether everything of it is gone.

    Raises ServerError: what is on record as its keeper may be another program. Nothing was ended.
    """
    import psutil

    if run.keeper and process_identity.lives(run.keeper):
        if not is_keeper(run):
            raise not_proven(run, run.keeper.pid)
        with contextlib.suppress(psutil.Error):
            psutil.Process(run.keeper.pid).terminate()
    deadline = time.monotonic() + 2 * INTERRUPT_S + KILL_S + 2.0
    while process_identity.lives(run.keeper) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if run.keeper and is_keeper(run):
        with contextlib.suppress(psutil.Error):
            psutil.Process(run.keeper.pid).kill()
    gone = end_marked(run.mark)
    if gone:
        forget(run.path)
    return gone


def end_marked(mark: str) -> bool:
    """Kill whatever still has the mark of a run that is over; whether nothing is left."""
    import psutil

    left = process_identity.marked(mark)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(left, timeout=KILL_S)
    return not any(process_identity.is_running(process.pid) for process in left)  # a zombie has ended


def logs(cache: str, name: str) -> list[str]:
    """Paths of a model's logs on this machine, the newest last."""
    path = _folder(cache)
    found = []
    with contextlib.suppress(OSError):  # there is no such folder, or it is another user's
        for one in log_of(name, os.listdir(path)):
            with contextlib.suppress(OSError):
                found.append((os.stat(os.path.join(path, one)).st_mtime, os.path.join(path, one)))
    return [one for _, one in sorted(found)]


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
    lock = FileLock(own_files.lock_file(cache, f"start-{node}-{name}.lock"))
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
        raise stamps.cannot_write(cache, error) from None
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


def is_keeper(run: Run) -> bool:
    """Whether the keeper on record is proven to be that one: its start, and the mark of its run.

    The mark is on its command line; a keeper of an earlier version has none there.
    """
    import psutil

    if run.keeper is None or run.keeper.pid in _never() or not lives(run.keeper):
        return False
    try:
        words = tuple(psutil.Process(run.keeper.pid).cmdline())
    except (psutil.Error, OSError, ValueError):
        return False
    earlier = not run.keeper.start_ticks and words[-2:] == EARLIER_KEEPER_WORDS
    return earlier or words[-3:] == (*KEEPER_WORDS, run.mark)
