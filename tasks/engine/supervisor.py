"""Keep one engine: write its log, record its state, end it when told or when its owner has gone.

    python -m tasks.engine.supervisor MARK

One for each server and for as long as that runs, as podman's conmon is for a container: no daemon, and no
server without somebody who ends it. Started by `effects.keep`, it speaks lines: the first one of stdin is the
order, as JSON; then `ready SECONDS`, `detach`, `stop`, `kill`. The end of stdin means that the owner has
gone, and is a `stop` unless it was detached. Each answer on stdout is a JSON object. SIGTERM is a `stop`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from tasks.engine.logfile import RotatingLog
from tasks.system.processes import Child
from tasks.system.signals import on_signals

_BLOCK = 64 * 1024
_AGAIN_S = 1.0  # between two attempts to write the record
_LAST_WORDS_S = 2.0  # for what is still in the pipe when the engine has ended


class Record:
    """The file that says what runs; this process alone writes it."""

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path, self._values = path, values
        self.mark: str = values["mark"]
        self.is_late = False  # what is in the file is not what is known: the disk is full

    def create(self, **values: object) -> None:
        """Write it for the first time. Raises OSError: no command could find the server."""
        self._values |= values
        self._write()

    def write(self, **changes: object) -> None:
        """Note a change. A full disk does not end a server: `write` again until `is_late` is False."""
        self._values |= changes
        try:
            self._write()
            self.is_late = False
        except OSError:
            self.is_late = True

    def _write(self) -> None:
        from tasks.system.files import write_atomic

        write_atomic(self.path, json.dumps(self._values, indent=1), private=True)


class Keeper:
    """An engine, and the words that are waited for."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._words: SimpleQueue[str] = SimpleQueue()  # may be filled by a signal handler
        self._urgent = 0  # stops that were asked for
        ours, theirs = os.pipe()
        try:
            self._log = RotatingLog(order["log"])
            self._child = Child(order["command"], env=order["env"], cwd=order["cwd"], output=theirs)
        finally:
            os.close(theirs)
        self._copier = _thread(self._copy, ours)
        _thread(self._listen)
        _thread(self._wait)
        self._record = Record(order["record"], order["values"])

    def stop(self, kill: bool = False) -> None:
        """Ask for the end; the second time there is no more waiting."""
        self._urgent += 2 if kill else 1
        self._words.put("stop")

    def keep(self) -> None:
        """Until the engine has ended, by itself or because it was told to."""
        from tasks.system.process_identity import process

        engine, keeper = process(self._child.pid), process(os.getpid())
        try:
            self._record.create(engine=vars(engine), keeper=vars(keeper))
        except OSError as error:
            self._child.stop(hurry=lambda: True)
            say_failure(error, record=self._record.path)
            return
        say(pid=self._child.pid)
        from tasks.engine import server_registry  # now: months later this folder may have another version

        detached, told, status = False, False, None
        while True:
            word, _, value = self._next().partition(" ")
            if word == "ready":
                self._record.write(state="ready", ready_s=float(value))
                say(state="ready")
            elif word == "detach":
                detached = True
            elif word == "again":
                self._record.write()
            elif word == "exited":
                status = self._child.exited()
                break
            elif word == "stop" or not detached:  # or `gone`: the owner has
                told = True
                self._record.write(state="stopping")
                break
        gone = self._child.stop(hurry=lambda: self._urgent > 1)
        gone = server_registry.end_marked(self._record.mark) and gone  # what has left the engine's group
        self._copier.join(_LAST_WORDS_S)
        if status is not None and detached:
            server_registry.forget_key(self._record.path)
            self._record.write(state="stopped", ended=status, ended_at=time.time(), key="")
            if self._record.is_late:  # no more time: rather no record than one with the key
                server_registry.forget(self._record.path)
        elif gone:
            server_registry.forget(self._record.path)
        say(ended=status if status is not None else self._child.exited(), told=told)

    def _next(self) -> str:
        """The next word; `again` where the record has to be written again."""
        try:
            return self._words.get(timeout=_AGAIN_S if self._record.is_late else None)
        except Empty:
            return "again"

    def _copy(self, pipe: int) -> None:
        while block := os.read(pipe, _BLOCK):
            self._log.write(block)

    def _wait(self) -> None:
        self._child.wait()
        self._words.put("exited")

    def _listen(self) -> None:
        for line in sys.stdin:
            word = line.strip()
            if word in ("stop", "kill"):
                self.stop(kill=word == "kill")
            else:
                self._words.put(word)
        self._words.put("gone")


def _thread(function: Any, *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def say(**answer: object) -> None:
    """Answer the owner, if there still is one."""
    with suppress(OSError, ValueError):
        print(json.dumps(answer), flush=True)


def say_failure(error: OSError, **more: object) -> None:
    """Answer that nothing runs, and why."""
    windows = getattr(error, "winerror", None)
    say(ended=127, errno=error.errno, winerror=windows, text=error.strerror or str(error), **more)


def main() -> int:
    """Do what the order says."""
    order = json.loads(sys.stdin.readline())
    keepers: list[Keeper] = []

    def stop(_: int) -> None:
        for keeper in keepers:
            keeper.stop()

    with on_signals(stop):
        try:
            keeper = Keeper(order)
        except OSError as error:
            log = order["log"]
            unwritten = {"record": log} if log in (error.filename, error.filename2) else {}
            say_failure(error, **unwritten)
            return 1
        keepers.append(keeper)
        keeper.keep()
    return 0


if __name__ == "__main__":
    code = main()
    with suppress(OSError, ValueError):
        sys.stdout.close()
    os._exit(code)  # without waiting for threads that read from what may never end
