"""A server's life as decisions: is it ready, how is it stopped, what does its failure mean. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from tasks.engine import failures
from tasks.errors import ServerError

# The stop's three steps with the seconds each may take; llamafile 0.10 sleeps 1 s in its own handler
INTERRUPT_S = 5.0
TERMINATE_S = 5.0
KILL_S = 5.0

POLL_S = 0.05  # between two looks at a starting server
QUICK_POLL_S = 0.01  # the same, at first
VERSION_S = 120.0  # `--version` of a first run unpacks a loader, and a virus scanner reads the whole file
TAIL_LINES = 15  # of the engine's output, shown when it fails


class Readiness(Enum):
    """What a look at a starting server says."""

    WAIT = "wait"
    READY = "ready"
    DIED = "died"
    LATE = "late"
    STRANGER = "stranger"  # another program answers on the port
    HOPPED = "hopped"  # it has taken another port than it was told to


class Look(NamedTuple):
    """One look at a starting server."""

    exited: int | None  # exit status, negative for a signal; None while it lives
    health: int | None  # status of GET /health; None where nothing answered
    port: int  # the one it was told to take
    ports: frozenset[int] | None  # on which our process listens; None where nobody has looked, or can
    elapsed_s: float  # since the start


def judge_start(look: Look, timeout_s: float) -> Readiness:
    """The race of three: the endpoint says yes, the process is gone, the deadline has passed.

    A dead child is never waited for (llama-swap#100), and a 200 from another process is not ours
    (mozilla-ai/llamafile#54: old versions hop to the next port without a word).
    """
    elsewhere = look.ports is not None and look.port not in look.ports
    if look.exited is not None:
        return Readiness.DIED
    if look.health == 200 and elsewhere:
        return Readiness.STRANGER
    if look.health == 200:
        return Readiness.READY
    if look.ports and elsewhere:
        return Readiness.HOPPED
    return Readiness.LATE if look.elapsed_s >= timeout_s else Readiness.WAIT


class Ending(NamedTuple):
    """How a program ended: what explains it to its user."""

    command: Sequence[str]
    status: int | None  # exit status, negative for a signal; None where it was still running
    output: str  # the last lines it printed
    log: str = ""


# how a POSIX system and Windows (ntstatus.h) call the ends of a program; macOS has numbers of its own for two
_SIGNALS = {1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL",
            11: "SEGV", 13: "PIPE", 15: "TERM", 31: "SYS"}  # fmt: skip
_SIGNALS_OF_MACOS = {7: "EMT", 10: "BUS", 12: "SYS", 31: "USR2"}
_NTSTATUS = {
    0xC0000005: "STATUS_ACCESS_VIOLATION",
    0xC0000017: "STATUS_NO_MEMORY",
    0xC000001D: "STATUS_ILLEGAL_INSTRUCTION",
    0xC000007B: "STATUS_INVALID_IMAGE_FORMAT",
    0xC00000FD: "STATUS_STACK_OVERFLOW",
    0xC0000135: "STATUS_DLL_NOT_FOUND",
    0xC000013A: "STATUS_CONTROL_C_EXIT",
    0xC0000142: "STATUS_DLL_INIT_FAILED",
    0xC0000374: "STATUS_HEAP_CORRUPTION",
    0xC0000409: "STATUS_STACK_BUFFER_OVERRUN",
}


def status_text(status: int | None, platform: str = "linux") -> str:
    """`exit status 1`, `signal 9 (SIGKILL)`, `exit status 0xC0000135 (STATUS_DLL_NOT_FOUND)`."""
    if status is None:
        return "still running"
    nt = status & 0xFFFFFFFF  # Python gives it unsigned, a shell of Windows signed
    if nt in _NTSTATUS or status >= 0xC0000000:
        return f"exit status 0x{nt:08X}" + (f" ({_NTSTATUS[nt]})" if nt in _NTSTATUS else "")
    if platform == "win32" and 0 < status < 0x10000 and status % 0x100 == 0:
        status >>= 8  # an APE's exit(1) is 256 there (exit.c:92 of jart/cosmopolitan)
    if status >= 0:
        return f"exit status {status}"
    names = {**_SIGNALS, **(_SIGNALS_OF_MACOS if platform == "darwin" else {})}
    return f"signal {-status}" + (f" (SIG{names[-status]})" if -status in names else "")


def failure(what: str, ending: Ending, platform: str) -> ServerError:
    """The error for a program that failed: command, status, last lines, likely remedy (R26, R28)."""
    facts = [
        ("command", shlex.join(ending.command)),
        ("ended", status_text(ending.status, platform) if ending.status is not None else ""),
        ("output", ending.output or "(it printed nothing)"),
        ("log", ending.log),
    ]
    return ServerError(what, facts, fix=failures.remedy(ending, platform))
