"""Running `doit` on a pseudo-terminal, and reading what it drew there."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import time
from collections.abc import Mapping

from tests.project import Project, Result

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(
    project: Project, *args: str, typed: str = "", timeout: float = 30, columns: int = 120,
    env: Mapping[str, str] | None = None,
) -> Result:  # fmt: skip
    """Run doit on a terminal on which `typed` was typed ahead; `err` is what it showed."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.write(ours, typed.encode())
    command = [project.doit_program, *args]
    environment = {**project.env, "TERM": "xterm-256color", **(env or {})}
    shown, deadline = b"", time.monotonic() + timeout
    with subprocess.Popen(
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
    """The states of the bar, one after the other."""
    return [line.strip() for line in re.split(r"[\r\n]", ANSI.sub("", shown)) if "━" in line or "╸" in line]
