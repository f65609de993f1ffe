"""A process, unmistakably, as it is written down. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

MARK_VARIABLE = "LLAMAFILE_RECIPE_RUN"  # in an engine's environment: whose process it is


@dataclass(frozen=True)
class Process:
    """A process, unmistakably: pids are used again, and containers have pids of their own."""

    pid: int
    started: float  # seconds since 1970
    boot: str  # this boot of the machine
    space: str  # the namespace of its pid, where the system has such
    start_ticks: int = 0  # its start in the kernel's own count, which no change of the clock moves; 0: none


class Owner(NamedTuple):
    """A process, unmistakably: pids are used again, and containers have names and pids of their own."""

    host: str
    boot: str  # this boot of the host's kernel
    pid: int
    started: float  # seconds since 1970
    space: str = ""  # the namespace in which the pid counts; not in journals of earlier versions

    @staticmethod
    def parse(data: Any) -> Owner | None:
        """An owner from its JSON; None where there is none."""
        try:
            host, boot, pid, started, *space = data
            return Owner(str(host), str(boot), int(pid), float(started), *map(str, space))
        except (TypeError, ValueError, OverflowError):
            return None


def is_mark(value: object) -> bool:
    """Whether that can be the mark of a run: exactly 16 lowercase hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
