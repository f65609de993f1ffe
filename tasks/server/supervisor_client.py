"""Start a supervisor (supervisor.py) and exchange messages with it."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from tasks.engine.environment import supervisor_environment
from tasks.errors import ServerError
from tasks.server import logfile
from tasks.server.server_record import SUPERVISOR_COMMAND
from tasks.system import processes
from tasks.system.exit_status import ProcessExit

_ANSWER_S = 30.0  # a Python starts slowly on a very busy machine
# the supervisor's steps, and what it writes after them
_STOP_S = processes.INTERRUPT_S + processes.TERMINATE_S + processes.KILL_S + 5.0
_LAST_ANSWER_S = 2.0  # to read the answers of a supervisor that has ended
_POLL_S = 0.01

_log = logging.getLogger("recipe")


class RecordError(OSError):
    """The server record cannot be written; the server was ended.

    No command could have found the server.
    """


def no_record_error(name: str, error: RecordError) -> ServerError:
    """Return the error for a server whose record cannot be written."""
    fix = "set LLAMAFILE_CACHE to a directory you can write to"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "free some space, or set LLAMAFILE_CACHE to another disk"
    reason = f"cannot write {error.filename}: {error.strerror}"
    return ServerError(f"{name} was not started: {reason}", fix=fix)


class SupervisorClient:
    """An engine and its supervisor, recorded from the start.

    Args:
        record: path of the server record. The supervisor writes `values` there, and
            what it adds.
        keeps_log: the log outlives the engine, so that an error can name it.
        pins: files that stop the engine if one changes; see `watched_files`.

    Raises:
        RecordError: the server record cannot be written.
        OSError: the engine cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        log: str,
        record: str,
        values: Mapping[str, Any],
        root: str,
        keeps_log: bool = True,
        pins: Mapping[str, object] | None = None,
    ) -> None:
        self.command = list(command)
        self.log = log
        self._keeps_log = keeps_log
        self.stopped_on_request = False
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._ended: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, *SUPERVISOR_COMMAND, values["mark"]],
            cwd=root,
            env=supervisor_environment(os.environ, {"PYTHONPATH": root}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            **_new_session(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        config = {
            "command": self.command,
            "env": dict(env),
            "cwd": cwd,
            "log": log,
            "record": record,
            "values": dict(values),
            "pins": pins,
        }
        self._send(json.dumps(config))
        # needed soon; the import runs while the engine starts
        import psutil  # noqa: F401

        try:
            self.pid: int = self._answer("pid")
        except BaseException:
            self.stop(lambda: True)
            raise

    def exited(self) -> int | None:
        """Return the engine's exit status, -N for signal N; None while it runs."""
        while True:
            try:
                self._note(self._answers.get_nowait())
            except Empty:
                return self._ended

    def ending(self) -> ProcessExit:
        """Return how the engine ended, with the last lines of its log."""
        output = processes.last_lines(logfile.tail(self.log, processes.TAIL_BYTES))
        log = self.log if self._keeps_log else ""
        return ProcessExit(self.command, self.exited(), output, log)

    def ready(self, seconds: float) -> None:
        """Record that the server is ready; return when that is written."""
        self._send(f"ready {seconds:.3f}")
        with suppress(OSError):
            self._answer("state")

    def detach(self) -> None:
        """Let the server run on after this process has ended."""
        self._send("detach")

    def stop(
        self, kill_now: Callable[[], bool] = lambda: False, drain_s: float = 0
    ) -> bool:
        """End the engine and its descendants: drain, interrupt, terminate, kill.

        Each step has a time limit.

        Args:
            kill_now: returns True to kill without the other steps.
            drain_s: the limit of the supervisor; 0 does not drain.

        Returns:
            Whether the supervisor reports that everything has ended.
        """
        self._send("drain" if drain_s else "stop")
        deadline = time.monotonic() + drain_s + _STOP_S
        killed = False
        while self._process.poll() is None and time.monotonic() < deadline:
            self.exited()  # reports what the supervisor waits for
            if not killed and kill_now():
                self._send("kill")
                killed = True
            time.sleep(_POLL_S)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(_LAST_ANSWER_S)
        return self.exited() is not None

    def _send(self, line: str) -> None:
        # an error means that the supervisor has ended; `exited` notices that
        with suppress(OSError, ValueError):
            assert self._process.stdin
            handle = self._process.stdin.fileno()
            data = f"{line}\n".encode()
            # unbuffered: Python 3.13 reports data that it cannot flush at its end
            while data:
                data = data[os.write(handle, data) :]

    def _answer(self, name: str) -> Any:
        """Wait for an answer that contains `name`; return its value.

        Raises:
            RecordError: the supervisor cannot write the server record.
            OSError: the supervisor reports a failure, or does not answer.
        """
        deadline = time.monotonic() + _ANSWER_S
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                answer = self._answers.get(timeout=left)
            except Empty:
                raise OSError(0, "its supervisor does not answer") from None
            if name in answer:
                return answer[name]
            self._note(answer)
            if self._ended is not None:
                raise _start_error(answer)

    def _note(self, answer: dict[str, Any]) -> None:
        if "draining" in answer:
            _log.info("%s", answer["draining"])
        self._ended = answer.get("ended", self._ended)
        stopped = answer.get("stopped", self.stopped_on_request)
        self.stopped_on_request = bool(stopped)

    def _read(self) -> None:
        """Queue the supervisor's answers.

        A supervisor that ends without `ended` was killed, and its engine with it.
        """
        assert self._process.stdout
        ended = False
        other_output = ""
        for line in self._process.stdout:
            try:
                answer = dict(json.loads(line))
            except ValueError:
                other_output = (other_output + line)[-processes.TAIL_BYTES :]
            else:
                ended = ended or "ended" in answer
                self._answers.put(answer)
        if not ended:
            text = f"its supervisor has ended {other_output}".strip()
            self._answers.put({"ended": -9, "text": text})


def _start_error(answer: Mapping[str, Any]) -> OSError:
    code = answer.get("errno") or 0
    text = answer.get("text") or "its supervisor has ended"
    if "record" in answer:
        return RecordError(code, text, answer["record"])
    return OSError(code, text, None, answer.get("winerror"))


def _new_session() -> dict[str, Any]:
    """Return options for a process that the terminal's Ctrl-C and end do not reach."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}
