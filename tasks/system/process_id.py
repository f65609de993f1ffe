"""The identity of a process, beyond its pid. Pure."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

MARK_VARIABLE = "LLAMAFILE_RECIPE_RUN"  # in an engine's environment: its run's marker


@dataclass(frozen=True)
class ProcessId:
    """One process: pids are reused, and each container has its own."""

    pid: int
    started: float  # seconds since 1970
    boot: str  # this boot of its machine
    space: str = ""  # the pid namespace, on systems that have them
    # its start in clock ticks of the kernel, which setting the clock does not move;
    # 0 if unknown
    start_ticks: int = 0
    host: str = ""  # set for a process that other machines look at

    def as_record(self) -> dict[str, Any]:
        """Return its fields in a server record, which is read on this machine."""
        fields = asdict(self)
        del fields["host"]
        return fields

    def as_owner(self) -> tuple[str, str, int, float, str]:
        """Return it as a journal names its owner, a process of any machine."""
        return self.host, self.boot, self.pid, self.started, self.space

    @staticmethod
    def parse_owner(data: Any) -> ProcessId | None:
        """Read the owner in a journal's JSON; None if it is not one.

        Journals of earlier versions have no pid namespace.
        """
        try:
            host, boot, pid, started, *rest = data
            [space] = rest or [""]
            return ProcessId(
                int(pid), float(started), str(boot), str(space), host=str(host)
            )
        except (TypeError, ValueError, OverflowError):
            return None


def is_mark(value: object) -> bool:
    """Return whether a value is a run's marker: 16 lowercase hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
