"""Records that identify a process beyond its pid. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

MARK_VARIABLE = "LLAMAFILE_RECIPE_RUN"  # in an engine's environment: its run's marker


@dataclass(frozen=True)
class Process:
    """A process of this machine: pids are reused, and each container has its own."""

    pid: int
    started: float  # seconds since 1970
    boot: str  # this boot of the machine
    space: str  # the pid namespace, on systems that have them
    # its start in clock ticks of the kernel, which setting the clock does not move;
    # 0 if unknown
    start_ticks: int = 0


class Owner(NamedTuple):
    """A process of any machine that shares the cache."""

    host: str
    boot: str  # this boot of the host's kernel
    pid: int
    started: float  # seconds since 1970
    space: str = ""  # the pid namespace; journals of earlier versions have none

    @staticmethod
    def parse(data: Any) -> Owner | None:
        """Read an owner from parsed JSON; None if it is not one."""
        try:
            host, boot, pid, started, *space = data
            return Owner(str(host), str(boot), int(pid), float(started), *map(str, space))
        except (TypeError, ValueError, OverflowError):
            return None


def is_mark(value: object) -> bool:
    """Return whether a value is a run's marker: 16 lowercase hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
