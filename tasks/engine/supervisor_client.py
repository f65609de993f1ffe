"""Starting a keeper (supervisor.py) and talking to it. What to do with it is decided elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from tasks.engine import logfile
from tasks.engine.environment import engine_environment
from tasks.engine.server_record import KEEPER_WORDS
from tasks.system.exit_status import Ending
from tasks.system.processes import INTERRUPT_S, KILL_S, TAIL_BYTES, TERMINATE_S, last_lines

_ANSWER_S = 30.0  # for the start of a Python on a machine that is very busy
_STOP_S = INTERRUPT_S + TERMINATE_S + KILL_S + 5.0  # its steps, and what it writes after them
_LAST_WORDS_S = 2.0  # for what a keeper that has ended has said
_POLL_S = 0.01


class NoRecord(OSError):
    """The record of a server cannot be written: no command could find it, so it was ended."""


class Kept:
    """An engine and its keeper, as the process that started them sees them: on record from the beginning.

    Args:
        record: path of the file that says what runs; the keeper writes `values` there, and its own findings.
        keeps_log: the log outlives the engine, so that an error may name it.

    Raises:
        NoRecord: its record cannot be written.
        OSError: the engine cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str, log: str,
        record: str, values: Mapping[str, Any], root: str, keeps_log: bool = True,
    ) -> None:  # fmt: skip
        self.command, self.log = list(command), log
        self._keeps_log = keeps_log
        self.told = False  # the engine has ended because its keeper was told so
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._ended: int | None = None
        self._keeper = subprocess.Popen(
            [sys.executable, *KEEPER_WORDS, values["mark"]], cwd=root,
            env=engine_environment(os.environ, PYTHONPATH=root),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", **_apart(),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        order = {"command": self.command, "env": dict(env), "cwd": cwd, "log": log, "record": record}
        self._say(json.dumps({**order, "values": dict(values)}))
        import psutil  # noqa: F401  # needed soon; it takes its time while the engine takes its own

        try:
            self.pid: int = self._answer("pid")
        except BaseException:
            self.stop(lambda: True)
            raise

    def exited(self) -> int | None:
        """Exit status of the engine, negative for a signal; None while it lives."""
        while True:
            try:
                self._note(self._answers.get_nowait())
            except Empty:
                return self._ended

    def ending(self) -> Ending:
        """How it ended, with the last lines of its log."""
        output = last_lines(logfile.tail(self.log, TAIL_BYTES))
        log = self.log if self._keeps_log else ""
        return Ending(self.command, self.exited(), output, log)

    def ready(self, seconds: float) -> None:
        """It may take requests: this is on record when the call returns."""
        self._say(f"ready {seconds:.3f}")
        with suppress(OSError):
            self._answer("state")

    def detach(self) -> None:
        """Let it live on when this process ends."""
        self._say("detach")

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> bool:
        """End the engine and all it started: interrupt, terminate, kill, each with its time limit.

        Args:
            hurry: says True when there is no more time for the gentle steps.

        Returns:
            Whether the keeper says that everything is gone.
        """
        self._say("stop")
        deadline, hurried = time.monotonic() + _STOP_S, False
        while self._keeper.poll() is None and time.monotonic() < deadline:
            if not hurried and hurry():
                self._say("kill")
                hurried = True
            time.sleep(_POLL_S)
        if self._keeper.poll() is None:
            self._keeper.kill()
        self._keeper.wait()
        self._reader.join(_LAST_WORDS_S)
        return self.exited() is not None

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # it has ended; that is noticed elsewhere
            assert self._keeper.stdin
            data = f"{line}\n".encode()
            while data:  # past the buffer: Python 3.13 complains of what it cannot flush in the end
                data = data[os.write(self._keeper.stdin.fileno(), data) :]

    def _answer(self, name: str) -> Any:
        """Wait for an answer with that name. Raises OSError: it says that something failed."""
        deadline = time.monotonic() + _ANSWER_S
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise OSError(0, "its keeper does not answer") from None
            if name in answer:
                return answer[name]
            self._note(answer)
            if self._ended is not None:
                code, text = answer.get("errno") or 0, answer.get("text") or "its keeper has ended"
                if "record" in answer:
                    raise NoRecord(code, text, answer["record"])
                raise OSError(code, text, None, answer.get("winerror"))

    def _note(self, answer: dict[str, Any]) -> None:
        self._ended = answer.get("ended", self._ended)
        self.told = bool(answer.get("told", self.told))

    def _read(self) -> None:
        """Pass answers on. A keeper that ends without a last word was killed, and what it kept with it."""
        assert self._keeper.stdout
        last, other = False, ""
        for line in self._keeper.stdout:
            try:
                answer = dict(json.loads(line))
            except ValueError:
                other = (other + line)[-TAIL_BYTES:]
            else:
                last = last or "ended" in answer
                self._answers.put(answer)
        if not last:
            self._answers.put({"ended": -9, "text": f"its keeper has ended {other}".strip()})


def _apart() -> dict[str, Any]:
    """A session of its own: neither the terminal's Ctrl-C nor its end reaches a keeper."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
