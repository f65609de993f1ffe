"""Find, record and end the servers of this machine.

A record is written by its supervisor alone. The supervisor removes it too; if it was
killed, the next command that finds the record does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import ServerError
from tasks.server import (
    drain_request,
    record_files,
    settings_request,
    target_file,
    users,
)
from tasks.server.server_record import (
    EARLIEST_SUPERVISOR_COMMAND,
    SUPERVISOR_COMMANDS,
    Liveness,
    ServerRecord,
    ServerState,
    liveness_of,
    without_key,
)
from tasks.system import files, process_identity
from tasks.system.process_identity import is_alive, protected_pids
from tasks.system.processes import INTERRUPT_S, KILL_S

_POLL_S = 0.05
# a key without a record is this old only if the doit that wrote it was killed
_KEY_S = 600.0

_log = logging.getLogger("recipe")


def list_servers(cache: str) -> list[tuple[ServerRecord, Liveness]]:
    """List this user's records of this machine, oldest first.

    A record whose processes have ended is listed, too.
    """
    servers = []
    for record in record_files.read_records(cache):
        liveness = liveness_of(
            record,
            process_identity.boot_id(),
            process_identity.pid_namespace(),
            process_identity.is_alive(record.keeper),
            process_identity.is_alive(record.engine),
        )
        if liveness is Liveness.OTHER_HOST:
            continue
        here = os.path.dirname(record.path) in record_files.machine_folders(cache)
        if here or liveness is not Liveness.GONE:
            servers.append((record, liveness))
    return sorted(servers, key=lambda server: server[0].since)


def possibly_running(cache: str) -> list[ServerRecord]:
    """List the servers that may run, so that their files must stay.

    A server of another machine, container or user may run: this cannot be checked.
    """
    gone = {
        record.path
        for record, liveness in list_servers(cache)
        if liveness is Liveness.GONE
    }
    return [
        record
        for record in record_files.read_records(cache, of_all=True)
        if record.path not in gone
    ]


def running(cache: str) -> list[ServerRecord]:
    """List the servers that run."""
    return [
        record
        for record, liveness in list_servers(cache)
        if liveness is Liveness.RUNNING
    ]


def ended(cache: str, name: str) -> list[ServerRecord]:
    """List a model's servers that ended by themselves."""
    gone = [
        record for record, liveness in list_servers(cache) if liveness is Liveness.GONE
    ]
    return [record for record in gone if record.name == name]


def reap_orphans(cache: str) -> None:
    """End engines whose supervisor was killed; delete records of lost servers.

    The record of a server that ended by itself stays until the model is started
    again, for `doit status` and `doit logs`.
    """
    for record, liveness in list_servers(cache):
        if liveness is Liveness.ORPHANED:
            _end_orphan(record)
        elif liveness is Liveness.GONE and record.state is not ServerState.STOPPED:
            if _of_this_boot(record):
                # processes that the engine started may still run
                kill_marked(record.mark)
            delete_record(record.path)
    drop_keys(cache)


def _end_orphan(record: ServerRecord) -> None:
    """End an engine whose supervisor was killed, if the marker proves its identity."""
    pid = _pid(record)
    if pid not in {
        process.pid for process in process_identity.find_marked(record.mark)
    }:
        _log.warning("warning: %s", not_proven(record, pid or 0))
        return
    text = "ending %s (pid %s), left over by a recipe that was killed"
    _log.warning(text, record.name, pid)
    if kill_marked(record.mark):
        delete_record(record.path)


def _of_this_boot(record: ServerRecord) -> bool:
    process = record.keeper or record.engine
    return process is not None and process.boot == process_identity.boot_id()


def not_proven(record: ServerRecord, pid: int) -> ServerError:
    """Return the error for a recorded process that may be another program."""
    return ServerError(
        f"process {pid} is recorded as {record.name}, but this cannot be verified; "
        "it was not ended",
        fix=f"check it with ps -fp {pid}; if it is {record.name}, run kill {pid}; "
        f"if not, delete {record.path}",
    )


