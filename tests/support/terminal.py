"""Run `doit` on a pseudo-terminal and read what it shows."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import psutil

from tests.support.project import Project, Result

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(
    project: Project, *args: str, typed: str = "", timeout: float = 120, columns: int = 120,
    env: Mapping[str, str] | None = None,
) -> Result:  # fmt: skip
    """Run doit on a terminal where `typed` was typed ahead; `err` is what it shows."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.write(ours, typed.encode())
    command = [project.doit_program, *args]
    environment = {**project.env, "TERM": "xterm-256color", **(env or {})}
    shown, deadline = b"", time.monotonic() + timeout
    popen: type[subprocess.Popen[Any]] = project.popen(command, environment)
    with popen(
        command, cwd=project.path, env=environment, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE
    ) as running:
        os.close(theirs)
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux says EIO where the other side has closed
                break
            if not block:
                break
            shown += block
        else:
            running.kill()
        out = running.stdout.read().decode() if running.stdout else ""
    os.close(ours)
    assert "Traceback" not in shown.decode()
    return Result(running.returncode, out, shown.decode().replace("\r\n", "\n"))


def bars(shown: str) -> list[str]:
    """Return the successive states of the progress bar."""
    return [line.strip() for line in re.split(r"[\r\n]", ANSI.sub("", shown)) if "━" in line or "╸" in line]


_OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Typing:
    """`doit`, or a shell, on its own terminal with simulated typing. Use `with`, which ends it.

    Ctrl-C reaches the foreground process of that terminal, as for a user.
    """

    def __init__(self, project: Project, *args: str, program: str = "") -> None:
        self._ours, theirs = os.openpty()
        command = [sys.executable, "-SE", "-c", _OWN_TERMINAL, program or project.doit_program, *args]
        environment = {**project.env, "TERM": "dumb"}
        self.doit = psutil.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=project.path, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._ours, text.encode())

    def wait_for(self, text: str, timeout: float = 60, again: str = "") -> None:
        """Wait until a text is shown after what the last `wait_for` found.

        `again` is typed every few seconds: readline may have missed a Ctrl-C, as it does not always check for
        signals.
        """
        deadline = time.monotonic() + timeout
        while text not in self.shown:
            if not self._read(min(deadline, time.monotonic() + 3) if again else deadline):
                hope = again and time.monotonic() < deadline
                assert hope, f"{text!r} was not shown: {self.shown}"
                self.type(again)
        self.shown = self.shown.partition(text)[2]

    def read(self, seconds: float) -> None:
        """Read what is shown within this time, or until the other side closes."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass

    def finish(self, timeout: float = 60) -> int:
        """Wait for the end; return the exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        assert "Traceback" not in self.shown, self.shown
        return int(self.doit.wait(max(1.0, deadline - time.monotonic())))

    def _read(self, deadline: float) -> bool:
        while time.monotonic() < deadline:
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                block = os.read(self._ours, 65536)
            except OSError:  # Linux says EIO where the other side has closed
                return False
            self.shown += ANSI.sub("", block.decode("utf-8", "replace")).replace("\r\n", "\n")
            return bool(block)
        return False

    def __enter__(self) -> Typing:
        return self

    def __exit__(self, *_: object) -> None:
        if self.doit.poll() is None:
            self.doit.terminate()
            try:
                self.doit.wait(20)
            except psutil.TimeoutExpired:
                self.doit.kill()
        os.close(self._ours)
