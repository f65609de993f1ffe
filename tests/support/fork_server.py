"""Start `doit` as a process of its own, by a fork of a process that has done the imports of all runs.

Python, doit and the libraries take most of the processor time of a short command. A process that `Forked`
starts is what `doit` starts: its own pid, session, working directory, environment, signals and streams, and
it imports dodo.py from its project, and tasks/ if its files are not those of the other projects (see
shared_modules.py). What only a new interpreter reads makes `can_fork` say no, and the tests marked smoke
start the script.

    python fork_server.py DESCRIPTOR DESCRIPTOR MOULD

The server imports nothing else of the tests. A script that starts `doit` by its name gets forks, too, with
the programs of `write_programs` (fork_client.py).
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib.util
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTED = (
    *("doit.doit_cmd", "llamafile_recipe", "requests", "urllib3", "psutil", "yaml", "pydantic", "filelock"),
    *("platformdirs", "rich.console", "rich.table", "rich.text", "logging", "multiprocessing", "sqlite3"),
    *("dbm", "shutil", "hashlib", "queue", "concurrent.futures", "urllib.parse", "dataclasses", "tempfile"),
)
# variables that a running interpreter reads no more; not every LC_ is one: see fakes.behaviour.VARIABLE
READ_AT_START = ("PYTHON", "LC_A", "LC_C", "LC_M", "LC_N", "LC_T", "TZ", "LD_")
KEPT = ("PATH", "LANG", "SYSTEMROOT", "TMPDIR")
MOST = 100_000  # bytes of a request


# ---- in the process of the tests


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a fork gives the same process as a start."""
    read = any(name.startswith(READ_AT_START) for name in env)
    same = env.get("LANG") == os.environ.get("LANG")
    return sys.platform == "linux" and same and not read and len(_request(command, "", env)) < MOST


def environment_of(pid: int) -> Mapping[str, str]:
    """Return the environment of a forked process: the system shows that of the server."""
    return _environments.get(pid, {})


_environments: dict[int, Mapping[str, str]] = {}


class Forked(subprocess.Popen[str]):
    """A process that the server has forked; the command is `doit` and its arguments."""

    def _execute_child(self, args: Any, *given: Any) -> None:
        cwd, env = given[4:6]
        to_stdin, from_stdout, from_stderr = given[9], given[12], given[14]
        try:
            self.pid = _server().fork(args, str(cwd), env, (to_stdin, from_stdout, from_stderr))
            self._child_created = True
        finally:
            self._close_pipe_fds(*given[9:15])  # type: ignore[attr-defined]

    def _internal_poll(self, **_: Any) -> int | None:
        return self._status(0)

    def _wait(self, timeout: float | None) -> int:
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._child_created:
            self.returncode = _server().status(self.pid, timeout)
        return self.returncode


class _Server:
    """The connection to the server; it ends with this process."""

    def __init__(self) -> None:
        from tests.support.shared_modules import mould

        self._lock = threading.Lock()
        self._ended: dict[int, int] = {}
        self.address = str(mould() / "forks.socket")  # of clients that are not the tests
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as clients:
            clients.bind(self.address)
            clients.listen()
            numbers = [other.fileno(), clients.fileno()]
            # pipes, as what a fork gets: what Python knows of a stream is from its start
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, numbers), str(mould())], pass_fds=numbers,
                start_new_session=True, cwd="/",
                env={name: os.environ[name] for name in KEPT if name in os.environ},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

    def close(self) -> None:
        """End the server; what it has forked goes on."""
        self._socket.close()
        os.unlink(self.address)
        self._process.communicate(timeout=60)

    def fork(self, args: Sequence[str], cwd: str, env: Mapping[str, str], streams: tuple[int, ...]) -> int:
        with self._lock:
            socket.send_fds(self._socket, [_request(args, cwd, env)], streams)
            while (pid := self._read()) is None:
                pass
            _environments[pid] = dict(env)
            return pid

    def status(self, pid: int, timeout: float | None) -> int | None:
        """Return the exit status of a process, -N for signal N; None if it still runs after the timeout."""
        deadline = time.monotonic() + (3600 if timeout is None else timeout)
        while True:
            with self._lock:
                while pid not in self._ended and select.select([self._socket], [], [], 0)[0]:
                    self._read()
                if pid in self._ended:
                    return self._ended[pid]
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            select.select([self._socket], [], [], min(left, 0.1))

    def _read(self) -> int | None:
        """Read a message: the pid of a new process, or the end of another one."""
        message = self._socket.recv(1000)
        assert message, "the fork server has ended"
        pid, *status = map(int, message.split())
        if not status:
            self._ended.pop(pid, None)  # of an earlier process with this pid
            return pid
        self._ended[pid] = os.waitstatus_to_exitcode(status[0])
        _environments.pop(pid, None)
        return None


