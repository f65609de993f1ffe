"""Supervise one engine: write its log, record its state, and end it.

    python -m tasks.server.supervisor MARKER

Each server has one supervisor for as long as it runs, as each container of podman has
a conmon: there is no daemon, and no server without a process that ends it.

supervisor_client.py starts it. It reads lines from stdin: first the configuration as
JSON, then `ready SECONDS`, `detach`, `drain`, `stop` or `kill`. The end of stdin means
that the client has ended; it is a `stop`, unless the server was detached. SIGTERM is a
`drain`, which is a `stop` once all answers are finished; the second one is a `kill`.
Each answer on stdout is a JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue

from tasks.server.rotating_log import RotatingLog
from tasks.system.processes import EngineProcess
from tasks.system.signals import handle_signals

TYPE_CHECKING = False  # typing takes longer to import than the rest of a supervisor
if TYPE_CHECKING:
    from typing import Any

    from tasks.server.server_record import ServerRecord

_BLOCK = 64 * 1024
_AGAIN_S = 1.0  # between two attempts to write the record
_LAST_OUTPUT_S = 2.0  # to read the pipe after the engine has ended


class Record:
    """The server record on disk; only this process writes it."""

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path = path
        self._values = values
        self.mark: str = values["mark"]
        self.is_late = False  # the file is outdated, because the disk is full

    def create(self, **values: object) -> None:
        """Write the record for the first time.

        Raises:
            OSError: it cannot be written, so no command could find the server.
        """
        self._values |= values
        self._write()

    def write(self, **changes: object) -> None:
        """Update the record.

        A full disk does not end the server: call this until `is_late` is False.
        """
        self._values |= changes
        try:
            self._write()
            self.is_late = False
        except OSError:
            self.is_late = True

    def parsed(self) -> ServerRecord | None:
        """Return the record; None where a value is missing or invalid."""
        from tasks.server.server_record import ServerRecord

        return ServerRecord.parse(self._values, self.path)

    def _write(self) -> None:
        from tasks.system.files import write_atomic

        write_atomic(self.path, json.dumps(self._values, indent=1), private=True)
        if self._values.get("state") == "ready" and (server := self.parsed()):
            from tasks.server import target_file

            target_file.write(server)


class Supervisor:
    """The supervisor of one engine.

    Args:
        config: the configuration.

    Raises:
        OSError: the log cannot be created, or the engine cannot be started.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        # a signal handler may add to it, so it has to be a SimpleQueue
        self._commands: SimpleQueue[str] = SimpleQueue()
        self._urgency = 0  # number of stop requests; `kill` counts as two
        self._drains = False  # the first stop request lets answers be finished
        self._detached = False
        self._stopped = False  # on request
        self._status: int | None = None  # of an engine that ended by itself
        self._changed = ""  # path of a file that is not the verified one any more
        read_end, write_end = os.pipe()
        try:
            self._log = RotatingLog(config["log"])
            self._child = EngineProcess(
                config["command"],
                env=config["env"],
                cwd=config["cwd"],
                output=write_end,
            )
        finally:
            os.close(write_end)
        self._copier = _thread(self._copy, read_end)
        self._ended = threading.Event()
        _thread(self._listen)
        _thread(self._wait)
        values = config["values"]
        models_max = values.get("spec", {}).get("--models-max")
        if models_max:  # it is a router
            _thread(self._keep_loaded, values, int(models_max))
            _thread(self._watch_settings, config["record"])
        self._pins: Any = config["pins"] or {}  # doit reload changes a router's
        if self._pins or models_max:
            _thread(self._watch_files)
        self._record = Record(config["record"], values)

    def stop(self, kill: bool = False, drain: bool = False) -> None:
        """Request a stop; the second request kills the engine at once."""
        if not self._urgency:
            self._drains = drain
        self._urgency += 2 if kill else 1
        self._commands.put("stop")

    def run(self) -> None:
        """Supervise the engine until it has ended, by itself or on request."""
        from tasks.server import drain_request
        from tasks.system.process_identity import process

        engine = process(self._child.pid).as_record()
        supervisor = process(os.getpid()).as_record()
        drain_request.forget(self._record.path)
        try:
            self._record.create(engine=engine, keeper=supervisor)
        except OSError as error:
            self._child.stop(kill_now=lambda: True)
            say_failure(error, record=self._record.path)
            return
        say(pid=self._child.pid)
        # imported now: months later this directory may contain another version
        from tasks.server import drain, server_registry  # noqa: F401

        while self._handle(self._next_command()):
            pass
        self._finish()

    def _handle(self, line: str) -> bool:
        """Execute one command; return whether to wait for the next one."""
        command, _, value = line.partition(" ")
        if command == "ready":
            self._record.write(state="ready", ready_s=float(value))
            say(state="ready")
        elif command == "detach":
            self._detached = True
        elif command == "again":
            self._record.write()
        elif command == "settings":
            self._take_settings()
        elif command == "exited":
            self._status = self._child.exited()
            return False
        elif command == "changed":
            self._drains = True
            self._record.write(state="stopping")
            return False
        elif command == "stop" or not self._detached:  # or `gone`: the client has ended
            self._stopped = True
            self._record.write(state="stopping")
            return False
        return True

    def _finish(self) -> None:
        """End what still runs, update or delete the record, and report the end."""
        from tasks.server import server_registry

        if self._drains:
            self._drain()
        group_ended = self._child.stop(kill_now=lambda: self._urgency > 1)
        # processes that have left the engine's group
        all_ended = server_registry.kill_marked(self._record.mark) and group_ended
        self._copier.join(_LAST_OUTPUT_S)
        path = self._record.path
        status = self._status
        if self._changed:
            text = f"\n{self._changed} is not the file that was verified: stopped\n"
            self._log.write(text.encode())
            status = self._child.exited()
        if status is not None and self._detached:
            server_registry.delete_key(path)
            now = time.time()
            self._record.write(state="stopped", ended=status, ended_at=now, key="")
            if self._record.is_late:
                # the key must not stay on disk, and there is no time to try again
                server_registry.delete_record(path)
        elif all_ended:
            server_registry.delete_record(path)
        if status is None:
            status = self._child.exited()
        say(ended=status, stopped=self._stopped)

    def _drain(self) -> None:
        """Wait until a ready server has answered what it was asked."""
        from tasks.server import drain

        server = self._record.parsed()
        if server:
            kill_now = lambda: self._urgency > 1  # noqa: E731
            drain.finish_answers(server, self._child, kill_now, say)

    def _next_command(self) -> str:
        """Return the next command; `again` where the record must be written again."""
        timeout = _AGAIN_S if self._record.is_late else None
        try:
            return self._commands.get(timeout=timeout)
        except Empty:
            return "again"

    def _copy(self, pipe: int) -> None:
        while block := os.read(pipe, _BLOCK):
            self._log.write(block)

    def _wait(self) -> None:
        self._child.wait()
        self._ended.set()
        self._commands.put("exited")

    def _keep_loaded(self, values: dict[str, Any], models_max: int) -> None:
        from tasks.server.router import Router, keep_loaded

        router = Router(values["host"], values["port"], values["key"])
        keep_loaded(router, models_max, self._ended.wait)

    def _watch_settings(self, path: str) -> None:
        from tasks.server import settings_request

        settings_request.forget(path)
        settings_request.watch(
            path, self._ended.wait, lambda: self._commands.put("settings")
        )

    def _watch_files(self) -> None:
        from tasks.server.watched_files import wait_changed

        self._changed = wait_changed(lambda: self._pins, self._ended.wait)
        if self._changed:
            self._commands.put("changed")

    def _take_settings(self) -> None:
        """Take over the settings that `doit reload` has given to a router."""
        from tasks.server import settings_request

        request = settings_request.read(self._record.path, self._record.mark)
        if request is not None:
            spec, self._pins = request
            self._record.write(spec=spec)
        settings_request.forget(self._record.path)

    def _listen(self) -> None:
        for line in sys.stdin:
            command = line.strip()
            if command in ("drain", "stop", "kill"):
                self.stop(kill=command == "kill", drain=command == "drain")
            else:
                self._commands.put(command)
        self._commands.put("gone")


def _thread(function: Any, *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def say(**answer: object) -> None:
    """Send an answer to the client, if it still runs."""
    with suppress(OSError, ValueError):
        print(json.dumps(answer), flush=True)


def say_failure(error: OSError, **more: object) -> None:
    """Report that no engine runs, and why."""
    text = error.strerror or str(error)
    winerror = getattr(error, "winerror", None)
    say(ended=127, errno=error.errno, winerror=winerror, text=text, **more)


def main() -> int:
    """Supervise the engine that the configuration on stdin describes."""
    config = json.loads(sys.stdin.readline())
    supervisors: list[Supervisor] = []

    def stop(_: int) -> None:
        for supervisor in supervisors:
            supervisor.stop(drain=True)

    with handle_signals(stop):
        try:
            supervisor = Supervisor(config)
        except OSError as error:
            log = config["log"]
            if log in (error.filename, error.filename2):
                say_failure(error, record=log)
            else:
                say_failure(error)
            return 1
        supervisors.append(supervisor)
        supervisor.run()
    return 0


if __name__ == "__main__":
    code = main()
    with suppress(OSError, ValueError):
        sys.stdout.close()
    # does not wait for threads whose reads may never return
    os._exit(code)