def drop_keys(cache: str) -> None:
    """Remove the API keys of servers that do not run, from records and key files."""
    for record, liveness in list_servers(cache):
        if liveness is not Liveness.RUNNING:
            _drop_key(record)
    for path in _key_files(cache):
        with contextlib.suppress(OSError):
            if os.path.exists(path.with_suffix(".json")):
                continue
            # a new key without a record: its server is starting
            if time.time() - os.lstat(path).st_mtime > _KEY_S:
                os.unlink(path)


def _key_files(cache: str) -> Iterator[Path]:
    for folder in record_files.machine_folders(cache):
        yield from Path(folder).glob("*.key")


def _drop_key(record: ServerRecord) -> None:
    """Remove the key from a record; delete the record where it cannot be written."""
    data = record_files.load_json(Path(record.path))
    if not isinstance(data, dict) or data.get("mark") != record.mark:
        # it is a new server's record by now
        return
    delete_key(record.path)
    keyless = without_key(data)
    if keyless is None:
        return
    try:
        files.write_atomic(record.path, json.dumps(keyless, indent=1), private=True)
    except OSError:
        delete_record(record.path)


def delete_record(path: str) -> None:
    """Delete a record, and what is beside it: key, requests, target of Prometheus."""
    delete_key(path)
    drain_request.forget(path)
    settings_request.forget(path)
    users.forget(path)
    target_file.forget(path)
    with contextlib.suppress(OSError):
        os.unlink(path)


def delete_key(path: str) -> None:
    """Delete the key file beside a record."""
    with contextlib.suppress(OSError):
        os.unlink(f"{path.removesuffix('.json')}.key")


def stop(record: ServerRecord, drain_s: float = 0) -> bool:
    """End a server through its supervisor, else directly.

    Args:
        drain_s: most seconds that the supervisor waits for answers in progress.

    Returns:
        Whether all of its processes have ended.

    Raises:
        ServerError: the recorded supervisor may be another program. Nothing was ended.
    """
    import psutil

    if record.keeper and process_identity.is_alive(record.keeper):
        if not is_supervisor(record):
            raise not_proven(record, record.keeper.pid)
        with contextlib.suppress(psutil.Error):
            psutil.Process(record.keeper.pid).terminate()
    deadline = time.monotonic() + drain_s + 2 * INTERRUPT_S + KILL_S + 2.0
    while process_identity.is_alive(record.keeper) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if record.keeper and is_supervisor(record):
        with contextlib.suppress(psutil.Error):
            psutil.Process(record.keeper.pid).kill()
    all_ended = kill_marked(record.mark)
    if all_ended:
        delete_record(record.path)
    return all_ended


def kill_marked(mark: str) -> bool:
    """Kill all processes with a server's marker; return whether none is left."""
    import psutil

    processes = process_identity.find_marked(mark)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(processes, timeout=KILL_S)
    # psutil reports a zombie as alive
    return not any(process_identity.is_running(process.pid) for process in left)


def _pid(record: ServerRecord) -> int | None:
    return record.engine.pid if record.engine else None


def check_port_not_ours(cache: str, port: int) -> None:
    """Check that none of this user's servers uses the port.

    Raises:
        ServerError: one does; the error names it.
    """
    for record in running(cache):
        if record.port == port:
            raise ServerError(
                f"port {port} is in use by {record.name}, started by "
                f"`doit {record.mode.value}` (pid {_pid(record)})",
                fix=f"`doit stop --port {port}`, or --port 0 for a free one",
            )


def is_supervisor(record: ServerRecord) -> bool:
    """Check the recorded supervisor's identity: its start time and its marker.

    The marker is on its command line. An earlier version's supervisor has none there.
    """
    import psutil

    supervisor = record.keeper
    if (
        supervisor is None
        or supervisor.pid in protected_pids()
        or not is_alive(supervisor)
    ):
        return False
    try:
        argv = tuple(psutil.Process(supervisor.pid).cmdline())
    except (psutil.Error, OSError, ValueError):
        return False
    if not supervisor.start_ticks and argv[-2:] == EARLIEST_SUPERVISOR_COMMAND:
        return True
    return any(argv[-3:] == (*one, record.mark) for one in SUPERVISOR_COMMANDS)