@functools.cache
def _server() -> _Server:
    return _Server()


def write_programs(folder: Path, program: str) -> Path:
    """Write `doit`, and a `python3` whose `-I -m doit` is that (with no need to be isolated).

    Args:
        folder: is made; a script has it on its PATH.
        program: the path of `doit`.
    """
    run = shlex.quote(program)
    if sys.platform == "linux":
        client = str(Path(__file__).with_name("fork_client.py"))
        words = [_server().address, os.environ.get("LANG", ""), program]
        run = shlex.join([sys.executable, "-I", "-S", client, *words])
    python = f"exec {shlex.quote(sys.executable)}"
    isolated = f'if [ "$1 $2 $3" = "-I -m doit" ]; then shift 3; exec {run} "$@"; fi'
    folder.mkdir()
    for name, text in (("doit", f'exec {run} "$@"'), ("python3", f'{isolated}\n{python} "$@"')):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def close() -> None:
    """End the server of this process, if there is one."""
    if _server.cache_info().currsize:
        _server().close()
        _server.cache_clear()


def _request(args: Sequence[str], cwd: str, env: Mapping[str, str]) -> bytes:
    umask = os.umask(0o22)
    os.umask(umask)
    return json.dumps([list(args), cwd, dict(env), umask]).encode()


# ---- in the server


def serve(connection: socket.socket, others: socket.socket) -> tuple[list[str], str, dict[str, str], int]:
    """Fork on each request; return in the new process, with what it is to run.

    Args:
        others: where clients connect, each for one process.
    """
    awake, wake = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    clients: dict[int, socket.socket] = {}  # by the process that each waits for
    while True:
        select.select([connection.fileno(), others.fileno(), awake], [], [])
        _drain(awake)
        _report_ended(connection, clients)
        for asked in select.select([connection, others], [], [], 0)[0]:
            one = asked
            if asked is others:
                one = others.accept()[0]
            data, streams, _, _ = socket.recv_fds(one, MOST, 3)
            if not data and one is connection:  # the tests have ended
                os._exit(0)
            if len(streams) < 3:  # a client that was killed
                one.close()
                continue
            pid = os.fork()
            if pid == 0:
                _become(streams)
                for closed in (connection, others, one, *clients.values()):
                    closed.detach()
                args, cwd, env, umask = json.loads(data)
                return args, cwd, env, umask
            for number in streams:
                os.close(number)
            if one is connection:
                one.send(f"{pid}".encode())
            else:
                clients[pid] = one


def _drain(pipe: int) -> None:
    with suppress(BlockingIOError):
        os.read(pipe, 1000)


def _report_ended(connection: socket.socket, clients: dict[int, socket.socket]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid not in clients:
            connection.send(f"{pid} {status}".encode())
            continue
        with clients.pop(pid) as client, suppress(OSError):  # it may have been killed
            client.send(f"{pid} {status}".encode())


def _become(streams: Sequence[int]) -> None:
    """Set up streams, session and signals as those of a process that was started.

    The objects of `sys` stay: they write to the descriptors, and their buffers are empty.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with suppress(OSError):  # that of the folder itself
                os.close(int(name))


def _import_shared(mould: Path) -> None:
    file = Path(__file__).with_name("shared_modules.py")
    spec = importlib.util.spec_from_file_location("shared_modules", file)
    assert spec
    assert spec.loader
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    shared.given.append(mould)
    shared.find_shared()
    shared.spare_doit_work()


def main() -> None:
    """Serve, and in each new process run `doit`."""
    sockets = [socket.socket(fileno=int(number)) for number in sys.argv[1:3]]
    sys.argv[0] = "doit"  # of which doit takes its name
    sys.path.pop(0)  # that of this file
    for name in IMPORTED:
        importlib.import_module(name)
    _import_shared(Path(sys.argv[3]))
    gc.collect()
    gc.freeze()
    args, cwd, env, umask = serve(*sockets)
    os.chdir(cwd)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, os.path.dirname(args[0]))
    sys.argv[:] = args
    from doit.__main__ import main as doit

    try:
        doit()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            _end(ended.code)
        raise


def _end(status: int) -> None:
    """End as Python does, but take no object apart: each would copy a page that the server shares."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            return  # Python has its own way to say that
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
